"""Who is online, and who gets what. Datagrams in, datagrams out; no socket.

Facts. A datagram's source address can be forged, and a chat sends everything to everybody: whoever
could make members of other people's addresses would have an amplifier. A textbook program says
`online` once and then only listens. Two servers that answer each other's hints, or a member that
echoes, would talk for ever.
Decision: an address is proven when it is in a trusted network (this host, and --trust) or has sent
back a cookie, which chat/1 always does. One that is not gets UNVALIDATED_REPLY_BYTES_MAX for each
datagram it sends and no more, until it sends again, and has to make room for proven ones. What only
a server says is neither answered nor passed on. Members are members until they leave, are silent
for too long, or the network says that nobody is there. A member of chat/1 gets each event again
until it acknowledges it; one that falls behind by CHAT_UNREAD_MAX is gone.
Cost: over an untrusted network a textbook program must say something, `online` again will do, every
few messages.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.members import Away, Bucket, Member, Statistics
from fastnet.apps.chat.wire import ChatError
from fastnet.limits import (
    CHAT_BURST,
    CHAT_COOKIE_S,
    CHAT_HINTS,
    CHAT_HISTORY,
    CHAT_MEMBERS_MAX,
    CHAT_ROOMS_MAX,
    CHAT_SILENT_S,
    CHAT_TEXT_BYTES_MAX,
    CHAT_TEXTBOOK_SILENT_S,
    CHAT_UNREAD_MAX,
    CHAT_WINDOW,
    UNVALIDATED_REPLY_BYTES_MAX,
)
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer

log = logging.getLogger("fastnet")

RESEND_S = 0.2
RESEND_MAX_S = 2.0
NAMES_BYTES_MAX = 900

Sent = list[tuple[bytes, Peer]]


class Hall:
    """All state of a server but its socket. steady: seconds that only go forward."""

    def __init__(
        self, trusted: AccessList, rate: float, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.trusted = trusted
        self.rate = rate
        self.steady = steady
        self.statistics = Statistics()
        self.members: dict[Peer, Member] = {}
        self.names: dict[str, Member] = {}
        """By the name in lower case, so that nobody can pass for somebody."""
        self.earlier: OrderedDict[str, deque[tuple[str, str]]] = OrderedDict()
        """What was said in each room, and by whom; the room where something was said last is the
        last one.
        """
        self.away: dict[str, list[Away]] = {}
        """Who is online at other servers, by the server (elsewhere.py)."""
        self.on_said: Callable[[Member, str], None] = lambda member, text: None
        """Called when a member has said something."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a member has come or gone."""
        self._secret = secrets.token_bytes(32)
        self._hints = Bucket(CHAT_HINTS, CHAT_HINTS, steady())

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Sent:
        """Judge one datagram. Returns what to send, and where."""
        if datagram.startswith(wire.MARK):
            try:
                return self._request(wire.unpack(datagram), peer)
            except ChatError:
                self.statistics.junk += 1
                return []
        return self._text(wire.text_of(datagram), len(datagram), peer)

    # The textbook protocol

    def _text(self, text: str, size: int, peer: Peer) -> Sent:
        member = self.members.get(peer)
        if not text or wire.is_from_a_server(text) or (member and member.name):
            self.statistics.junk += 1  # a member of chat/1 has a cookie, and a text has none
            return []
        now_s = self.steady()
        if member is not None:
            member.heard_s = now_s
            if member.credit_bytes is not None:
                member.credit_bytes = max(UNVALIDATED_REPLY_BYTES_MAX, size)
        if text == wire.ONLINE:
            return (
                self._came_by_text(peer, now_s)
                if member is None
                else self._reply(member, self._told(member, text))
            )
        if member is None:
            return self._hint(peer, now_s)
        if text == wire.OFFLINE:
            return [*self._went(member, "left"), (wire.HINT.encode(), peer)]
        if len(text.encode()) > CHAT_TEXT_BYTES_MAX:
            return self._reply(
                member, f"{wire.TOO_LONG}, at most {CHAT_TEXT_BYTES_MAX} bytes".encode()
            )
        if not member.bucket.take(now_s):
            self.statistics.slowed += 1
            was_told, member.was_told = member.was_told, True
            return [] if was_told else self._reply(member, wire.TOO_FAST.encode())
        member.was_told = False
        return self._said(member, text)

    def _came_by_text(self, peer: Peer, now_s: float) -> Sent:
        is_proven = self.trusted.allows(peer[0])
        gone = self._make_room(is_proven)
        if len(self.members) >= CHAT_MEMBERS_MAX:
            return [(wire.FULL.encode(), peer)]
        member = Member(
            peer,
            "",
            now_s,
            Bucket(self.rate, CHAT_BURST, now_s),
            None if is_proven else UNVALIDATED_REPLY_BYTES_MAX,
        )
        self.members[peer] = member
        self._changed()
        return [*gone, *self._tell(member, "came", wire.ONLINE)]

    def _make_room(self, is_proven: bool) -> Sent:
        """In a full hall the unproven member that was silent longest goes for one that is
        proven.
        """
        unproven = [member for member in self.members.values() if member.credit_bytes is not None]
        if not is_proven or not unproven or len(self.members) < CHAT_MEMBERS_MAX:
            return []
        return self._went(min(unproven, key=lambda member: member.heard_s), "made room")

    def _reply(self, member: Member, data: bytes) -> Sent:
        """To a textbook member, if it has proven itself or has enough credit."""
        if member.credit_bytes is not None:
            if member.credit_bytes < len(data):
                self.statistics.amplification_blocked += 1
                return []
            member.credit_bytes -= len(data)
        return [(data, member.peer)]

    def _hint(self, peer: Peer, now_s: float) -> Sent:
        if not self._hints.take(now_s):
            return []
        self.statistics.hints += 1
        return [(wire.HINT.encode(), peer)]

    # chat/1

    def _request(self, message: dict[str, Any], peer: Peer) -> Sent:
        """Raises ChatError."""
        do, cookie = wire.text_in(message, "do"), wire.text_in(message, "cookie")
        member = self.members.get(peer)
        cookies = self._cookies(peer)
        if not any(
            hmac.compare_digest(cookie.encode("utf-8", "replace"), each.encode())
            for each in cookies
        ):
            return [(wire.pack({"is": "challenge", "cookie": cookies[0]}), peer)]
        if do == "join":
            return self._join(message, member, peer)
        if do == "leave":
            gone = self._went(member, "left") if member else []
            return [*gone, (wire.pack({"is": "bye"}), peer)]
        if member is None or not member.name:
            return [(wire.pack({"is": "challenge", "cookie": cookies[0]}), peer)]
        member.heard_s = self.steady()
        if do == "say":
            return self._say(message, member)
        if do == "here":
            return [
                (wire.pack({"is": "here"}), peer),
                *self._acknowledged(member, wire.number_in(message, "got")),
            ]
        if do == "who":
            return [(wire.pack(self._who(self._titles(member.room))), peer)]
        raise ChatError("nothing we do")

    def _cookies(self, peer: Peer) -> list[str]:
        """The cookie of an address now, and the one before."""
        minute = int(self.steady() / CHAT_COOKIE_S)
        packed = [f"{peer[0]} {peer[1]} {minute - age}".encode() for age in (0, 1)]
        return [hmac.digest(self._secret, data, "sha256").hex()[:24] for data in packed]

    def _join(self, message: dict[str, Any], member: Member | None, peer: Peer) -> Sent:
        try:
            name = wire.name_of(message.get("name"))
            room = wire.name_of(message["room"]) if message.get("room") else ""
        except ChatError as error:
            return [(wire.pack({"is": "refused", "why": str(error)}), peer)]
        said, now_s = wire.number_in(message, "said"), self.steady()
        if member is not None and (member.name, member.room) == (name, room):
            member.heard_s = now_s
            return [(self._welcome(member), peer)]
        holder: Member | Away | None = self.names.get(name.casefold()) or self._namesake(name)
        if holder is not None and holder is not member:
            return [
                (wire.pack({"is": "refused", "why": f"somebody is {holder.title} already"}), peer)
            ]
        gone = self._went(member, "left") if member is not None else self._make_room(is_proven=True)
        if len(self.members) >= CHAT_MEMBERS_MAX:
            return [*gone, (wire.pack({"is": "refused", "why": wire.FULL}), peer)]
        bucket = Bucket(self.rate, CHAT_BURST, now_s)
        member = Member(peer, name, now_s, bucket, room=room, said=said, visit=secrets.token_hex(8))
        self.members[peer] = self.names[name.casefold()] = member
        sent = [*gone, (self._welcome(member), peer)]
        for who, text in self.earlier.get(room, ()):
            sent += self._event(member, {"kind": "earlier", "who": who, "text": text})
        self._changed()
        return [*sent, *self._tell(member, "came", wire.ONLINE)]

    def _namesake(self, name: str) -> Away | None:
        folded = name.casefold()
        everybody = (each for away in self.away.values() for each in away)
        return next((each for each in everybody if each.title.casefold() == folded), None)

    def _welcome(self, member: Member) -> bytes:
        online = len(self._titles(member.room))
        return wire.pack(
            {"is": "welcome", "name": member.name, "visit": member.visit, "online": online}
        )

    def _say(self, message: dict[str, Any], member: Member) -> Sent:
        identity, text = wire.number_in(message, "id"), wire.neutral(wire.text_in(message, "text"))
        if (
            identity > member.said + 1
            or not text
            or len(text.encode("utf-8", "replace")) > CHAT_TEXT_BYTES_MAX
        ):
            raise ChatError("not the next message")
        taken = (wire.pack({"is": "taken", "id": identity}), member.peer)
        if identity <= member.said:
            return [taken]
        if not member.bucket.take(self.steady()):
            self.statistics.slowed += 1
            wait_s = (1 - member.bucket.left) / member.bucket.rate
            return [
                (
                    wire.pack({"is": "wait", "id": identity, "seconds": round(wait_s, 3)}),
                    member.peer,
                )
            ]
        member.said = identity
        return [taken, *self._said(member, text)]

    def _acknowledged(self, member: Member, got: int) -> Sent:
        """Events up to `got` have arrived. Returns those that now come into the window."""
        while member.unread and member.unread[0][0] <= got:
            member.unread.popleft()
            member.resends = 0
        return self._fresh(member)

    def _fresh(self, member: Member) -> Sent:
        """Events in the window that have not been sent yet."""
        window = list(member.unread)[:CHAT_WINDOW]
        fresh = [(data, member.peer) for number, data in window if number > member.sent_number]
        if fresh:
            member.sent_number = window[-1][0]
            member.resend_s = self.steady() + RESEND_S
        return fresh

    def _who(self, titles: list[str]) -> dict[str, Any]:
        names, left_bytes = [], NAMES_BYTES_MAX
        for title in titles:
            left_bytes -= len(title.encode()) + 3
            if left_bytes < 0:
                break
            names.append(title)
        return {"is": "who", "online": len(titles), "names": names}

    # What everybody hears

    def _said(self, member: Member, text: str) -> Sent:
        self.statistics.messages += 1
        self.remember(member, text)
        self.on_said(member, text)
        return list(self._tell(member, "said", text))

    def remember(self, who: Member | Away, text: str) -> None:
        """Keep a message for who comes later."""
        self.earlier.setdefault(who.room, deque(maxlen=CHAT_HISTORY)).append((who.title, text))
        self.earlier.move_to_end(who.room)
        if len(self.earlier) > CHAT_ROOMS_MAX:
            self.earlier.popitem(last=False)

    def _went(self, member: Member, why: str) -> Sent:
        """Take a member out, and tell those who stay."""
        del self.members[member.peer]
        if member.name:
            del self.names[member.name.casefold()]
        if why != "left":
            self.statistics.gone += 1
            log.info("chat: %s %s", member.title, why)
        self._changed()
        return list(self._tell(member, "went", wire.OFFLINE))

    def _tell(self, who: Member | Away, kind: str, text: str) -> Iterator[tuple[bytes, Peer]]:
        """An event, to each member of the room in the member's own protocol."""
        for member in self._in(who.room):
            if member.name:
                yield from self._event(member, {"kind": kind, "who": who.title, "text": text})
                continue
            yield from self._reply(member, self._told(who, text))

    def _in(self, room: str) -> list[Member]:
        return [member for member in self.members.values() if member.room == room]

    def _titles(self, room: str) -> list[str]:
        """Who is in a room, here first and then at other servers."""
        others = {
            each.title: None for away in self.away.values() for each in away if each.room == room
        }
        here = [member.title for member in self._in(room)]
        return [*here, *(title for title in others if title not in here)]

    def _told(self, who: Member | Away, text: str) -> bytes:
        return wire.forwarded(str(who.peer[0]), who.peer[1], text)

    def _event(self, member: Member, event: dict[str, Any]) -> Sent:
        """One more event for a member of chat/1; sent at once if its window is open."""
        member.number += 1
        data = wire.pack({"is": "event", "visit": member.visit, "number": member.number, **event})
        member.unread.append((member.number, data))
        return self._fresh(member)

    def _changed(self) -> None:
        self.statistics.online = len(self.members)
        self.on_change()

    # What other servers say

    def said_elsewhere(self, who: Away, text: str) -> Sent:
        self.statistics.elsewhere += 1
        self.remember(who, text)
        return list(self._tell(who, "said", text))

    def here_elsewhere(self, server: str, away: list[Away]) -> Sent:
        """Who is online at another server now; nobody, when it has ended. Tells who came and went
        since it said so last.
        """
        before = self._others()
        if away:
            self.away[server] = away
        else:
            self.away.pop(server, None)
        after = self._others()
        sent: Sent = []
        for key in before.keys() - after.keys():
            sent += self._tell(before[key], "went", wire.OFFLINE)
        for key in after.keys() - before.keys():
            sent += self._tell(after[key], "came", wire.ONLINE)
        return sent

    def _others(self) -> dict[tuple[str, str], Away]:
        """Everybody at other servers; whose server was killed and who is at another one already is
        there once.
        """
        return {(each.room, each.title): each for away in self.away.values() for each in away}

    # What time brings

    def handle_timer(self) -> Sent:
        """Events to send again, and members that are gone."""
        now_s = self.steady()
        due: Sent = []
        for member in list(self.members.values()):
            silent_s = CHAT_SILENT_S if member.name else CHAT_TEXTBOOK_SILENT_S
            if now_s - member.heard_s >= silent_s:
                due += self._went(member, f"was silent for {silent_s:g} s")
            elif len(member.unread) > CHAT_UNREAD_MAX:
                due += self._went(member, f"did not take {CHAT_UNREAD_MAX} events")
            elif member.unread and now_s >= member.resend_s:
                due += [(data, member.peer) for _, data in list(member.unread)[:CHAT_WINDOW]]
                member.resends += 1
                member.resend_s = now_s + min(RESEND_MAX_S, RESEND_S * 2 ** min(member.resends, 8))
        return due

    def timers(self) -> list[float]:
        """When `turn` is due."""
        found = []
        for member in self.members.values():
            found.append(
                member.heard_s + (CHAT_SILENT_S if member.name else CHAT_TEXTBOOK_SILENT_S)
            )
            if member.unread:
                found.append(member.resend_s)
        return found

    def put_out(self, peer: Peer, why: str) -> Sent:
        member = self.members.get(peer)
        return self._went(member, why) if member else []

    def nobody_at(self, peer: Peer) -> Sent:
        """The network says that nobody listens there. Members of chat/1 are believed more than the
        network.
        """
        member = self.members.get(peer)
        return self._went(member, "is not there any more") if member and not member.name else []
