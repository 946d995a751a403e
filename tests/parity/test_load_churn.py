"""Churn load: native and pure report the same (load/contract.py, 9)."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

import pytest

from fastnet.errors import ConfigError
from fastnet.limits import KIB
from fastnet.load.contract import LoadPlan, LoadReport, source_address
from fastnet.load.run import run
from fastnet.registry import BACKENDS
from tests.parity.test_load_closed import STALL_S, Peer, honest, serving, serving_tcp

VISITORS = 3
MESSAGE_BYTES = 64

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def churn(endpoint, backend: str, messages: int, **plan: int) -> LoadReport:
    settings = {"connections": VISITORS, "message_bytes": MESSAGE_BYTES} | plan
    return run(LoadPlan(endpoint, messages=messages, stall_s=STALL_S, **settings), "churn", backend)


def reading_all(accepted: socket.socket) -> bytes:
    data = b""
    while part := accepted.recv(64 * KIB):
        data += part
    return data


def altering(accepted: socket.socket, over: threading.Event) -> None:
    data = reading_all(accepted)
    accepted.sendall(bytes([data[0] ^ 1]) + data[1:] if data else b"")


def losing(accepted: socket.socket, over: threading.Event) -> None:
    accepted.sendall(reading_all(accepted)[:-1])


def adding(accepted: socket.socket, over: threading.Event) -> None:
    data = reading_all(accepted)
    accepted.sendall(data + data[:1])


def resetting(accepted: socket.socket, over: threading.Event) -> None:
    accepted.recv(MESSAGE_BYTES)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def withholding(accepted: socket.socket, over: threading.Event) -> None:
    with suppress(OSError):
        accepted.sendall(reading_all(accepted))
    over.wait(10)


FAULTS = {
    "alters a byte": (altering, VISITORS, {}),
    "loses the last byte": (losing, 0, {"lost": VISITORS}),
    "adds a byte": (adding, VISITORS, {}),
    "resets": (resetting, 0, {"lost": VISITORS}),
    "withholds the end": (withholding, 0, {"stalled": VISITORS}),
}


@pytest.mark.parametrize(
    ("message_bytes", "messages"), [(1, 50), (64, 500), (65_521, 20), (300_000, 10), (64, 2)]
)
def test_every_connection_that_an_honest_peer_gets_is_counted(
    backend: str, message_bytes: int, messages: int
) -> None:
    seen: list[str] = []

    def noting(accepted: socket.socket, over: threading.Event) -> None:
        seen.append(accepted.getpeername()[0])
        honest(accepted, over)

    with serving_tcp(noting) as endpoint:
        report = churn(endpoint, backend, messages, message_bytes=message_bytes)
    assert report.ok
    assert (report.messages, report.bytes) == (messages, messages * message_bytes)
    assert report.histogram.total == messages
    assert 0 < report.p50_ns <= report.max_ns
    assert len(seen) == messages + 1, "and the one it was shown"
    if messages >= 64:
        assert {source_address(i) for i in range(64)} <= set(seen)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dishonest_peer_is_reported_by_its_fault(backend: str, fault: str) -> None:
    peer, mismatches, errors = FAULTS[fault]
    with serving_tcp(peer) as endpoint:
        report = churn(endpoint, backend, VISITORS)
    assert not report.ok
    assert (report.messages, report.mismatches, report.errors) == (0, mismatches, errors)


def test_a_peer_that_goes_away_ends_the_run(backend: str) -> None:
    """The listener closes after ten connections; each client is refused once and stops."""
    left = threading.Semaphore(10)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def then_leaving(accepted: socket.socket, over: threading.Event) -> None:
            honest(accepted, over)
            if not left.acquire(blocking=False):
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)

        with suppress(OSError), serving(then_leaving, listener) as endpoint:
            report = churn(endpoint, backend, 100_000)
    assert report.messages >= 10 - 1
    assert sum(report.errors.values()) == VISITORS
    assert set(report.errors) <= {"refused", "lost"}


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX], ids=["ipv6", "unix"])
def test_other_families_are_loaded_too(
    backend: str, family: socket.AddressFamily, tmp_path
) -> None:
    where = ("::1", 0) if family == socket.AF_INET6 else str(tmp_path / "echo.sock")
    peer: Peer = honest
    with (
        socket.create_server(where, family=family) as listener,
        serving(peer, listener) as endpoint,
    ):
        report = churn(endpoint, backend, 100)
    assert report.ok
    assert report.messages == 100


@pytest.mark.parametrize("plan", [{"in_flight": 2}, {"busy_poll_us": 5}], ids=str)
def test_what_it_cannot_do_is_refused_and_not_ignored(backend: str, plan: dict[str, int]) -> None:
    with (
        serving_tcp(honest) as endpoint,
        pytest.raises(ConfigError, match="one message per connection"),
    ):
        churn(endpoint, backend, 10, **plan)
