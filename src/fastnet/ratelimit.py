"""Rate limits: a token bucket, a byte rate limiter for threads, a throttle for log lines.

Facts. A token bucket fills with `rate` tokens a second up to `burst`; an action that finds too few
tokens is refused or waits. So the long-term rate is bounded and a burst after a pause is not.
Decision: the clock is an argument, so tests need no waiting. A byte rate limiter sleeps until the
bucket holds PACE_STEP_S worth of bytes, not until it holds one: a sleep of some microseconds for
every few thousand bytes keeps a processor busy (100 MB at 50 MB/s: 2.0 CPU seconds; with steps,
0.2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fastnet.limits import MOVER_SLICE_S, PACE_S, PACE_STEP_S

Clock = Callable[[], float]
"""Returns monotonic seconds, as time.monotonic does."""


class TokenBucket:
    """Token bucket: `rate` tokens a second, bursts of up to `burst`. Not thread-safe.

    Args:
        rate: Tokens added per second.
        burst: Most tokens the bucket holds.
        clock: Returns monotonic seconds.
        tokens: Tokens at the start; None fills the bucket.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        clock: Clock = time.monotonic,
        tokens: float | None = None,
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst if tokens is None else tokens
        self._clock = clock
        self._filled_s = clock()

    def try_consume(self, count: float = 1.0) -> bool:
        """Consume `count` tokens if the bucket holds them. Returns whether it did."""
        self._refill()
        if self.tokens < count:
            return False
        self.tokens -= count
        return True

    def consume_up_to(self, count: float, least: float) -> float:
        """Consume up to `count` tokens. Returns how many; 0 when it holds fewer than `least`."""
        self._refill()
        if self.tokens < least:
            return 0.0
        consumed = min(count, self.tokens)
        self.tokens -= consumed
        return consumed

    def delay_s(self, count: float) -> float:
        """Seconds until the bucket holds `count` tokens, counted from the last call."""
        return max(0.0, (count - self.tokens) / self.rate)

    def _refill(self) -> None:
        now_s = self._clock()
        self.tokens = min(self.burst, self.tokens + (now_s - self._filled_s) * self.rate)
        self._filled_s = now_s


class ByteRateLimiter:
    """Limits the bytes that several threads send together; `--limit-rate`.

    Args:
        rate_bytes_s: Bytes per second; None sends without a limit.
        clock: Returns monotonic seconds.
        sleep: Called with the seconds to wait.
    """

    def __init__(
        self,
        rate_bytes_s: float | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket: TokenBucket | None = None
        if rate_bytes_s is not None:
            self._bucket = TokenBucket(rate_bytes_s, rate_bytes_s * PACE_S, clock, tokens=0.0)
        self._sleep = sleep
        self._lock = threading.Lock()

    def wait(self, count: int, on_wait: Callable[[], None]) -> int:
        """Wait until some of `count` bytes may be sent.

        Args:
            count: Bytes that the caller wants to send.
            on_wait: Called between sleeps of at most MOVER_SLICE_S; may raise to cancel.
        Returns:
            How many bytes may be sent now: at least one, at most `count`.
        """
        bucket = self._bucket
        if bucket is None:
            return count
        least = max(1, min(count, bucket.rate * PACE_STEP_S))
        while True:
            with self._lock:
                consumed = self._consume(bucket, count, least)
                delay_s = bucket.delay_s(least)
            if consumed:
                return consumed
            self._sleep(min(MOVER_SLICE_S, delay_s))
            on_wait()

    def wait_all(self, count: int, on_wait: Callable[[], None]) -> None:
        """Wait until all of `count` bytes may be sent. on_wait: as for `wait`."""
        while count:
            count -= self.wait(count, on_wait)

    @staticmethod
    def _consume(bucket: TokenBucket, count: int, least: float) -> int:
        """Whole bytes; the fraction stays in the bucket."""
        consumed = bucket.consume_up_to(count, least)
        whole = int(consumed)
        bucket.tokens += consumed - whole
        return whole


class LogThrottle:
    """Bounds the rate of one log line and counts the occurrences between two lines.

    Args:
        interval_s: Least seconds between two lines.
        clock: Returns monotonic seconds.
    """

    def __init__(self, interval_s: float, clock: Clock = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._next_s = float("-inf")
        self._count = 0

    def count(self) -> int:
        """Count one occurrence.

        Returns:
            0 when no line is due; else the occurrences since the last line, this one included.
        """
        self._count += 1
        now_s = self._clock()
        if now_s < self._next_s:
            return 0
        counted, self._count = self._count, 0
        self._next_s = now_s + self._interval_s
        return counted
