"""Native against pure, engine by engine: python -m pytest bench.

Facts. A round trip between two processors is mostly two wake-ups, and where the scheduler puts the
two processes changes it fourfold; on one processor it is the work of both sides and nothing else.
Decision: client and server share one processor. Throughput with a processor for each is what
bench/run.py measures.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import contestant
from fastnet.engine.stream import ENGINES
from fastnet.limits import KIB
from fastnet.load.run import bound_to
from fastnet.registry import BACKENDS

ROUND_TRIPS = 200
TIMEOUT_S = 10.0


ROWS = [
    pytest.param((name, backend), id=f"{name}-{backend}")
    for name, row in ENGINES.items()
    for backend in BACKENDS
    if row.module(backend)
]
"""Every engine in every form that the table has; a hole is no benchmark."""


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An engine and a backend; what cannot work on this host is skipped with its reason."""
    engine, backend = request.param
    if why := ENGINES.why_not(engine, backend):
        pytest.skip(why)
    return engine, backend


@pytest.fixture
def client(row: tuple[str, str]) -> Iterator[socket.socket]:
    """A connection to `fastnet echo` in a process of its own, on the processor of this one."""
    cpu = min(os.sched_getaffinity(0))
    with (
        bound_to(cpu),
        contestant.running(contestant.fastnet(*row), cpu) as (_, endpoint),
    ):
        with socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_S) as connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connected


def round_trips(client: socket.socket, message: bytes, into: memoryview) -> None:
    for _ in range(ROUND_TRIPS):
        client.sendall(message)
        got = 0
        while got < len(message):
            n = client.recv_into(into[got:])
            assert n, "the server closed the connection"
            got += n


@pytest.mark.parametrize("message_bytes", [64, 16 * KIB], ids="{}B".format)
def test_round_trips(
    benchmark: BenchmarkFixture, client: socket.socket, row: tuple[str, str], message_bytes: int
) -> None:
    benchmark.group = f"{row[0]}, {ROUND_TRIPS} round trips of {message_bytes} B"
    message, into = (
        bytes(range(256)) * (message_bytes // 256 + 1),
        memoryview(bytearray(message_bytes)),
    )
    benchmark.pedantic(
        round_trips, (client, message[:message_bytes], into), rounds=10, warmup_rounds=2
    )
    assert into == message[:message_bytes]
