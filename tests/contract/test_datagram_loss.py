"""Losses over UDP, for every engine: nothing the receive buffer holds, the rest counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastnet.endpoint import Endpoint
from fastnet.limits import DATAGRAM_BYTES_MAX, READ_BYTES
from tests.conftest import Serve
from tests.contract.test_datagram import Client, counts, each_way, reaches
from tests.support.cli_process import Running, running
from tests.support.clients import DEADLINE_S, pattern

KERNEL_BYTES = 2304
"""More than the kernel charges the receive buffer for a datagram of 500 bytes."""

CLIENT_RCVBUF = 212_992
"""What every host grants (net.core.rmem_max by default)."""


def tell(sock: socket.socket) -> int:
    """Send until an answer to a datagram sent after the flood shows that it is over.

    Returns how many that took.
    """
    sock.settimeout(0.2)
    for attempt in range(1, 100):
        sock.send(b"news %d" % attempt)
        with contextlib.suppress(TimeoutError):
            while sock.recv(1000) != b"news %d" % attempt:
                pass
            return attempt
    raise AssertionError("no answer after a flood")


@contextmanager
def stopped(command: Running) -> Iterator[None]:
    """Nothing of a server runs until the block ends.

    What comes meanwhile waits in its receive buffers.
    """
    os.killpg(command.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(command.pid, signal.SIGCONT)


def statistics(command: Running) -> dict[str, Any]:
    """What it says at its end."""
    found: dict[str, Any] = json.loads(command.end()[1].splitlines()[-1])["statistics"]
    return found


@contextmanager
def serving(engine: str, backend: str, *options: object) -> Iterator[tuple[Running, socket.socket]]:
    """An echo command and a socket connected to it."""
    with running(
        "echo", "--udp", "--engine", engine, "--backend", backend, "--json", *options
    ) as command:
        endpoint = Endpoint.parse(command.event()["endpoint"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CLIENT_RCVBUF)
            sock.connect((endpoint.host, endpoint.port))
            yield command, sock


@each_way
@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_socket_had_no_room_for_is_counted_and_nothing_else_is_lost(
    engine, backend, workers
) -> None:
    """D7. The loops are stopped in their tracks while a flood comes, and tell afterwards."""
    with serving(engine, backend, "--rcvbuf", 4096, "--workers", workers) as (command, sock):
        with stopped(command):
            for i in range(200):
                sock.send(b"%03d" % i + bytes(500))
        news = tell(sock)
        found = statistics(command)
    assert found["kernel_drops"] > 0
    assert found["messages"] + found["kernel_drops"] == 200 + news
    assert found["replies"] == found["messages"]


@each_way
@pytest.mark.parametrize("workers", [1, 2])
def test_a_burst_within_the_receive_buffer_is_answered_whole_in_order(
    engine, backend, workers
) -> None:
    """Zero loss without a reader while it comes. Linux doubles --rcvbuf (socket(7))."""
    rcvbuf = 100_000
    burst = [b"%03d" % i + bytes(497) for i in range(2 * rcvbuf // KERNEL_BYTES)]
    with serving(engine, backend, "--rcvbuf", rcvbuf, "--workers", workers) as (command, sock):
        for _ in range(5):
            with stopped(command):
                for data in burst:
                    sock.send(data)
            assert [sock.recv(1000) for _ in burst] == burst
        found = statistics(command)
    assert (found["kernel_drops"], found["messages"], found["replies"]) == (
        0,
        5 * len(burst),
        5 * len(burst),
    )


@each_way
def test_a_window_below_the_receive_buffer_loses_nothing(engine, backend, serve: Serve) -> None:
    """Zero loss: 20,000 datagrams, never more than 64 on their way."""
    server = serve("echo", "udp://127.0.0.1:0")
    with Client(server) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for turn in range(20_000 // 64):
            sent = [b"%d/%d" % (turn, i) for i in range(64)]
            for data in sent:
                client.send(data)
            assert [client.read() for _ in sent] == sent
    assert counts(server)["kernel_drops"] == 0


@each_way
@pytest.mark.parametrize("workers", [1, 2])
def test_the_empty_and_the_longest_datagram_come_back_from_every_worker(
    engine, backend, serve: Serve, workers
) -> None:
    """D3."""
    server = serve("echo", "udp://127.0.0.1:0", workers=workers)
    for _ in range(20):
        with Client(server) as client:
            for size in (0, DATAGRAM_BYTES_MAX, 0):
                assert client.ask(pattern(size)) == pattern(size)
    shares = [each.messages for each in server.worker_statistics()]
    assert sum(shares) == 60
    assert all(shares)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@each_way
def test_a_datagram_longer_than_any_over_ipv4_is_counted_and_never_cut(
    engine, backend, serve: Serve
) -> None:
    """D3, D5. IPv6 saves the 20 bytes of IPv4's header: 65,527 arrive and fit the buffer.

    They are not sent back short.
    """
    server, size = serve("echo", "udp://[::1]:0"), DATAGRAM_BYTES_MAX + 20
    assert size < READ_BYTES
    with Client(server) as client:
        client.send(pattern(size))
        reaches(server, messages=1, bytes_in=size, replies=0, unsent=1, truncated=0)
        assert client.ask(b"short") == b"short"
