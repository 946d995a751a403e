"""Conformance suite of an engine: sentences E1, E2 and E5 of engine/stream/contract.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep

from fastnet.endpoint import Endpoint
from fastnet.testing.loop import Run, prepared_loop, running_loop

TIMEOUT_S = 10.0
"""Seconds for each reply, and for a stopped loop to return."""
POLL_S = 0.005
"""Seconds between two looks at the counters."""
LARGE_BYTES = 3_000_000
"""More than the socket buffers of both sides hold."""


def connected(endpoint: Endpoint) -> socket.socket:
    """A client's socket."""
    return socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_S)


def received(sock: socket.socket) -> bytes:
    """Everything up to FIN."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchanged(endpoint: Endpoint, request: bytes) -> bytes:
    """Send the request and FIN, and return everything that the server sends."""
    with connected(endpoint) as sock:
        sender = threading.Thread(target=send_all, args=(sock, request))
        sender.start()
        reply = received(sock)
        sender.join()
    return reply


def send_all(sock: socket.socket, request: bytes) -> None:
    """Send the request and FIN."""
    sock.sendall(request)
    sock.shutdown(socket.SHUT_WR)


def wait_until(condition: Callable[[], bool], sentence: str) -> None:
    """Poll the condition until a deadline."""
    deadline = monotonic() + TIMEOUT_S
    while not condition():
        assert monotonic() < deadline, sentence
        sleep(POLL_S)


def check_every_listener_is_served(engine: str | Run, backend: str) -> None:
    """E2: connections are accepted from every listener."""
    with running_loop(engine, backend, listeners=3) as loop:
        for endpoint in [*loop.endpoints, *reversed(loop.endpoints)]:
            assert exchanged(endpoint, b"hello") == b"hello", f"E2: no echo from {endpoint}"
        wait_until(lambda: loop.statistics().open == 0, "E2: a connection stays open")
        assert loop.statistics().accepted == 6, "E2: accepted connections are counted"


def check_a_burst_is_served(engine: str | Run, backend: str) -> None:
    """E2: a burst of arrivals leaves established connections their turn."""
    with prepared_loop(engine, backend, accept_burst=1, events_per_wait=2) as loop:
        with ExitStack() as stack:
            peers = [stack.enter_context(connected(loop.endpoint)) for _ in range(20)]
            for peer in peers:
                peer.sendall(b"ping")
            loop.start()
            for peer in peers:
                assert peer.recv(4) == b"ping", "E2: a connection of a burst is not served"
                peer.close()
            wait_until(lambda: loop.statistics().accepted == 20, "E2: 20 connections are counted")


def check_half_close_is_drained(engine: str | Run, backend: str) -> None:
    """E5: everything received before the peer's FIN is sent back, then FIN."""
    request = bytes(range(251)) * (LARGE_BYTES // 251)
    with running_loop(engine, backend) as loop:
        assert exchanged(loop.endpoint, request) == request, "E5: the echo is not complete"
        wait_until(lambda: loop.statistics().open == 0, "E5: the connection stays open")
        now = loop.statistics()
        assert now.bytes_in == now.bytes_out == len(request), "E5: bytes are counted"
        assert now.closed["finished"] == 1, "E5: the end is counted as finished"


def check_stop_ends_connections(engine: str | Run, backend: str) -> None:
    """E1: the loop runs until it is stopped, and has then closed every connection."""
    with running_loop(engine, backend) as loop:
        with connected(loop.endpoint) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x", "E1: no echo"
            assert not loop.wait(POLL_S), "E1: it returned before it was stopped"
            loop.context.stop.now()
            assert loop.wait(TIMEOUT_S), "E1: it does not return when it is stopped"
            assert received(peer) == b"", "E1: a connection is left open"
        now = loop.statistics()
        assert (now.open, now.closed["stopped"]) == (0, 1), "E1: the end is counted as stopped"


ENGINE_CHECKS = (
    check_every_listener_is_served,
    check_a_burst_is_served,
    check_half_close_is_drained,
    check_stop_ends_connections,
)
"""Every check of this suite."""


def check_engine(engine: str | Run, backend: str = "python") -> None:
    """Check a stream engine against engine/stream/contract.py with the echo service.

    Args:
        engine: The `run` function of an engine, called with a
            :class:`fastnet.engine.context.LoopContext`; or the name of one of ours.
        backend: The form of the echo service that it runs, "python" or "native".

    Raises:
        AssertionError: A sentence of the contract is broken; the message starts with its number.

    Example:
        >>> check_engine(my_engine.run)

    See also: docs/extending.md.
    """
    for check in ENGINE_CHECKS:
        check(engine, backend)
