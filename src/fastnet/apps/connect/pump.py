"""What the stream pump and the datagram pump share: poller, inactivity timer, result."""

from __future__ import annotations

import select
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True)
class PumpResult:
    """What was transferred, and how it ended."""

    sent_bytes: int
    received_bytes: int
    ended_by: str
    """"both" ends, the "server" alone, or the "reader" of our output."""


class PollSet:
    """poll(2) whose registrations are updated by difference.

    Args:
        wake_fd: Another descriptor that ends a wait; see stdio.interruptible.
        busy_poll_us: Time to busy-poll before blocking.
    """

    def __init__(self, wake_fd: int = -1, busy_poll_us: int = 0) -> None:
        self._poll = select.poll()
        self._busy_poll_s = busy_poll_us / 1e6
        if wake_fd >= 0:
            self._poll.register(wake_fd, select.POLLIN)
        self._masks: dict[int, int] = {}

    def wait(self, masks: dict[int, int], timeout_s: float | None) -> dict[int, int]:
        """Wait for an event of these masks by descriptor; returns the events that occurred.

        timeout_s: None waits without a limit.
        """
        for fd in self._masks.keys() - masks.keys():
            self._poll.unregister(fd)
        for fd, mask in masks.items():
            if self._masks.get(fd) != mask:
                self._poll.register(fd, mask)
        self._masks = masks
        spin_s = self._busy_poll_s if timeout_s is None else min(self._busy_poll_s, timeout_s)
        until_s = monotonic() + spin_s
        while spin_s > 0 and monotonic() < until_s:
            if ready := self._poll.poll(0):
                return dict(ready)
        return dict(
            self._poll.poll(None if timeout_s is None else max(0.0, timeout_s - spin_s) * 1000)
        )


class InactivityTimer:
    """Time since the last byte while the server owes data. limit_s: None for no limit."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._since = monotonic()

    def reset(self) -> None:
        """A byte was transferred, or the server owes nothing."""
        self._since = monotonic()

    def remaining_s(self) -> float | None:
        return None if self.limit_s is None else self.limit_s - (monotonic() - self._since)

    def is_expired(self) -> bool:
        remaining_s = self.remaining_s()
        return remaining_s is not None and remaining_s <= 0
