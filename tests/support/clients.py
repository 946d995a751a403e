"""The other end.

Clients that behave well or badly, and waits that end on an event or a deadline, never on a clock.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fastnet.endpoint import Endpoint
from fastnet.server.server import Server
from fastnet.transport.resolve import unix_address

DEADLINE_S = 30.0 * float(os.environ.get("FASTNET_TEST_TIMEOUT_FACTOR", "1"))
POLL_S = 0.003
BREATH_S = 0.05
LINGER_NONE = struct.pack("ii", 1, 0)


def eventually(
    holds: Callable[[], Any], deadline_s: float = DEADLINE_S, fail: bool = True, why: object = ""
) -> Any:
    """Wait until `holds` returns something true and return it.

    Fail the test when the deadline passes first.
    """
    ends_s = time.monotonic() + deadline_s
    while not (result := holds()):
        if time.monotonic() > ends_s:
            assert not fail, f"not within {deadline_s} s: {why() if callable(why) else why}"
            return result
        time.sleep(POLL_S)
    return result


def statistics_reach(server: Server, deadline_s: float = DEADLINE_S, **expected: int) -> None:
    """Wait until every named counter has the value.

    Names are those of Statistics or of a reason in `closed`.
    """

    def reached() -> bool:
        now = server.statistics()
        found = now.as_dict() | dict(now.closed)
        return all(found[name] == value for name, value in expected.items())

    eventually(reached, deadline_s, why=lambda: f"{expected} in {server.statistics()}")


@contextlib.contextmanager
def while_flooded(send: Callable[[], None], burst: int) -> Iterator[None]:
    """While a thread calls `send` in bursts, which overflow a receive queue.

    Linux holds some 250 short datagrams.

    A datagram of another peer can be received in the pause between two bursts. Without it, whether
    it is received would depend on the scheduler, on which no test can rely.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(BREATH_S):
            for _ in range(burst):
                send()

    thread = threading.Thread(target=run, name="flood")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Peer:
    """A client. Everything it does ends within `deadline_s` or raises TimeoutError."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read(self, n: int) -> bytes:
        """Exactly n bytes, or fewer at the end of the stream."""
        parts = []
        while n:
            got = self.sock.recv(min(n, 1 << 18))
            if not got:
                break
            parts.append(got)
            n -= len(got)
        return b"".join(parts)

    def read_to_end(self, chunk: int = 1 << 18) -> bytes:
        parts = []
        while got := self.sock.recv(chunk):
            parts.append(got)
        return b"".join(parts)

    def exchange(self, data: bytes) -> bytes:
        """Send from a second thread, half-close, and read to the end meanwhile."""
        with self.sending(data):
            return self.read_to_end()

    def sending(self, data: bytes, chunk: int = 1 << 20, half_close: bool = True) -> Sending:
        """Send from a second thread while the block lasts.

        What is not sent by its end is not sent at all.
        """
        return Sending(self.sock, data, chunk, half_close)

    def reset(self) -> None:
        """End with an RST on TCP; on a Unix socket, which has none, with a plain close."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Sending:
    """A thread that sends until all is sent, the stream breaks or its block ends.

    Fact. A descriptor that is closed while another thread waits for it stays open until that wait
    is over.
    Consequence: it waits in short pieces, and is stopped and joined before the socket is closed or
    reset.
    """

    WAIT_MS = 20

    def __init__(self, sock: socket.socket, data: bytes, chunk: int, half_close: bool) -> None:
        self.sock, self.left, self.chunk, self.half_close = (
            sock,
            memoryview(data),
            chunk,
            half_close,
        )
        self.stopped = False
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        with contextlib.suppress(ConnectionError):  # the reader sees what became of it
            while self.left and not self.stopped:
                if poll.poll(self.WAIT_MS):
                    with contextlib.suppress(BlockingIOError):
                        self.left = self.left[
                            os.write(self.sock.fileno(), self.left[: self.chunk]) :
                        ]
            if self.half_close and not self.stopped:
                self.sock.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Wait until everything is sent or the stream broke."""
        self.thread.join(DEADLINE_S)

    def __enter__(self) -> Sending:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.thread.join(DEADLINE_S)


def connect(
    endpoint: Endpoint, rcvbuf: int = 0, sndbuf: int = 0, source: str = "", host: str = ""
) -> Peer:
    """A client of a server on this host.

    rcvbuf, sndbuf: bytes, small for a slow reader. source: its address.
    """
    unix = endpoint.transport == "unix"
    host = host or endpoint.host
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(DEADLINE_S)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if sndbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        if source:
            sock.bind((source, 0))
        sock.connect(unix_address(endpoint.path) if unix else (host, endpoint.port))
        if not unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return Peer(sock)


def settled(server: Server) -> dict[str, Any]:
    """The statistics once no connection is open, checked to add up.

    Accepted is the sum of all ends.
    """
    statistics_reach(server, open=0)
    now = server.statistics()
    assert now.accepted == sum(now.closed.values()), now
    assert now.write_buffer_bytes == 0, now
    return now.as_dict()


PATTERN_BLOCK = struct.pack(">65536I", *range(1 << 16))
"""The numbers from 0 to 65535, four bytes each."""


def pattern(n: int) -> bytes:
    """n bytes that differ from place to place, so that a lost, doubled or swapped piece shows."""
    return (PATTERN_BLOCK * (n // len(PATTERN_BLOCK) + 1))[:n]
