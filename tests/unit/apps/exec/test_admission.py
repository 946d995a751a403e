"""Admission of requests: each check refuses with its code; the nonce comes last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastnet.apps.exec import admission
from fastnet.apps.exec.admission import Admission
from fastnet.apps.exec.nonces import RequestId
from fastnet.apps.exec.policy import Denied
from fastnet.limits import EXEC_CLOCK_S, EXEC_MATCH_PENALTY_S
from tests.support.exec import ExecNetwork, shell

Admit = Callable[..., str]
"""Admits a request and returns the code of its refusal, or "admitted"."""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[ExecNetwork]:
    made = ExecNetwork(
        tmp_path,
        mark=shell("echo"),
        slow={"argv": ["/bin/echo", "{1}"], "arguments": ["(a+)+b"]},
        alices=shell("echo", keys=["alice"]),
        wait=shell("sleep 30"),
    )
    yield made
    made.close()


@pytest.fixture
def gate(network: ExecNetwork) -> Admission:
    return network.protocol.admission


@pytest.fixture
def admit(network: ExecNetwork, gate: Admission) -> Admit:
    def admit(*argv: str, key: str = "alice", age_s: float = 0, nonce: bytes | None = None) -> str:
        timestamp_us = int((network.clocks.day_s - age_s) * 1e6)
        try:
            gate.admit(RequestId(key, nonce or os.urandom(16)), [*argv], timestamp_us)
        except Denied as error:
            return error.refusal.code
        return "admitted"

    return admit


def test_an_admitted_request_has_its_command_and_its_nonce_on_the_disk(
    network: ExecNetwork, gate: Admission
) -> None:
    request_id = RequestId("alice", os.urandom(16))
    command, argv = gate.admit(request_id, ["mark"], int(network.clocks.day_s * 1e6))
    assert (command.name, argv[0]) == ("mark", "/bin/sh")
    assert request_id.nonce.hex() in (network.folder / "nonces").read_text()


def test_a_used_nonce_is_lost(admit: Admit) -> None:
    nonce = os.urandom(16)
    assert admit("mark", nonce=nonce) == "admitted"
    assert admit("mark", nonce=nonce) == "lost"
    assert admit("mark", nonce=nonce, key="bob") == "admitted"


@pytest.mark.parametrize("age_s", [EXEC_CLOCK_S + 1, -EXEC_CLOCK_S - 1])
def test_a_timestamp_outside_the_clock_window_is_refused(admit: Admit, age_s: float) -> None:
    assert admit("mark", age_s=age_s) == "clock"


def test_a_slow_match_costs_its_key_a_penalty_and_no_other_key(
    admit: Admit, network: ExecNetwork
) -> None:
    assert admit("slow", "a" * 60) == "arguments"
    assert (admit("mark"), admit("mark", key="bob")) == ("busy", "admitted")
    network.clocks.advance(EXEC_MATCH_PENALTY_S)
    assert admit("mark") == "admitted"


@pytest.mark.parametrize(
    ("argv", "key", "code"),
    [
        (["none"], "alice", "command"),
        (["alices"], "bob", "key"),
        (["alices"], "alice", "admitted"),
        (["mark", "extra"], "alice", "arguments"),
    ],
)
def test_the_allow_file_decides_about_command_key_and_arguments(
    admit: Admit, argv: list[str], key: str, code: str
) -> None:
    assert admit(*argv, key=key) == code


def test_a_stopping_server_refuses_what_the_policy_permits(admit: Admit, gate: Admission) -> None:
    gate.is_stopping = True
    assert (admit("mark"), admit("none")) == ("stopping", "command")


def test_a_command_beyond_its_concurrent_limit_is_busy(admit: Admit, network: ExecNetwork) -> None:
    client = network.request("wait")
    for _ in range(2):
        network.exchange(client)
    assert (admit("wait"), admit("mark")) == ("busy", "admitted")


@pytest.mark.parametrize("limit", ["EXEC_CONCURRENT_MAX", "EXEC_KEPT_BYTES_MAX"])
def test_beyond_a_limit_of_the_server_every_command_is_busy(
    admit: Admit, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(admission, limit, 0)
    assert admit("mark") == "busy"


def test_with_a_full_table_of_nonces_every_command_is_busy(
    admit: Admit, network: ExecNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.nonces, "is_full", lambda: True)
    assert admit("mark") == "busy"


def test_without_an_audit_log_nothing_runs(admit: Admit, gate: Admission) -> None:
    gate.is_log_written = lambda: False
    assert admit("mark") == "broken"


def test_a_nonce_that_the_disk_does_not_take_is_refused(
    admit: Admit, network: ExecNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(network.nonces, "add", fail)
    assert admit("mark") == "broken"


def test_a_refused_request_leaves_no_nonce_on_the_disk(
    admit: Admit, gate: Admission, network: ExecNetwork
) -> None:
    gate.is_stopping = True
    admit("mark")
    assert (network.folder / "nonces").read_text() == ""
