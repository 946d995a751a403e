"""Token bucket, byte rate limiter, log throttle."""

from __future__ import annotations

from time import monotonic

import pytest

from fastnet.limits import MOVER_SLICE_S, PACE_S, PACE_STEP_S
from fastnet.ratelimit import ByteRateLimiter, LogThrottle, TokenBucket


class FakeClock:
    """Seconds that a test advances."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_full_bucket_allows_a_burst_and_no_more(clock: FakeClock) -> None:
    bucket = TokenBucket(2.0, 3.0, clock)
    assert [bucket.try_consume() for _ in range(4)] == [True, True, True, False]


def test_tokens_return_at_the_rate_and_up_to_the_burst(clock: FakeClock) -> None:
    bucket = TokenBucket(2.0, 3.0, clock, tokens=0.0)
    clock.now_s = 0.4
    assert not bucket.try_consume()
    clock.now_s = 0.5
    assert bucket.try_consume()
    clock.now_s = 1000.0
    assert [bucket.try_consume() for _ in range(4)] == [True, True, True, False]


def test_consume_up_to_returns_nothing_below_the_least(clock: FakeClock) -> None:
    bucket = TokenBucket(10.0, 100.0, clock, tokens=5.0)
    assert bucket.consume_up_to(50, least=6) == 0
    assert bucket.consume_up_to(50, least=5) == 5
    assert bucket.delay_s(20) == 2.0


@pytest.mark.parametrize("rate_bytes_s", [100_000, 50_000_000])
def test_a_limited_rate_is_kept_in_few_steps(rate_bytes_s: int) -> None:
    limiter, seconds = ByteRateLimiter(rate_bytes_s), 4 * PACE_S
    left, steps, began = int(seconds * rate_bytes_s), 0, monotonic()
    while left:
        left -= limiter.wait(left, lambda: None)
        steps += 1
    assert monotonic() - began >= seconds - PACE_S
    assert steps <= seconds / PACE_STEP_S + 1


def test_a_rate_of_some_bytes_a_second_comes_to_its_end() -> None:
    ByteRateLimiter(100.0).wait_all(10, lambda: None)


def test_without_a_rate_all_bytes_may_be_sent_immediately() -> None:
    assert ByteRateLimiter(None).wait(1 << 30, lambda: pytest.fail("waited")) == 1 << 30


def test_on_wait_is_called_between_short_sleeps_and_may_cancel(clock: FakeClock) -> None:
    limiter = ByteRateLimiter(1.0, clock, clock.advance)

    def cancel() -> None:
        assert clock.now_s <= MOVER_SLICE_S
        raise InterruptedError

    with pytest.raises(InterruptedError):
        limiter.wait(1000, cancel)


def test_the_first_occurrence_is_logged_and_later_ones_counted(clock: FakeClock) -> None:
    throttle = LogThrottle(60.0, clock)
    assert [throttle.count() for _ in range(4)] == [1, 0, 0, 0]
    clock.now_s = 60.0
    assert throttle.count() == 4
    assert throttle.count() == 0
