"""The native calendar, done by hand, agrees with gmtime(3), which the pure twin asks."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastnet.service import daytime_py

SECONDS_MAX = 2**35
DAY = 86_400


@pytest.mark.native
@settings(max_examples=1000, deadline=None, database=None)
@given(seconds=st.integers(0, SECONDS_MAX))
@example(0)
@example(SECONDS_MAX)
@example(951_782_400)  # 29 February 2000
@example(4_107_542_400)  # 1 March 2100, which has no 29 February
def test_both_calendars_write_the_same_line(seconds) -> None:
    """S1 of daytime, for the next thousand years."""
    from fastnet.service import daytime_c

    assert daytime_c.line_for(seconds) == daytime_py.line(seconds)


@pytest.mark.native
def test_both_calendars_agree_on_every_day_of_four_centuries() -> None:
    """One whole era of the calendar, with the first and last second of each day."""
    from fastnet.service import daytime_c

    for day in range(146_097):
        assert daytime_c.line_for(day * DAY) == daytime_py.line(day * DAY)
    assert daytime_c.line_for(DAY - 1) == daytime_py.line(DAY - 1)
