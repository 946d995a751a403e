"""States of an exec record: every edge of the table in record.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastnet.apps.exec import wire
from fastnet.apps.exec.nonces import RequestId
from fastnet.apps.exec.record import CLIENT_SILENT_S, REPLAY_WINDOW_S, ExecRecord, RecordState
from fastnet.apps.exec.runner import ExecutionOutcome
from fastnet.apps.exec.wire import Refusal, Status
from fastnet.limits import EXEC_RESULT_S
from tests.support.exec import CLIENT

WRITTEN = b"output"


class FakeExecution:
    """A command without a process."""

    def __init__(self) -> None:
        self.command = SimpleNamespace(output_bytes_max=100)
        self.outcome: ExecutionOutcome | None = None

    def end(self) -> None:
        self.outcome = ExecutionOutcome(Status(wire.EXITED, 0, len(WRITTEN)), WRITTEN)

    def drop_output(self) -> None:
        assert self.outcome is not None
        self.outcome = ExecutionOutcome(self.outcome.status)


@pytest.fixture
def record() -> ExecRecord:
    return ExecRecord(RequestId("alice", bytes(16)), ["it"], CLIENT, 1, 0.0)


@pytest.fixture
def execution(record: ExecRecord) -> Any:
    made: Any = FakeExecution()
    record.run(made)
    return made


def test_a_denied_request_is_refused_and_kept_for_the_replay_window(record: ExecRecord) -> None:
    record.refuse(Refusal("busy"), 10.0)
    assert (record.state, record.remove_s) == (RecordState.REFUSED, 10.0 + REPLAY_WINDOW_S)
    assert record.reply().kind == wire.REFUSED
    assert not record.finish(11.0)
    record.fetched(11.0)
    assert record.state is RecordState.REFUSED
    assert not record.is_pending(0.0)


def test_a_running_command_stays_until_it_has_ended(record: ExecRecord, execution: Any) -> None:
    assert not record.finish(10.0)
    record.fetched(10.0)
    assert (record.state, record.remove_s) == (RecordState.RUNNING, float("inf"))
    assert wire.unpack_status(record.reply().body).state == wire.RUNNING
    assert (record.kept_bytes, record.part_replies([0])) == (100, [])
    assert record.is_pending(1e9)


def test_an_ended_command_is_finished_once_and_kept_to_be_fetched(
    record: ExecRecord, execution: Any
) -> None:
    execution.end()
    assert [record.finish(10.0), record.finish(11.0)] == [True, False]
    assert (record.state, record.remove_s) == (RecordState.FINISHED, 10.0 + EXEC_RESULT_S)
    assert [reply.body[4:] for reply in record.part_replies([0, 0, 1])] == [WRITTEN]
    assert record.is_pending(CLIENT_SILENT_S / 2)
    assert not record.is_pending(CLIENT_SILENT_S)


def test_a_fetched_result_keeps_its_status_and_drops_its_output(
    record: ExecRecord, execution: Any
) -> None:
    execution.end()
    record.finish(10.0)
    record.fetched(11.0)
    assert (record.state, record.remove_s) == (RecordState.FETCHED, 11.0 + REPLAY_WINDOW_S)
    assert (record.kept_bytes, record.reply().kind) == (0, wire.STATUS)
    assert not record.is_pending(0.0)
    record.fetched(12.0)
    assert record.remove_s == 11.0 + REPLAY_WINDOW_S
