"""The native and the pure load report the same of the same peer, honest or not.

Numbers in brackets are sentences of fastnet/load/contract.py.
"""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from fastnet.limits import KIB, MIB, TICK_S
from fastnet.load.contract import PATTERN_PERIOD, LoadPlan, LoadReport
from fastnet.load.run import run

BACKENDS = ["native", "python"]
MESSAGE_BYTES = 64
CONNECTIONS = 3
SHARE = 40
FAULT_AT = 1000
"""The byte of its stream at which a dishonest peer starts to lie."""

RIGHT_MESSAGES = FAULT_AT // MESSAGE_BYTES
STALL_S = 0.3
TIMEOUT_S = 10.0

Peer = Callable[[socket.socket, threading.Event], None]
"""Serves one connection; the event is set when the load is over."""


@contextmanager
def serving(peer: Peer, listener: socket.socket) -> Iterator[Endpoint]:
    """Accept on the listener, a thread a connection, until the block ends."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(accepted: socket.socket) -> None:
        with accepted, suppress(ConnectionError):
            peer(accepted, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    listener.listen(128)
    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        name = listener.getsockname()
        yield Endpoint("tcp", *name[:2]) if isinstance(name, tuple) else unix_endpoint(name)
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a peer outlived its load"
        listener.close()


def unix_endpoint(name: str | bytes) -> Endpoint:
    return Endpoint("unix", path=name if isinstance(name, str) else "@" + name[1:].decode())


@contextmanager
def serving_tcp(peer: Peer) -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(peer, listener) as endpoint:
        yield endpoint


def blocks(accepted: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The bytes of one connection and where they start; one block starts at FAULT_AT."""
    seen = 0
    while data := accepted.recv(FAULT_AT - seen if seen < FAULT_AT else 64 * KIB):
        yield seen, data
        seen += len(data)


def honest(accepted: socket.socket, over: threading.Event) -> None:
    for _, data in blocks(accepted):
        accepted.sendall(data)


def changing(change: Callable[[bytes], bytes]) -> Peer:
    """A peer that echoes, except that the block at FAULT_AT is changed."""

    def peer(accepted: socket.socket, over: threading.Event) -> None:
        for start, data in blocks(accepted):
            accepted.sendall(change(data) if start == FAULT_AT else data)

    return peer


def crossing() -> Peer:
    """A peer that answers each of two connections with what the other one sent."""
    meeting, sent = threading.Barrier(2), dict[int, bytes]()

    def peer(accepted: socket.socket, over: threading.Event) -> None:
        sent[threading.get_ident()] = accepted.recv(MESSAGE_BYTES)
        meeting.wait(TIMEOUT_S)
        (other,) = (data for thread, data in sent.items() if thread != threading.get_ident())
        accepted.sendall(other)

    return peer


def closing(accepted: socket.socket, over: threading.Event) -> None:
    for start, data in blocks(accepted):
        if start == FAULT_AT:
            return
        accepted.sendall(data)


def resetting(accepted: socket.socket, over: threading.Event) -> None:
    closing(accepted, over)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(accepted: socket.socket, over: threading.Event) -> None:
    for _ in blocks(accepted):
        pass


def deaf(accepted: socket.socket, over: threading.Event) -> None:
    over.wait(TIMEOUT_S)


def withholding_the_end(accepted: socket.socket, over: threading.Event) -> None:
    honest(accepted, over)
    over.wait(TIMEOUT_S)


def adding_after_the_end(accepted: socket.socket, over: threading.Event) -> None:
    honest(accepted, over)
    accepted.sendall(b"?")


ALTERS = changing(lambda data: bytes([data[0] ^ 1]) + data[1:])
LOSES_FIRST = changing(lambda data: data[1:])
LOSES_LAST = changing(lambda data: data[:-1])
REPEATS = changing(lambda data: data[:1] + data)
SWAPS = changing(lambda data: data[1::-1] + data[2:])

MISMATCH = (RIGHT_MESSAGES, CONNECTIONS, {})
FAULTS = {
    "alters a byte": (ALTERS, MISMATCH),
    "loses a byte": (LOSES_FIRST, MISMATCH),
    "repeats a byte": (REPEATS, MISMATCH),
    "swaps two bytes": (SWAPS, MISMATCH),
    "adds a byte after the end": (adding_after_the_end, (SHARE, CONNECTIONS, {})),
    "loses the last byte": (LOSES_LAST, (RIGHT_MESSAGES, 0, {"stalled": CONNECTIONS})),
    "closes early": (closing, (RIGHT_MESSAGES, 0, {"lost": CONNECTIONS})),
    "resets": (resetting, (RIGHT_MESSAGES, 0, {"lost": CONNECTIONS})),
    "never answers": (silent, (0, 0, {"stalled": CONNECTIONS})),
    "never reads": (deaf, (0, 0, {"stalled": CONNECTIONS})),
    "withholds the end": (withholding_the_end, (SHARE, 0, {"stalled": CONNECTIONS})),
}


def load(endpoint: Endpoint, backend: str, messages: int, **plan: int) -> LoadReport:
    settings = {"connections": CONNECTIONS, "message_bytes": MESSAGE_BYTES} | plan
    return run(LoadPlan(endpoint, messages=messages, stall_s=STALL_S, **settings), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("message_bytes", "in_flight", "messages"),
    [
        (1, 1, 100),
        (64, 1, 1000),
        (64, 32, 10_001),
        (16 * KIB, 4, 500),
        (MIB, 4, 14),
        (64, 8, 2),
        (65521, 3, 50),
    ],
)
def test_an_honest_peer_gets_every_message_through(
    backend: str, message_bytes: int, in_flight: int, messages: int
) -> None:
    with serving_tcp(honest) as endpoint:
        report = load(endpoint, backend, messages, message_bytes=message_bytes, in_flight=in_flight)
    assert report.ok
    assert (report.messages, report.bytes) == (messages, messages * message_bytes)
    assert report.histogram.total == messages
    assert (
        0 < report.p50_ns <= report.p90_ns <= report.p99_ns <= report.max_ns <= report.seconds * 1e9
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_dishonest_peer_is_reported_by_its_fault(backend: str, fault: str) -> None:
    peer, (messages_each, mismatches, errors) = FAULTS[fault]
    with serving_tcp(peer) as endpoint:
        report = load(endpoint, backend, CONNECTIONS * SHARE)
    assert not report.ok
    assert report.messages == CONNECTIONS * messages_each
    assert (report.mismatches, report.errors) == (mismatches, errors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(peer, id=name)
        for name, peer in {
            "alters": ALTERS,
            "loses the first": LOSES_FIRST,
            "loses the last": LOSES_LAST,
            "repeats": REPEATS,
            "swaps": SWAPS,
        }.items()
    ],
)
def test_pipelined_messages_hide_no_wrong_byte(backend: str, peer: Peer) -> None:
    with serving_tcp(peer) as endpoint:
        report = load(endpoint, backend, CONNECTIONS * SHARE * 100, in_flight=4)
    assert (report.mismatches, report.errors) == (CONNECTIONS, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_right_bytes_beyond_those_sent_are_wrong(backend: str) -> None:
    """A repeated period of the pattern looks right byte by byte; only their number betrays it."""

    def repeats_all(accepted: socket.socket, over: threading.Event) -> None:
        data = accepted.recv(PATTERN_PERIOD, socket.MSG_WAITALL)
        accepted.sendall(data + data)

    with serving_tcp(repeats_all) as endpoint:
        report = load(endpoint, backend, CONNECTIONS, message_bytes=PATTERN_PERIOD)
    assert (report.mismatches, report.errors) == (CONNECTIONS, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_of_another_connection_are_wrong(backend: str) -> None:
    with serving_tcp(crossing()) as endpoint:
        report = load(endpoint, backend, 10, connections=2)
    assert (report.messages, report.mismatches, report.errors) == (0, 2, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_bad_connection_does_not_keep_the_others_from_going_on(backend: str) -> None:
    taken = threading.Lock()

    def first_lies(accepted: socket.socket, over: threading.Event) -> None:
        (ALTERS if taken.acquire(blocking=False) else honest)(accepted, over)

    with serving_tcp(first_lies) as endpoint:
        report = load(endpoint, backend, CONNECTIONS * SHARE)
    assert report.messages == (CONNECTIONS - 1) * SHARE + RIGHT_MESSAGES
    assert (report.mismatches, report.errors) == (1, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_peers_that_stop_reading_long_messages_end_as_stalled(backend: str) -> None:
    with serving_tcp(deaf) as endpoint:
        report = load(endpoint, backend, 100, message_bytes=16 * MIB, in_flight=4)
    assert (report.messages, report.mismatches, report.errors) == (0, 0, {"stalled": CONNECTIONS})


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_clock_ends_a_run_and_the_warm_up_is_not_counted(backend: str) -> None:
    edges: list[float] = []
    with serving_tcp(honest) as endpoint:
        plan = LoadPlan(endpoint, connections=2, in_flight=2, seconds=0.3, warmup_s=0.2)
        started = time.monotonic()
        report = run(
            plan, backend=backend, on_edge=lambda: edges.append(time.monotonic() - started)
        )
    assert report.ok
    assert len(edges) == 2
    assert edges[0] >= 0.2
    assert report.seconds >= 0.3
    assert edges[1] - edges[0] == pytest.approx(report.seconds, abs=0.1)
    assert report.messages == report.histogram.total > 0
    assert abs(report.bytes - report.messages * plan.message_bytes) <= 2 * 2 * plan.message_bytes
    assert 0 < report.cpu_seconds <= report.seconds


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_connections_than_messages_leave_some_without_a_share(backend: str) -> None:
    with serving_tcp(honest) as endpoint:
        report = load(endpoint, backend, 2, connections=5)
    assert report.ok
    assert report.messages == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["file", "abstract"])
def test_unix_endpoints_are_loaded_too(backend: str, name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "echo.sock") if name == "file" else f"@fastnet-{tmp_path.name}-{backend}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + path[1:] if name == "abstract" else path)
        with serving(honest, listener) as endpoint:
            report = load(endpoint, backend, 500, connections=40, message_bytes=5000)
    assert report.ok
    assert report.messages == 500


@pytest.mark.parametrize("backend", BACKENDS)
def test_ipv6_endpoints_are_loaded_too(backend: str) -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        serving(honest, listener) as endpoint,
    ):
        report = load(endpoint, backend, 100)
    assert report.ok
    assert report.messages == 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_listener_is_an_error_with_the_reason(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("tcp", "127.0.0.1", listener.getsockname()[1])
    with pytest.raises(NetworkError, match="connection refused"):
        load(endpoint, backend, 1)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("peer", [honest, silent])
def test_a_signal_ends_a_run_within_a_tick(backend: str, peer: Peer) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with serving_tcp(peer) as endpoint:
            started = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                run(LoadPlan(endpoint, connections=2, seconds=30, stall_s=30), backend=backend)
            assert time.monotonic() - started < 0.2 + TICK_S + 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
