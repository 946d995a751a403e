"""Datagram load: native and pure report the same (load/contract.py, 10)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import fastnet
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.load.contract import LoadPlan, LoadReport
from fastnet.load.run import run
from fastnet.registry import BACKENDS

pytestmark = pytest.mark.parametrize("backend", BACKENDS)

Answer = Callable[[int, bytes], list[bytes]]
"""What a peer sends back for its n-th datagram."""


@contextmanager
def serving(answer: Answer) -> Iterator[Endpoint]:
    """A peer in a thread, until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()

        def serve() -> None:
            seen = 0
            while True:
                data, peer = sock.recvfrom(70_000)
                if peer == stopper.getsockname():
                    return
                for reply in answer(seen, data):
                    sock.sendto(reply, peer)
                seen += 1

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield Endpoint("udp", host, port)
            finally:
                stopper.sendto(b"", (host, port))
                thread.join(10)


def load(endpoint: Endpoint, backend: str, messages: int, **plan: int) -> LoadReport:
    settings = {"connections": 2, "message_bytes": 64, "in_flight": 4} | plan
    return run(LoadPlan(endpoint, messages=messages, **settings), "datagrams", backend)


@pytest.mark.parametrize(
    ("connections", "message_bytes", "in_flight", "messages"),
    [
        (1, 9, 1, 100),
        (2, 64, 4, 1000),
        (8, 1400, 16, 2000),
        (1, 64, 100, 1001),
        (3, 65_507, 1, 20),
        (5, 100, 3, 2),
    ],
)
def test_every_datagram_that_an_honest_peer_returns_is_counted_once(
    backend, connections, message_bytes, in_flight, messages
) -> None:
    with fastnet.serve("echo", "udp://127.0.0.1:0", backend=backend, rcvbuf=1 << 22) as server:
        plan = {"connections": connections, "message_bytes": message_bytes, "in_flight": in_flight}
        report = load(server.endpoint, backend, messages, **plan)
    assert report.ok, report
    assert (report.messages, report.bytes) == (messages, messages * message_bytes)
    assert report.histogram.total == messages


LIARS: dict[str, Answer] = {
    "alters a byte": lambda n, data: [data[:-1] + bytes([data[-1] ^ 1])],
    "loses a byte": lambda n, data: [data[:-1]],
    "adds a byte": lambda n, data: [data + b"?"],
    "answers nothing with something": lambda n, data: [b""],
    "changes the number": lambda n, data: [bytes([data[0] ^ 1]) + data[1:]],
    "answers what was never asked": lambda n, data: [b"\xff" * 8 + data[8:]],
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_liar_is_one_mismatch_a_socket(backend, lie) -> None:
    with serving(LIARS[lie]) as endpoint:
        report = load(endpoint, backend, 100)
    assert not report.ok
    assert (report.messages, report.mismatches) == (0, 2)


def test_lost_datagrams_are_counted_and_the_rest_continues(backend) -> None:
    """Every tenth datagram vanishes."""
    with serving(lambda n, data: [] if n % 10 == 9 else [data]) as endpoint:
        report = load(endpoint, backend, 100)
    assert (report.mismatches, report.errors) == (0, {"lost": 10})
    assert report.messages == 90


def test_doubles_and_late_ones_are_counted_once_and_are_no_lie(backend) -> None:
    held: list[bytes] = []

    def doubling(n: int, data: bytes) -> list[bytes]:
        late = held.copy()
        held[:] = [data]
        return [data, data, *late]

    with serving(doubling) as endpoint:
        report = load(endpoint, backend, 200, connections=1)
    assert report.ok, report
    assert report.messages == 200


def test_a_port_without_a_listener_ends_the_run(backend) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    report = load(Endpoint("udp", "127.0.0.1", port), backend, 100)
    assert report.messages == 0
    assert report.errors["lost"] > 0


def test_a_load_that_does_not_fit_its_endpoint_is_refused(backend) -> None:
    with pytest.raises(ConfigError, match=r"cannot load udp://127\.0\.0\.1:9 with closed"):
        run(LoadPlan(Endpoint("udp", "127.0.0.1", 9), messages=1), "closed", backend)
    with pytest.raises(ConfigError, match=r"cannot load tcp://127\.0\.0\.1:9 with datagrams"):
        run(LoadPlan(Endpoint("tcp", "127.0.0.1", 9), messages=1), "datagrams", backend)
    with pytest.raises(ConfigError, match="a datagram of 8 bytes cannot be loaded with"):
        run(
            LoadPlan(Endpoint("udp", "127.0.0.1", 9), messages=1, message_bytes=8),
            "datagrams",
            backend,
        )
