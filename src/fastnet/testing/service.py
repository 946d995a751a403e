"""Conformance suite of a service: the sentences S1 to S8 of service/contract.py.

Facts. A service knows no socket, so most sentences are checked by calling it directly.
Decision: what it returns is then compared with what a client receives from every pure engine.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fastnet.engine.stream import ENGINES
from fastnet.service.contract import END, Service
from fastnet.testing.loop import running_loop

CHUNKS = (1, 7, 4096)
"""Sizes in bytes into which each request is cut."""
SENT_CALLS_MAX = 20
"""Calls of `sent` after which a service counts as endless."""
TIMEOUT_S = 10.0
"""Seconds that a reply over a socket may take."""


class CheckedConnection:
    """The `conn` of a service that is called directly."""

    def __init__(self, service: Service) -> None:
        self.state: Any = None
        self.service = service
        self.output = bytearray()
        self.has_ended = False

    def add(self, items: Sequence[Any], sentence: str) -> None:
        """Append items up to END; raises AssertionError when one is no item."""
        for item in items:
            if self.has_ended:
                return
            if item is END:
                self.has_ended = True
                continue
            kinds = bytes | bytearray | memoryview
            assert isinstance(item, kinds), f"{sentence}: {item!r} is neither bytes nor END"
            self.output += item

    def open(self) -> None:
        self.add(self.service.open(self), "S1")

    def data(self, chunk: bytes) -> None:
        if self.service.accepts_input and not self.has_ended:
            self.add(self.service.data(self, memoryview(chunk)), "S2")

    def finish(self) -> bytes:
        """The peer has half-closed. Returns all output, of an endless service its start."""
        if self.service.produces_output:
            for _ in range(SENT_CALLS_MAX):
                if self.has_ended:
                    break
                self.add(self.service.sent(self), "S4")
        elif not self.has_ended:
            self.add(self.service.eof(self), "S5")
        self.service.close(self)
        return bytes(self.output)


def cut(request: bytes, size: int) -> Iterator[bytes]:
    """The request in chunks of `size` bytes."""
    return (request[at : at + size] for at in range(0, len(request), size))


def output_of(service: Service, chunks: Iterable[bytes]) -> tuple[bytes, bool]:
    """What one connection is sent, and whether the service ended it."""
    conn = CheckedConnection(service)
    conn.open()
    for chunk in chunks:
        conn.data(chunk)
    return conn.finish(), conn.has_ended


def check_chunks(factory: Callable[[], Service], request: bytes) -> tuple[bytes, bool]:
    """S2: the output does not depend on how the input is cut. Returns the output."""
    expected = output_of(factory(), [request] if request else [])
    for size in CHUNKS:
        found = output_of(factory(), cut(request, size))
        assert found == expected, (
            f"S2: in chunks of {size} bytes {request[:40]!r} has another reply"
        )
    return expected


def check_connections_are_separate(
    factory: Callable[[], Service], requests: Sequence[bytes], expected: Sequence[bytes]
) -> None:
    """S7, S8: one object serves all connections, and they share no state."""
    service = factory()
    conns = [CheckedConnection(service) for _ in requests]
    for conn in conns:
        conn.open()
    for chunks in itertools.zip_longest(*(cut(request, 3) for request in requests)):
        for conn, chunk in zip(conns, chunks, strict=True):
            if chunk:
                conn.data(chunk)
    found = [conn.finish() for conn in conns]
    assert found == list(expected), "S8: connections served in turns have other replies"


def check_over_sockets(
    factory: Callable[[], Service], engine: str, request: bytes, output: bytes, ends: bool
) -> None:
    """The same over TCP: a client receives the output, then FIN if the service has ended."""
    with running_loop(engine, "python", factory()) as loop:
        address = (loop.endpoint.host, loop.endpoint.port)
        with socket.create_connection(address, TIMEOUT_S) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            received = bytearray()
            while ends or len(received) < len(output):
                part = sock.recv(65536)
                if not part:
                    break
                received += part
    found = bytes(received) if ends else bytes(received[: len(output)])
    assert found == output, f"the {engine} engine sent {found[:40]!r}, not {output[:40]!r}"


def check_service(
    factory: Callable[[], Service],
    requests: Sequence[bytes] = (b"", b"hello", bytes(range(256)) * 40),
    engines: Sequence[str] | None = None,
) -> None:
    """Check a service against service/contract.py, directly and on pure engines.

    Args:
        factory: Makes the service; called several times.
        requests: What clients send, each less than 64 KiB; each is sent whole and in chunks.
        engines: Names of engines; None for every pure engine that works on this host.

    Raises:
        AssertionError: A sentence of the contract is broken; the message starts with its number.

    Example:
        >>> check_service(MyService, requests=[b"one line\\n"])

    See also: docs/extending.md.
    """
    found = [check_chunks(factory, request) for request in requests]
    check_connections_are_separate(factory, requests, [output for output, _ in found])
    if engines is None:
        engines = [name for name in ENGINES if not ENGINES.why_not(name, "python")]
    for engine in engines:
        for request, (output, ends) in zip(requests, found, strict=True):
            check_over_sockets(factory, engine, request, output, ends)
