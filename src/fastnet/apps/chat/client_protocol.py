"""Sans-I/O client of chat/1: requests out, datagrams in, events to display.

One message is in flight at a time; it is retransmitted under the same number until the server has
accepted it, so it is distributed once. Events are returned in order and once each, whatever the
network loses, duplicates or reorders. A restarted server, or one for which the cookie is too old,
answers with a challenge; the client joins again and continues with the same numbers.

States of a membership:

    event                   from      to         next request
    -                       -         JOINING    join
    challenge               JOINING   JOINING    join, with the new cookie
    welcome                 JOINING   JOINED     who, message or ack
    refused                 JOINING   JOINING    the event "refused"; the caller ends the client
    challenge               JOINED    JOINING    join, with the new cookie
    leave()                 JOINED    LEAVING    leave
    challenge               LEAVING   LEAVING    leave, with the new cookie
    bye                     LEAVING   LEFT       none

Every other pair of a state and a datagram changes nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.wire import ChatError
from fastnet.limits import CHAT_TEXT_BYTES_MAX, CHAT_UNACKNOWLEDGED_MAX

WAIT_MIN_S, WAIT_MAX_S = 0.01, 60.0
"""Bounds of the delay that a server may ask for."""


class MembershipState(enum.Enum):
    """State of the client's membership; the table of transitions is in the module's docstring."""

    JOINING = enum.auto()
    JOINED = enum.auto()
    LEAVING = enum.auto()
    LEFT = enum.auto()


@dataclass(frozen=True)
class ChatEvent:
    """An event to display."""

    kind: str
    """welcome, history, message, joined, left, who or refused."""

    sender: str = ""
    """Name or address of the member that it is about."""

    text: str = ""
    """Text of a message; reason of a refusal."""

    online: int = 0
    """Members of the room; of welcome and who."""

    names: tuple[str, ...] = ()
    """Names of members of the room; of who."""


class ChatClientProtocol:
    """One membership.

    Args:
        name: The member's name.
        room: Name of a room; "" is the textbook programs'.
    Raises:
        ChatError: the name or room is not valid.
    """

    def __init__(self, name: str, room: str = "") -> None:
        self.name = wire.parse_name(name)
        self.room = wire.parse_name(room) if room else ""
        self.state = MembershipState.JOINING
        self.cookie = ""
        self.session = ""
        self.last_event = 0
        """All events up to this number have arrived."""
        self.last_accepted = 0
        """Id of the last message that the server has accepted."""
        self.unaccepted: deque[str] = deque()
        """Messages that the server has not accepted, oldest first."""
        self.wait_s = 0.0
        """Delay before the message is sent again that the server asked for; 0: none."""
        self.is_who_pending = False
        """Whether the answer to `who` is outstanding."""
        self.is_request_due = True
        """Whether a request should be sent immediately."""
        self.saw_duplicate = False
        """Whether an event arrived twice: its acknowledgement may have been lost."""
        self._earlier_session = ""
        """The session before a challenge; a welcome with the same id resumes it."""
        self._early: dict[int, ChatEvent] = {}
        """Events that arrived before the ones between last_event and them."""

    @property
    def is_joined(self) -> bool:
        """Whether the server has confirmed the membership and it has not ended."""
        return self.state is MembershipState.JOINED

    @property
    def is_idle(self) -> bool:
        """Whether no answer of the server is outstanding."""
        return self.is_joined and not (self.unaccepted or self.is_who_pending)

    def queue_message(self, text: str) -> None:
        """Queue a text as one message, or as several if it is too long for one."""
        self.unaccepted.extend(split_text(wire.sanitize(text)))
        self.is_request_due = True

    def request_who(self) -> None:
        """Request the names of the members of the room."""
        self.is_who_pending = self.is_request_due = True

    def leave(self) -> None:
        """End the membership; only a joined client can."""
        assert self.state is MembershipState.JOINED
        self.state = MembershipState.LEAVING
        self.is_request_due = True

    def next_request(self) -> bytes:
        """The request to send now, also as a retransmission; an `ack` if none is outstanding."""
        self.is_request_due = False
        if self.state in (MembershipState.LEAVING, MembershipState.LEFT):
            return wire.pack({"type": "leave", "cookie": self.cookie})
        if self.state is MembershipState.JOINING:
            return self._join_request()
        if self.is_who_pending:
            return wire.pack({"type": "who", "cookie": self.cookie})
        if self.unaccepted and not self.wait_s:
            message = {"type": "message", "cookie": self.cookie, "id": self.last_accepted + 1}
            return wire.pack({**message, "text": self.unaccepted[0]})
        return self.acknowledgement()

    def acknowledgement(self) -> bytes:
        """Acknowledges the events that have arrived; also the keepalive."""
        return wire.pack({"type": "ack", "cookie": self.cookie, "number": self.last_event})

    def receive_datagram(self, datagram: bytes) -> list[ChatEvent] | None:
        """Process a datagram of the server.

        Returns:
            The events to display, in order; None if it is not a datagram of chat/1.
        """
        if not datagram.startswith(wire.PREFIX):
            return None
        try:
            message = wire.unpack(datagram)
            handler = HANDLERS.get(wire.get_text(message, "type"))
            return handler(self, message) if handler else None
        except ChatError:
            return None

    def _join_request(self) -> bytes:
        member = {"name": self.name, "room": self.room}
        request = {"type": "join", **member, "cookie": self.cookie, "last_id": self.last_accepted}
        return wire.pack(request)

    def _handle_challenge(self, message: dict[str, Any]) -> list[ChatEvent]:
        cookie = wire.get_text(message, "cookie")
        self.is_request_due = cookie != self.cookie
        self.cookie = cookie
        self._earlier_session, self.session = self.session or self._earlier_session, ""
        if self.state is MembershipState.JOINED:
            self.state = MembershipState.JOINING
        return []

    def _handle_refused(self, message: dict[str, Any]) -> list[ChatEvent]:
        if self.state is not MembershipState.JOINING:
            return []
        reason = wire.sanitize(wire.get_text(message, "reason"))
        return [ChatEvent("refused", self.name, reason)]

    def _handle_welcome(self, message: dict[str, Any]) -> list[ChatEvent]:
        session, online = wire.get_text(message, "session"), wire.get_number(message, "online")
        if self.state is not MembershipState.JOINING or not session:
            return []
        self.state = MembershipState.JOINED
        is_resumed = session == self._earlier_session
        self.session, self._earlier_session = session, ""
        self.is_request_due = bool(self.unaccepted or self.is_who_pending)
        if is_resumed:
            return []
        self.last_event = 0
        self._early.clear()
        return [ChatEvent("welcome", wire.get_text(message, "name"), online=online)]

    def _handle_accepted(self, message: dict[str, Any]) -> list[ChatEvent]:
        if self.unaccepted and wire.get_number(message, "id") == self.last_accepted + 1:
            self.last_accepted += 1
            self.unaccepted.popleft()
            self.is_request_due = bool(self.unaccepted)
        return []

    def _handle_wait(self, message: dict[str, Any]) -> list[ChatEvent]:
        seconds = message.get("seconds")
        is_current = wire.get_number(message, "id") == self.last_accepted + 1
        if is_current and isinstance(seconds, int | float):
            self.wait_s = min(WAIT_MAX_S, max(WAIT_MIN_S, float(seconds)))
        return []

    def _handle_event(self, message: dict[str, Any]) -> list[ChatEvent]:
        number = wire.get_number(message, "number")
        is_ours = wire.get_text(message, "session") == self.session
        if not is_ours or number > self.last_event + 2 * CHAT_UNACKNOWLEDGED_MAX:
            return []
        if number <= self.last_event:
            self.saw_duplicate = True
            return []
        kind, sender, text = (
            wire.sanitize(wire.get_text(message, field)) for field in ("kind", "sender", "text")
        )
        self._early[number] = ChatEvent(kind, sender, text)
        in_order = []
        while self.last_event + 1 in self._early:
            self.last_event += 1
            in_order.append(self._early.pop(self.last_event))
        return [each for each in in_order if each.kind in ("history", "message", "joined", "left")]

    def _handle_who(self, message: dict[str, Any]) -> list[ChatEvent]:
        names = message.get("names")
        if not self.is_who_pending or not isinstance(names, list):
            return []
        if not all(isinstance(name, str) for name in names):
            return []
        self.is_who_pending, self.is_request_due = False, bool(self.unaccepted)
        online = wire.get_number(message, "online")
        return [ChatEvent("who", online=online, names=tuple(map(wire.sanitize, names)))]

    def _handle_bye(self, message: dict[str, Any]) -> list[ChatEvent]:
        if self.state is MembershipState.LEAVING:
            self.state = MembershipState.LEFT
        return []

    def _handle_ack(self, message: dict[str, Any]) -> list[ChatEvent]:
        return []


Handler = Callable[[ChatClientProtocol, dict[str, Any]], list[ChatEvent]]

HANDLERS: dict[str, Handler] = {
    "challenge": ChatClientProtocol._handle_challenge,
    "refused": ChatClientProtocol._handle_refused,
    "welcome": ChatClientProtocol._handle_welcome,
    "accepted": ChatClientProtocol._handle_accepted,
    "wait": ChatClientProtocol._handle_wait,
    "event": ChatClientProtocol._handle_event,
    "who": ChatClientProtocol._handle_who,
    "ack": ChatClientProtocol._handle_ack,
    "bye": ChatClientProtocol._handle_bye,
}


def split_text(text: str) -> list[str]:
    """A text in parts of at most CHAT_TEXT_BYTES_MAX, cut between characters."""
    parts = [""]
    size = 0
    for character in text:
        width = len(character.encode("utf-8", "replace"))
        if size + width > CHAT_TEXT_BYTES_MAX:
            parts.append("")
            size = 0
        parts[-1] += character
        size += width
    return [part for part in parts if part]
