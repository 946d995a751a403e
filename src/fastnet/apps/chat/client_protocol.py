"""The client's side of chat/1: datagrams out, datagrams in, and what to show. No socket, no clock.

One message is on its way at a time; it is sent again until the server has taken it, under the same
number, so it is said once. Events come in order and once each, whatever the network does with them.
A server that was restarted, or a cookie that is too old, answers with a challenge; the client joins
again and goes on where it was.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.wire import ChatError
from fastnet.limits import CHAT_TEXT_BYTES_MAX, CHAT_UNREAD_MAX


@dataclass(frozen=True)
class Event:
    """Something to show. kind: joined, earlier, said, came, went, who or refused. who: a name or an
    address.
    """

    kind: str
    who: str = ""
    text: str = ""
    online: int = 0
    names: tuple[str, ...] = ()


class Talking:
    """One member. room: "" is where textbook programs are. Raises ChatError for a name that nobody
    can have.
    """

    def __init__(self, name: str, room: str = "") -> None:
        self.name = wire.name_of(name)
        self.room = wire.name_of(room) if room else ""
        self.cookie = ""
        self.visit = ""
        self.got = 0
        self.said = 0
        self.waiting: deque[str] = deque()
        """Messages that the server has not taken."""
        self.wait_s = 0.0
        """Rest that the server asks for before the message is sent again."""
        self.asks_who = False
        self.is_leaving = False
        self.has_left = False
        self.is_due = True
        """Whether something should be sent at once."""
        self.saw_repetition = False
        """An event came again, so its acknowledgement may have been lost."""
        self._visit_before = ""
        self._early: dict[int, Event] = {}

    @property
    def is_in(self) -> bool:
        return bool(self.visit)

    @property
    def is_idle(self) -> bool:
        """Whether the server owes no answer."""
        return self.is_in and not (self.waiting or self.asks_who or self.is_leaving)

    def say(self, text: str) -> None:
        """Queue a message; one that is too long for one becomes several."""
        for piece in pieces(wire.neutral(text)):
            self.waiting.append(piece)
        self.is_due = True

    def next(self) -> bytes:
        """What to send now."""
        self.is_due = False
        message: dict[str, Any] = {"do": "here", "cookie": self.cookie, "got": self.got}
        if self.is_leaving:
            message = {"do": "leave", "cookie": self.cookie}
        elif not self.is_in:
            message = {
                "do": "join",
                "name": self.name,
                "room": self.room,
                "cookie": self.cookie,
                "said": self.said,
            }
        elif self.asks_who:
            message = {"do": "who", "cookie": self.cookie}
        elif self.waiting and not self.wait_s:
            message = {
                "do": "say",
                "cookie": self.cookie,
                "id": self.said + 1,
                "text": self.waiting[0],
            }
        return wire.pack(message)

    def acknowledgement(self) -> bytes:
        """That the events up to `got` have arrived."""
        return wire.pack({"do": "here", "cookie": self.cookie, "got": self.got})

    def receive_datagram(self, datagram: bytes) -> list[Event] | None:
        """Take a datagram. Returns what to show, in order; None if it means nothing."""
        if not datagram.startswith(wire.MARK):
            return None
        try:
            message = wire.unpack(datagram)
            reader = READERS.get(wire.text_in(message, "is"))
            return reader(self, message) if reader else None
        except ChatError:
            return None

    def _challenged(self, message: dict[str, Any]) -> list[Event]:
        cookie = wire.text_in(message, "cookie")
        self.is_due = cookie != self.cookie
        self.cookie = cookie
        self._visit_before, self.visit = self.visit or self._visit_before, ""
        return []

    def _refused(self, message: dict[str, Any]) -> list[Event]:
        return (
            []
            if self.is_in
            else [Event("refused", self.name, wire.neutral(wire.text_in(message, "why")))]
        )

    def _welcomed(self, message: dict[str, Any]) -> list[Event]:
        visit, online = wire.text_in(message, "visit"), wire.number_in(message, "online")
        if self.is_in:
            return []
        is_known = visit == self._visit_before
        self.visit, self._visit_before = visit, ""
        self.is_due = bool(self.waiting or self.asks_who)
        if is_known:
            return []
        self.got = 0
        self._early.clear()
        return [Event("joined", wire.text_in(message, "name"), online=online)]

    def _taken(self, message: dict[str, Any]) -> list[Event]:
        if self.waiting and wire.number_in(message, "id") == self.said + 1:
            self.said += 1
            self.waiting.popleft()
            self.is_due = bool(self.waiting)
        return []

    def _slowed(self, message: dict[str, Any]) -> list[Event]:
        seconds = message.get("seconds")
        if isinstance(seconds, int | float) and wire.number_in(message, "id") == self.said + 1:
            self.wait_s = min(60.0, max(0.01, float(seconds)))
        return []

    def _happened(self, message: dict[str, Any]) -> list[Event]:
        number = wire.number_in(message, "number")
        if wire.text_in(message, "visit") != self.visit or number > self.got + 2 * CHAT_UNREAD_MAX:
            return []
        if number <= self.got:
            self.saw_repetition = True
            return []
        kind, who, text = (
            wire.neutral(wire.text_in(message, name)) for name in ("kind", "who", "text")
        )
        self._early[number] = Event(kind, who, text)
        ready = []
        while self.got + 1 in self._early:
            self.got += 1
            ready.append(self._early.pop(self.got))
        return [event for event in ready if event.kind in ("earlier", "said", "came", "went")]

    def _answered_who(self, message: dict[str, Any]) -> list[Event]:
        names = message.get("names")
        if (
            not self.asks_who
            or not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
        ):
            return []
        self.asks_who, self.is_due = False, bool(self.waiting)
        return [
            Event(
                "who",
                online=wire.number_in(message, "online"),
                names=tuple(map(wire.neutral, names)),
            )
        ]

    def _left(self, message: dict[str, Any]) -> list[Event]:
        self.has_left = self.is_leaving
        return []


READERS = {
    "challenge": Talking._challenged,
    "refused": Talking._refused,
    "welcome": Talking._welcomed,
    "taken": Talking._taken,
    "wait": Talking._slowed,
    "event": Talking._happened,
    "who": Talking._answered_who,
    "here": lambda self, message: [],
    "bye": Talking._left,
}


def pieces(text: str) -> list[str]:
    """A text in messages that are short enough, cut between characters."""
    found = [""]
    size = 0
    for character in text:
        width = len(character.encode("utf-8", "replace"))
        if size + width > CHAT_TEXT_BYTES_MAX:
            found.append("")
            size = 0
        found[-1] += character
        size += width
    return [piece for piece in found if piece]
