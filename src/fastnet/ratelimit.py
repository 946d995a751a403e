"""`--limit-rate`: a bucket that fills at the given rate and holds PACE_S of it.

Decision: it is taken from when PACE_STEP_S of it is there, not as soon as a byte is: a sleep of
some microseconds for every few thousand bytes keeps a processor busy (100 MB at 50 MB/s: 2.0 CPU
seconds; so, 0.2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from time import monotonic

from fastnet.limits import MOVER_SLICE_S, PACE_S, PACE_STEP_S


class Pace:
    """How many bytes may go now, over all lanes. rate_bytes_s: bytes a second, None for as many as
    the other side takes.
    """

    def __init__(self, rate_bytes_s: float | None = None) -> None:
        self._rate = rate_bytes_s
        self._free = 0.0
        self._since = monotonic()
        self._lock = threading.Lock()

    def wait(self, count: int, look: Callable[[], None]) -> int:
        """Return how many of `count` bytes may go, at least one; sleeps until then, and looks
        around meanwhile.
        """
        if self._rate is None:
            return count
        least = max(1, min(count, self._rate * PACE_STEP_S))
        while True:
            with self._lock:
                now = monotonic()
                self._free = min(self._rate * PACE_S, self._free + (now - self._since) * self._rate)
                self._since = now
                if self._free >= least:
                    step = max(1, min(count, int(self._free)))
                    self._free -= step
                    return step
            time.sleep(min(MOVER_SLICE_S, (least - self._free) / self._rate))
            look()

    def wait_all(self, count: int, look: Callable[[], None]) -> None:
        """Return when all of `count` bytes may go."""
        while count:
            count -= self.wait(count, look)
