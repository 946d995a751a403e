"""Servers where io_uring is forbidden, by a seccomp(2) filter in a child process."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import UnsupportedError
from tests.support.cli_process import connect, echoes, finish, running
from tests.support.seccomp import blocks

pytestmark = pytest.mark.native

REASONS = {
    errno.EPERM: "io_uring is blocked here",
    errno.ENOSYS: "this kernel's io_uring is missing or too old",
}


@pytest.fixture(params=REASONS, ids=errno.errorcode.get)
def error(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_auto_serves_with_epoll_and_says_why_on_the_terminal_and_in_the_log(
    error: int, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    with running("echo", "--port", 0, "--log-file", log, preexec_fn=blocks(error)) as server:
        line = server.line(containing="listening on")
        assert "engine epoll, backend native" in line
        assert REASONS[error] in line
        with connect(Endpoint.parse(line.split()[2])) as sock:
            assert echoes(sock, b"served all the same")
        assert server.end()[0] == 0
    assert REASONS[error] in log.read_text()


def test_the_json_event_has_the_reason(error: int) -> None:
    with running("echo", "--port", 0, "--json", preexec_fn=blocks(error)) as server:
        event = server.event()
        assert event["engine"] == "epoll"
        assert REASONS[error] in event["reason"]


def test_asked_for_by_name_it_is_refused_with_the_reason(error: int) -> None:
    ended = finish("echo", "--port", 0, "--engine", "uring", preexec_fn=blocks(error))
    assert ended.returncode == UnsupportedError.exit_code
    assert REASONS[error] in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_doctor_names_the_cause_beside_the_engine_and_the_choice(error: int) -> None:
    report = json.loads(finish("doctor", "--json", preexec_fn=blocks(error)).stdout)
    for fact in (report["engines"]["uring"], report["fastnet"]["auto"]):
        assert not fact["good"]
        assert REASONS[error] in fact["hint"]
    assert not report["features"]["io_uring"]["good"]
