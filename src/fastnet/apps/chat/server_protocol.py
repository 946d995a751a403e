"""Sans-I/O server protocol of the group chat: membership, rooms, message distribution.

Facts. A datagram's source address can be forged, and a chat sends each message to all members: if
forged addresses could be members, the server would be an amplifier. A textbook program sends
`online` once and then only receives. Two servers that answer each other's hints, or a member that
echoes, would loop forever.
Decision: an address is validated when it is in a trusted network (this host, and --trust) or has
returned a cookie, as chat/1 always does (RFC 9000 section 8). An unvalidated address is sent at
most UNVALIDATED_REPLY_BYTES_MAX for each datagram received from it, and is evicted first when the
server is full. Texts that only a server sends are neither answered nor distributed. A membership
ends when the member leaves, at its idle timeout, when its port is reported unreachable, or when a
member of chat/1 has more than CHAT_UNACKNOWLEDGED_MAX events outstanding (delivery.py).
Cost: over an untrusted network a textbook program must send something, `online` again will do,
every few messages.

A member's states:

    event                                         from       to
    `online`                                      offline    member (textbook)
    join with a valid cookie and a free name      offline    member (chat/1)
    `online`; join with the same name and room    member     member
    join with another name or room                member     member, announced as left and joined
    `offline`, leave                              member     offline
    idle timeout, port unreachable, events not    member     offline
    acknowledged, evicted, key revoked, name
    conflict with another server
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.delivery import EventQueue
from fastnet.apps.chat.members import (
    ChatStatistics,
    Member,
    MessageHistory,
    RemoteMember,
    RemoteMembers,
)
from fastnet.apps.chat.wire import ChatError
from fastnet.limits import (
    CHAT_BURST,
    CHAT_COOKIE_S,
    CHAT_HINTS,
    CHAT_MEMBERS_MAX,
    CHAT_TEXT_BYTES_MAX,
    CHAT_UNACKNOWLEDGED_MAX,
    UNVALIDATED_REPLY_BYTES_MAX,
)
from fastnet.ratelimit import Clock, TokenBucket
from fastnet.transport.access import AccessList
from fastnet.udp.address_token import AddressToken
from fastnet.udp.contract import Peer

log = logging.getLogger("fastnet")

COOKIE_BYTES = 12
"""Length of a cookie; on the wire it is in hexadecimal."""

Datagrams = list[tuple[bytes, Peer]]
"""Datagrams to send, each with its destination."""


class ChatServerProtocol:
    """All state of a chat server except its socket.

    Args:
        trusted: Networks whose addresses count as validated.
        rate: Messages a second that each member may send.
        clock: Returns monotonic seconds.
    """

    def __init__(self, trusted: AccessList, rate: float, clock: Clock = time.monotonic) -> None:
        self.trusted = trusted
        self.rate = rate
        self.clock = clock
        self.statistics = ChatStatistics()
        self.members: dict[Peer, Member] = {}
        self.names: dict[str, Member] = {}
        """Members of chat/1 by case-folded name, so that no two names differ in case only."""
        self.history = MessageHistory()
        self.remote = RemoteMembers()
        self.on_message: Callable[[Member, str], None] = lambda member, text: None
        """Called with each accepted message of a member of this server."""
        self.on_presence_change: Callable[[], None] = lambda: None
        """Called when a member of this server has joined or left."""
        self._cookies = AddressToken(CHAT_COOKIE_S, COOKIE_BYTES)
        self._hint_bucket = TokenBucket(CHAT_HINTS, CHAT_HINTS, clock)

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Datagrams:
        """Process one datagram.

        Args:
            datagram: Its bytes, of either protocol.
            peer: Its source address.
        Returns:
            The datagrams to send.
        """
        if datagram.startswith(wire.PREFIX):
            try:
                return self._receive_request(wire.unpack(datagram), peer)
            except ChatError:
                self.statistics.malformed += 1
                return []
        return self._receive_text(wire.decode_text(datagram), len(datagram), peer)

    # The textbook protocol

    def _receive_text(self, text: str, size: int, peer: Peer) -> Datagrams:
        member = self.members.get(peer)
        if not text or wire.is_server_text(text) or (member and member.name):
            self.statistics.malformed += 1  # a text has no cookie, so it is not chat/1's member's
            return []
        now_s = self.clock()
        if member is None:
            return self._join_textbook(peer) if text == wire.ONLINE else self._send_hint(peer)
        member.last_received_s = now_s
        if member.credit_bytes is not None:
            member.credit_bytes = max(UNVALIDATED_REPLY_BYTES_MAX, size)
        if text == wire.ONLINE:
            return self._send_text(member, _forwarded(member, text))
        if text == wire.OFFLINE:
            return [*self._remove(member, "left"), (wire.HINT.encode(), peer)]
        return self._receive_textbook_message(member, text)

    def _receive_textbook_message(self, member: Member, text: str) -> Datagrams:
        if len(text.encode()) > CHAT_TEXT_BYTES_MAX:
            notice = f"{wire.TOO_LONG}, at most {CHAT_TEXT_BYTES_MAX} bytes"
            return self._send_text(member, notice.encode())
        if not member.message_bucket.try_consume():
            self.statistics.rate_limited += 1
            had_notice, member.has_rate_notice = member.has_rate_notice, True
            return [] if had_notice else self._send_text(member, wire.TOO_FAST.encode())
        member.has_rate_notice = False
        return self._distribute_message(member, text)

    def _join_textbook(self, peer: Peer) -> Datagrams:
        is_validated = self.trusted.allows(peer[0])
        evicted = self._evict_unvalidated() if is_validated else []
        if len(self.members) >= CHAT_MEMBERS_MAX:
            return [(wire.FULL.encode(), peer)]
        member = self._new_member(peer, "")
        member.credit_bytes = None if is_validated else UNVALIDATED_REPLY_BYTES_MAX
        self.members[peer] = member
        self._presence_changed()
        return [*evicted, *self._broadcast(member, "joined", wire.ONLINE)]

    def _new_member(self, peer: Peer, name: str) -> Member:
        return Member(peer, name, self.clock(), TokenBucket(self.rate, CHAT_BURST, self.clock))

    def _evict_unvalidated(self) -> Datagrams:
        """In a full server, remove the unvalidated member that has been idle the longest."""
        unvalidated = [each for each in self.members.values() if each.credit_bytes is not None]
        if not unvalidated or len(self.members) < CHAT_MEMBERS_MAX:
            return []
        longest_idle = min(unvalidated, key=lambda member: member.last_received_s)
        return self._remove(longest_idle, "evicted: the server is full")

    def _send_text(self, member: Member, data: bytes) -> Datagrams:
        """To a textbook member, if its address is validated or has enough credit."""
        if member.credit_bytes is not None:
            if member.credit_bytes < len(data):
                self.statistics.amplification_blocked += 1
                return []
            member.credit_bytes -= len(data)
        return [(data, member.peer)]

    def _send_hint(self, peer: Peer) -> Datagrams:
        if not self._hint_bucket.try_consume():
            return []
        self.statistics.hints += 1
        return [(wire.HINT.encode(), peer)]

    # chat/1

    def _receive_request(self, message: dict[str, Any], peer: Peer) -> Datagrams:
        """Raises ChatError."""
        kind, cookie = wire.get_text(message, "type"), wire.get_text(message, "cookie")
        member = self.members.get(peer)
        if not self._is_cookie_valid(cookie, peer):
            return self._challenge(peer)
        if kind == "join":
            return self._handle_join(message, member, peer)
        if kind == "leave":
            removed = self._remove(member, "left") if member else []
            return [*removed, (wire.pack({"type": "bye"}), peer)]
        if member is None or not member.name:
            return self._challenge(peer)
        member.last_received_s = self.clock()
        if kind == "message":
            return self._handle_message(message, member)
        if kind == "ack":
            number = wire.get_number(message, "number")
            entering = member.events.acknowledge(number, self.clock())
            return [(wire.pack({"type": "ack"}), peer), *_to(member, entering)]
        if kind == "who":
            return [(wire.pack_who(self._names_in(member.room)), peer)]
        raise ChatError("unknown type of request")

    def _challenge(self, peer: Peer) -> Datagrams:
        cookie = self._cookies.issue(peer, self.clock()).hex()
        return [(wire.pack({"type": "challenge", "cookie": cookie}), peer)]

    def _is_cookie_valid(self, cookie: str, peer: Peer) -> bool:
        try:
            token = bytes.fromhex(cookie)
        except ValueError:
            return False
        return self._cookies.verify(token, peer, self.clock())

    def _handle_join(self, message: dict[str, Any], member: Member | None, peer: Peer) -> Datagrams:
        try:
            name = wire.parse_name(message.get("name"))
            room = wire.parse_name(message["room"]) if message.get("room") else ""
        except ChatError as error:
            return [_refused(str(error), peer)]
        last_message_id = wire.get_number(message, "last_id")
        if member is not None and (member.name, member.room) == (name, room):
            member.last_received_s = self.clock()
            return [(self._welcome(member), peer)]
        holder = self.names.get(name.casefold()) or self.remote.find(name)
        if holder is not None and holder is not member:
            return [_refused(f"the name {holder.display_name} is in use", peer)]
        sent = self._remove(member, "left") if member else self._evict_unvalidated()
        if len(self.members) >= CHAT_MEMBERS_MAX:
            return [*sent, _refused(wire.FULL, peer)]
        member = self._new_member(peer, name)
        member.room, member.last_message_id = room, last_message_id
        member.events = EventQueue(secrets.token_hex(8))
        self.members[peer] = self.names[name.casefold()] = member
        sent.append((self._welcome(member), peer))
        for sender, text in self.history.of_room(room):
            sent += self._send_event(member, "history", sender, text)
        self._presence_changed()
        return [*sent, *self._broadcast(member, "joined", wire.ONLINE)]

    def _welcome(self, member: Member) -> bytes:
        online, session = len(self._names_in(member.room)), member.events.session
        welcome = {"type": "welcome", "name": member.name, "session": session, "online": online}
        return wire.pack(welcome)

    def _handle_message(self, message: dict[str, Any], member: Member) -> Datagrams:
        """Accept the next message; answer one that was accepted before again. Raises ChatError."""
        message_id = wire.get_number(message, "id")
        text = wire.sanitize(wire.get_text(message, "text"))
        size = len(text.encode("utf-8", "replace"))
        if message_id > member.last_message_id + 1 or not 0 < size <= CHAT_TEXT_BYTES_MAX:
            raise ChatError("not the next message")
        accepted = (wire.pack({"type": "accepted", "id": message_id}), member.peer)
        if message_id <= member.last_message_id:
            return [accepted]
        if not member.message_bucket.try_consume():
            self.statistics.rate_limited += 1
            seconds = round(member.message_bucket.delay_s(1), 3)
            wait = {"type": "wait", "id": message_id, "seconds": seconds}
            return [(wire.pack(wait), member.peer)]
        member.last_message_id = message_id
        return [accepted, *self._distribute_message(member, text)]

    # Distribution to members

    def _distribute_message(self, member: Member, text: str) -> Datagrams:
        self.statistics.messages += 1
        self.history.add(member, text)
        self.on_message(member, text)
        return list(self._broadcast(member, "message", text))

    def _broadcast(
        self, sender: Member | RemoteMember, kind: str, text: str
    ) -> Iterator[tuple[bytes, Peer]]:
        """An event, to each member of the sender's room in the member's own protocol."""
        for member in self._members_in(sender.room):
            if member.name:
                yield from self._send_event(member, kind, sender.display_name, text)
            else:
                yield from self._send_text(member, _forwarded(sender, text))

    def _send_event(self, member: Member, kind: str, sender: str, text: str) -> Datagrams:
        event = {"kind": kind, "sender": sender, "text": text}
        return _to(member, member.events.push(event, self.clock()))

    def _members_in(self, room: str) -> list[Member]:
        return [member for member in self.members.values() if member.room == room]

    def _names_in(self, room: str) -> list[str]:
        """Names of the members of a room: first this server's, then those of others."""
        local = [member.display_name for member in self._members_in(room)]
        return [*local, *(name for name in self.remote.names_in(room) if name not in local)]

    # Presence

    def disconnect(self, peer: Peer, reason: str) -> Datagrams:
        """Remove a member and announce it. Returns the datagrams to send.

        Args:
            peer: Address of the member; no member has it: nothing is done.
            reason: For the log.
        """
        member = self.members.get(peer)
        return self._remove(member, reason) if member else []

    def handle_port_unreachable(self, peer: Peer) -> Datagrams:
        """Remove a textbook member whose host reports that its port is closed (ICMP).

        A member of chat/1 stays: its keepalives are authenticated by a cookie, ICMP by nothing.
        """
        member = self.members.get(peer)
        return self._remove(member, "port unreachable") if member and not member.name else []

    def _remove(self, member: Member, reason: str) -> Datagrams:
        """Remove a member and announce it to the others of its room."""
        del self.members[member.peer]
        if member.name:
            del self.names[member.name.casefold()]
        if reason != "left":
            self.statistics.disconnected += 1
            log.info("chat: %s disconnected: %s", member.display_name, reason)
        self._presence_changed()
        return list(self._broadcast(member, "left", wire.OFFLINE))

    def _presence_changed(self) -> None:
        self.statistics.online = len(self.members)
        self.on_presence_change()

    # Other servers

    def receive_remote_message(self, sender: RemoteMember, text: str) -> Datagrams:
        """Distribute a message of another server's member. Returns the datagrams to send."""
        self.statistics.remote_messages += 1
        self.history.add(sender, text)
        return list(self._broadcast(sender, "message", text))

    def replace_remote_members(self, server: str, members: list[RemoteMember]) -> Datagrams:
        """Replace another server's member list and announce the differences.

        Args:
            server: Id of the server.
            members: Its members now; empty: it has stopped.
        Returns:
            The datagrams to send.
        """
        left, joined = self.remote.replace(server, members)
        sent: Datagrams = []
        for each in left:
            sent += self._broadcast(each, "left", wire.OFFLINE)
        for each in joined:
            sent += self._broadcast(each, "joined", wire.ONLINE)
        return sent

    # Timers

    def handle_timer(self) -> Datagrams:
        """Retransmit events, and remove members whose timeout has expired."""
        now_s = self.clock()
        sent: Datagrams = []
        for member in list(self.members.values()):
            if now_s - member.last_received_s >= member.idle_timeout_s:
                sent += self._remove(member, f"idle for {member.idle_timeout_s:g} s")
            elif len(member.events) > CHAT_UNACKNOWLEDGED_MAX:
                sent += self._remove(member, f"{CHAT_UNACKNOWLEDGED_MAX} unacknowledged events")
            else:
                sent += _to(member, member.events.retransmit(now_s))
        return sent

    def timers(self) -> list[float]:
        """Monotonic times at which `handle_timer` is due."""
        found = []
        for member in self.members.values():
            found.append(member.last_received_s + member.idle_timeout_s)
            if member.events:
                found.append(member.events.due_s)
        return found

    def stop(self) -> None:
        """No request has work that outlives its datagram."""

    def has_pending_work(self) -> bool:
        """Never."""
        return False


def _forwarded(sender: Member | RemoteMember, text: str) -> bytes:
    return wire.format_forwarded(str(sender.peer[0]), sender.peer[1], text)


def _refused(reason: str, peer: Peer) -> tuple[bytes, Peer]:
    return wire.pack({"type": "refused", "reason": reason}), peer


def _to(member: Member, datagrams: Iterable[bytes]) -> Datagrams:
    return [(data, member.peer) for data in datagrams]
