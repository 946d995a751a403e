"""Load plans: invalid ones are refused early, messages are divided evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.limits import READ_BYTES
from fastnet.load.contract import (
    CONNECTIONS_MAX,
    IN_FLIGHT_MAX,
    MESSAGE_BYTES_MAX,
    PATTERN_PERIOD,
    UNLIMITED,
    LoadPlan,
)
from fastnet.load.pattern import build_pattern, first_offset
from fastnet.load.run import run

TCP = Endpoint("tcp", "127.0.0.1", 9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"connections": CONNECTIONS_MAX + 1},
        {"message_bytes": 0},
        {"message_bytes": MESSAGE_BYTES_MAX + 1},
        {"in_flight": 0},
        {"in_flight": IN_FLIGHT_MAX + 1},
        {"messages": 0},
        {"messages": None},
        {"seconds": 0.0},
        {"warmup_s": -1.0, "messages": None, "seconds": 1.0},
        {"warmup_s": 1.0},
        {"stall_s": 0.0},
    ],
    ids=str,
)
def test_a_plan_without_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        LoadPlan(**{"endpoint": TCP, "messages": 1} | wrong)  # type: ignore[arg-type]
    assert refused.value.hint


@pytest.mark.parametrize(("discipline", "backend"), [("closed", "fortran"), ("ajar", "native")])
def test_an_unknown_load_is_refused(discipline: str, backend: str) -> None:
    with pytest.raises(ConfigError, match="closed"):
        run(LoadPlan(TCP, messages=1), discipline, backend)


@given(st.integers(1, 500), st.integers(1, 10_000))
def test_shares_add_up_and_differ_by_at_most_one(connections: int, messages: int) -> None:
    plan = LoadPlan(TCP, connections=connections, messages=messages)
    shares = [plan.share(number) for number in range(connections)]
    assert sum(shares) == messages
    assert max(shares) - min(shares) <= 1


def test_without_a_number_of_messages_shares_have_no_end() -> None:
    assert LoadPlan(TCP, seconds=1.0).share(0) == UNLIMITED


def test_no_two_connections_start_at_one_place() -> None:
    assert len({first_offset(number) for number in range(CONNECTIONS_MAX)}) == CONNECTIONS_MAX


def test_a_read_is_compared_in_one_piece_from_any_place() -> None:
    pattern = build_pattern()
    assert len(pattern) == PATTERN_PERIOD + READ_BYTES
    assert pattern[PATTERN_PERIOD:] == (pattern[:PATTERN_PERIOD] * 2)[:READ_BYTES]
