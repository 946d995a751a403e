"""Stop signal of a server: a word in shared memory and two eventfds.

Facts. A loop that holds no GIL sees no Python signal handler; a forked child shares no Python
object. Both share an anonymous MAP_SHARED mapping and every descriptor made before the fork.
Decision: one word (RUN, DRAIN, NOW) that blocking loops read, and two eventfds that waiting loops
poll. An eventfd is written once and never read, so it stays readable and wakes all of them. Two,
because a draining loop must stop polling the first and still notice the second.
"""

from __future__ import annotations

import mmap
import os

RUN, DRAIN, NOW = 0, 1, 2
"""Serve; accept no more and finish established connections; close them all. The order is that of
enum fn_stop in csrc/fn_context.h.
"""


class StopSignal:
    """The request to stop, shared by all loops of a server."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._word = memoryview(self.memory).cast("I")
        self.drain_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.now_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def state(self) -> int:
        return self._word[0]

    def drain(self) -> None:
        """Stop accepting; let established connections finish."""
        self._raise_to(DRAIN, self.drain_fd)

    def now(self) -> None:
        """Close every connection."""
        self.drain()
        self._raise_to(NOW, self.now_fd)

    def _raise_to(self, state: int, fd: int) -> None:
        self._word[0] = max(self._word[0], state)
        os.eventfd_write(fd, 1)

    def close(self) -> None:
        """Close the eventfds. Only after every loop has ended."""
        os.close(self.drain_fd)
        os.close(self.now_fd)
