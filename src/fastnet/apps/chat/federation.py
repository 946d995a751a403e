"""Federation: messages and presence exchanged with other chat servers through a backplane.

Facts. A message is distributed here immediately and reaches the other servers a moment later, so
two servers may display the messages of two members in different orders. A backplane may deliver an
entry twice, an old one late, or nothing for a while (backplane/contract.py).
Decision: each run of a server has a random id and numbers its entries; per topic and server only a
higher number is accepted, so each entry counts once. Presence is published as the whole member
list, on each change and every CHAT_PRESENCE_S: the newest list replaces the one before, and a
server that published none for CHAT_SERVER_TIMEOUT_S has no members. When two servers admit one name
in the same moment, both see which member joined first, and the later one is disconnected. The
entries missed in an outage arrive together and would overflow the members' event queues: entries
stay in the backplane while any member has half of CHAT_UNACKNOWLEDGED_MAX unacknowledged, for up to
CHAT_CATCH_UP_S.
Cost: an accepted message is lost for the other servers if this one is killed in the moment before
it is published.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import OrderedDict
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.backplane.contract import MESSAGE, PRESENCE, RECONNECTED, Backplane
from fastnet.apps.chat.members import Member, RemoteMember
from fastnet.apps.chat.server_protocol import ChatServerProtocol, Datagrams
from fastnet.apps.chat.wire import ChatError, get_number, get_text
from fastnet.endpoint import PORT_MAX
from fastnet.limits import (
    CHAT_BACKPLANE_BATCH,
    CHAT_CATCH_UP_S,
    CHAT_MEMBERS_MAX,
    CHAT_PRESENCE_S,
    CHAT_SERVER_TIMEOUT_S,
    CHAT_SERVERS_MAX,
    CHAT_TEXT_BYTES_MAX,
    CHAT_UNACKNOWLEDGED_MAX,
    TICK_S,
)
from fastnet.ratelimit import Clock

log = logging.getLogger("fastnet")

DISPLAY_NAME_CHARACTERS_MAX = 64
"""An IPv6 address with a zone, two dashes and a port."""


class Federation:
    """One server's connection to the others; sans-I/O except for its backplane.

    Args:
        protocol: The server's members; receives messages and presence of the other servers.
        backplane: Not started yet.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, protocol: ChatServerProtocol, backplane: Backplane, clock: Clock = time.monotonic
    ) -> None:
        self.protocol = protocol
        self.backplane = backplane
        self.clock = clock
        self.server_id = secrets.token_hex(8)
        self.last_presence_s: dict[str, float] = {}
        """Servers with members, and when their last member list arrived."""
        self._last_number = 0
        self._highest_numbers: OrderedDict[tuple[str, str], int] = OrderedDict()
        """The highest number of each topic and server."""
        self._is_presence_due = True
        self._requests_presence = True
        """Whether the next member list asks the other servers for theirs."""
        self._published_presence_s = 0.0
        self._has_backlog = False
        """Whether the backplane probably has more entries than one batch."""
        self._stalled_since_s: float | None = None
        """When entries began to wait for a member's acknowledgements; None: they do not."""
        protocol.on_message = self._publish_message
        protocol.on_presence_change = self._request_publication

    def start(self) -> None:
        """Connect, and add the kept messages to the history. Raises FastnetError."""
        for entry in self.backplane.start():
            try:
                if message := self._parse_new(MESSAGE, entry):
                    self.protocol.history.add(*parse_message(message))
            except ChatError:
                self.protocol.statistics.malformed += 1

    def close(self) -> None:
        """Publish that this server has no members, and disconnect."""
        self._publish_presence([])
        self.backplane.close()

    # To the other servers

    def _publish_message(self, member: Member, text: str) -> None:
        if self._is_presence_due:
            self._publish_members()  # a member's join is published before its first message
        address = [str(member.peer[0]), member.peer[1]]
        sender = {"room": member.room, "sender": member.display_name, "address": address}
        self._publish(MESSAGE, {**sender, "text": text})

    def _request_publication(self) -> None:
        self._is_presence_due = True

    def _publish_members(self) -> None:
        self._publish_presence(
            [
                [each.display_name, str(each.peer[0]), each.peer[1], each.room, each.joined_us]
                for each in self.protocol.members.values()
            ]
        )

    def _publish_presence(self, members: list[list[Any]]) -> None:
        self._publish(PRESENCE, {"members": members, "request": self._requests_presence})
        self._is_presence_due = self._requests_presence = False
        self._published_presence_s = self.clock()

    def _publish(self, topic: str, entry: dict[str, Any]) -> None:
        self._last_number += 1
        numbered = {"server": self.server_id, "number": self._last_number, **entry}
        data = json.dumps(numbered, separators=(",", ":"))
        dropped = self.backplane.publish(topic, self._last_number, data)
        if dropped and not self.protocol.statistics.unpublished:
            log.warning(
                "chat: the backplane has been unreachable for too long: the oldest messages are "
                "dropped, and other servers will not receive them"
            )
        self.protocol.statistics.unpublished += dropped

    # From the other servers

    def handle_timer(self) -> Datagrams:
        """Process arrived entries and server timeouts; publish presence if it is due.

        Returns:
            The datagrams to send.
        """
        now_s = self.clock()
        sent = self._receive_entries(now_s)
        for server, last_s in list(self.last_presence_s.items()):
            if now_s - last_s >= CHAT_SERVER_TIMEOUT_S:
                del self.last_presence_s[server]
                log.info("chat: no presence of server %s for %g s", server, CHAT_SERVER_TIMEOUT_S)
                sent += self.protocol.replace_remote_members(server, [])
        is_periodic_due = now_s - self._published_presence_s >= CHAT_PRESENCE_S
        if self._is_presence_due or self._requests_presence or is_periodic_due:
            self._publish_members()
        return sent

    def timers(self) -> list[float]:
        """Monotonic times at which `handle_timer` is due."""
        due = [last_s + CHAT_SERVER_TIMEOUT_S for last_s in self.last_presence_s.values()]
        if self._stalled_since_s is not None:
            due.append(self.clock() + TICK_S)
        elif self._has_backlog:
            due.append(self.clock())
        return [self._published_presence_s + CHAT_PRESENCE_S, *due]

    @property
    def fd(self) -> int:
        """Readable when `handle_timer` has entries to process; -1 while it would take none."""
        return self.backplane.fd if self._stalled_since_s is None else -1

    def _receive_entries(self, now_s: float) -> Datagrams:
        sent: Datagrams = []
        if not self._may_receive(now_s):
            return sent
        entries = self.backplane.take(CHAT_BACKPLANE_BATCH)
        self._has_backlog = len(entries) == CHAT_BACKPLANE_BATCH
        for topic, entry in entries:
            try:
                sent += self._receive_entry(topic, entry)
            except ChatError:
                self.protocol.statistics.malformed += 1
        return sent

    def _may_receive(self, now_s: float) -> bool:
        """Whether all event queues have room, or one was too full for CHAT_CATCH_UP_S."""
        room = CHAT_UNACKNOWLEDGED_MAX // 2
        if all(len(member.events) < room for member in self.protocol.members.values()):
            self._stalled_since_s = None
            return True
        if self._stalled_since_s is None:
            self._stalled_since_s = now_s
        return now_s - self._stalled_since_s >= CHAT_CATCH_UP_S

    def _parse_new(self, topic: str, entry: str) -> dict[str, Any]:
        """An entry as an object; empty if it is this server's or not new. Raises ChatError."""
        message = wire.parse_object(entry)
        key = topic, get_text(message, "server")
        number = get_number(message, "number")
        if key[1] == self.server_id or number <= self._highest_numbers.get(key, 0):
            return {}
        self._highest_numbers[key] = number
        self._highest_numbers.move_to_end(key)
        if len(self._highest_numbers) > 2 * CHAT_SERVERS_MAX:
            self._highest_numbers.popitem(last=False)
        return message

    def _receive_entry(self, topic: str, entry: str) -> Datagrams:
        """Raises ChatError."""
        if topic == RECONNECTED:
            self._requests_presence = True
            return []
        message = self._parse_new(topic, entry)
        if not message:
            return []
        if topic == MESSAGE:
            return self.protocol.receive_remote_message(*parse_message(message))
        return self._receive_presence(message)

    def _receive_presence(self, message: dict[str, Any]) -> Datagrams:
        """Raises ChatError."""
        server, listed = message["server"], message.get("members")
        if not isinstance(listed, list) or len(listed) > CHAT_MEMBERS_MAX:
            raise ChatError("no list of members")
        members = [parse_member(each) for each in listed]
        self._is_presence_due |= message.get("request") is True
        if server not in self.last_presence_s and len(self.last_presence_s) >= CHAT_SERVERS_MAX:
            members = []
        if members:
            self.last_presence_s[server] = self.clock()
        else:
            self.last_presence_s.pop(server, None)
        conflicts = self._resolve_name_conflicts(server, members)
        return [*conflicts, *self.protocol.replace_remote_members(server, members)]

    def _resolve_name_conflicts(self, server: str, members: list[RemoteMember]) -> Datagrams:
        """Disconnect local members whose name a remote member had before them."""
        sent: Datagrams = []
        for each in members:
            local = self.protocol.names.get(each.display_name.casefold())
            if local is None:
                continue
            if (each.joined_us, server) < (local.joined_us, self.server_id):
                reason = "name conflict: a member of another server joined first"
                sent += self.protocol.disconnect(local.peer, reason)
        return sent


def parse_message(message: dict[str, Any]) -> tuple[RemoteMember, str]:
    """Sender and text of a MESSAGE entry. Raises ChatError."""
    address = message.get("address")
    if not isinstance(address, list) or len(address) != 2:
        raise ChatError("no address")
    text = wire.sanitize(get_text(message, "text"))
    if not 0 < len(text.encode("utf-8", "replace")) <= CHAT_TEXT_BYTES_MAX:
        raise ChatError("no message")
    return parse_member([message.get("sender"), *address, message.get("room"), 0]), text


def parse_member(fields: object) -> RemoteMember:
    """A member of a PRESENCE entry: name, host, port, room, time of joining. Raises ChatError."""
    match fields:
        case [str(name), str(host), int(port), str(room), int(joined_us)]:
            pass
        case _:
            raise ChatError("no member")
    if not 0 < len(name) <= DISPLAY_NAME_CHARACTERS_MAX or not 0 <= port <= PORT_MAX:
        raise ChatError("no member")
    if len(host) > DISPLAY_NAME_CHARACTERS_MAX:
        raise ChatError("no member")
    return RemoteMember(
        wire.sanitize(name),
        (wire.sanitize(host), port),
        wire.parse_name(room) if room else "",
        joined_us,
    )
