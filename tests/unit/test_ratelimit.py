"""The rate limit of a transfer: kept, and without a busy processor."""

from __future__ import annotations

from time import monotonic

import pytest

from fastnet.limits import PACE_S, PACE_STEP_S
from fastnet.ratelimit import Pace


@pytest.mark.parametrize("rate_bytes_s", [100_000, 50_000_000])
def test_a_limited_rate_is_kept_in_few_steps(rate_bytes_s: int) -> None:
    pace, seconds = Pace(rate_bytes_s), 4 * PACE_S
    left, steps, began = int(seconds * rate_bytes_s), 0, monotonic()
    while left:
        left -= pace.wait(left, lambda: None)
        steps += 1
    assert monotonic() - began >= seconds - PACE_S
    assert steps <= seconds / PACE_STEP_S + 1


def test_a_rate_of_some_bytes_a_second_comes_to_its_end() -> None:
    Pace(100.0).wait_all(10, lambda: None)
