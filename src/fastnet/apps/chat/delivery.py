"""Reliable, ordered delivery of events to one member of chat/1: window and retransmission.

Facts. UDP loses, duplicates and reorders datagrams. The client acknowledges the highest number up
to which it has all events (cumulative acknowledgement, as TCP's).
Decision: up to CHAT_WINDOW unacknowledged events are in flight. All of these are retransmitted when
the timer expires, and the timeout doubles until the next acknowledgement (RFC 6298 section 5.5).
Not taken: selective acknowledgement. Events are small, and a member rarely has two in flight.
Cost: one lost event retransmits up to CHAT_WINDOW of them.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

from fastnet.apps.chat import wire
from fastnet.limits import CHAT_WINDOW

RETRANSMIT_S = 0.2
RETRANSMIT_MAX_S = 2.0


class EventQueue:
    """Events of one session that the member has not acknowledged.

    Args:
        session: Session id; part of every event, so that those of an older session do not count.
    """

    def __init__(self, session: str) -> None:
        self.session = session
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._last_number = 0
        self._sent_number = 0
        """The highest number that was sent."""
        self._retransmit_at_s = 0.0
        self._timeout_s = RETRANSMIT_S

    def __len__(self) -> int:
        return len(self._unacknowledged)

    @property
    def due_s(self) -> float:
        """When the retransmission timer expires; infinite when no event is in flight."""
        return self._retransmit_at_s if self._unacknowledged else float("inf")

    def push(self, event: dict[str, Any], now_s: float) -> list[bytes]:
        """Append an event. Returns the datagrams that the window permits to send now."""
        self._last_number += 1
        numbered = {"type": "event", "session": self.session, "number": self._last_number}
        self._unacknowledged.append((self._last_number, wire.pack(numbered | event)))
        return self._unsent(now_s)

    def acknowledge(self, number: int, now_s: float) -> list[bytes]:
        """Remove events up to `number`. Returns the datagrams that enter the window."""
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            self._unacknowledged.popleft()
            self._timeout_s = RETRANSMIT_S
        return self._unsent(now_s)

    def retransmit(self, now_s: float) -> list[bytes]:
        """All events in the window if the timer has expired; the timeout doubles."""
        if now_s < self.due_s:
            return []
        self._timeout_s = min(RETRANSMIT_MAX_S, 2 * self._timeout_s)
        self._retransmit_at_s = now_s + self._timeout_s
        return [data for _, data in islice(self._unacknowledged, CHAT_WINDOW)]

    def _unsent(self, now_s: float) -> list[bytes]:
        window = islice(self._unacknowledged, CHAT_WINDOW)
        unsent = [each for each in window if each[0] > self._sent_number]
        if unsent:
            self._sent_number = unsent[-1][0]
            self._retransmit_at_s = now_s + RETRANSMIT_S
        return [data for _, data in unsent]
