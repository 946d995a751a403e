"""Churn load: a connection per message. Pure Python.

A connection is made, sends one message, half-closes, reads the echo to its end and closes.

Facts. The side that closes first keeps the connection in TIME_WAIT for a minute (RFC 9293, 3.6.1),
and here that is the load: a source address has some 28,000 ports, fewer than a fast server serves
in two seconds. Over loopback every address of 127/8 is ours.
Decision: connections to 127/8 take SOURCES source addresses in turn; the kernel picks the port at
connect(2), when it knows both ends (IP_BIND_ADDRESS_NO_PORT). The message is sent right after
connect, which over loopback has nearly always ended by then. At most one read an event. The loop is
load/_loop_py.py.
Cost: a connection takes the load about twice the work it takes the server, so the server is seldom
saturated: compare processor time a connection, not connections a second.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence

from fastnet.limits import READ_BYTES
from fastnet.load._loop_py import LoadLoop
from fastnet.load.contract import PATTERN_PERIOD, SOURCES, LoadPlan, Tally, source_address
from fastnet.load.pattern import first_offset

IP_BIND_ADDRESS_NO_PORT = 24


class ChurnClient:
    """Makes one connection after another."""

    __slots__ = (
        "half_closed",
        "moved_ns",
        "offset",
        "quota",
        "socket",
        "started_ns",
        "unread",
        "unsent",
    )

    def __init__(self, offset: int, quota: int) -> None:
        self.socket: socket.socket | None = None
        """None between connections."""
        self.half_closed = False
        self.offset = offset
        """Of its next message in the pattern."""
        self.quota = quota
        """Connections it may still make."""
        self.unread = 0
        """Bytes of this message that have not come back."""
        self.unsent = 0
        """Bytes of this message not sent yet."""
        self.started_ns = 0
        """Before socket(2)."""
        self.moved_ns = 0
        """Last time a byte moved in either direction."""


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    return ChurnLoad(connections[0], plan, pattern).run(on_edge)


class ChurnLoad(LoadLoop):
    """All clients of one exchange."""

    def __init__(self, model: socket.socket, plan: LoadPlan, pattern: bytes) -> None:
        super().__init__(plan, pattern)
        self.family = model.family
        self.target = model.getpeername()
        self.many_sources = self.family == socket.AF_INET and self.target[0].startswith("127.")
        self.connects = 0
        """Attempts."""
        self.clients = [
            ChurnClient(first_offset(i), plan.share(i)) for i in range(plan.connections)
        ]
        self.idle: list[ChurnClient] = []
        """Clients without a connection that have a quota."""
        self.by_fd: dict[int, ChurnClient] = {}

    def close(self) -> None:
        for client in self.by_fd.values():
            if client.socket is not None:
                client.socket.close()
        super().close()

    def start_all(self) -> None:
        self.idle += [client for client in self.clients if client.quota]

    def reopen(self) -> None:
        while self.idle and not self.draining:
            self.start_connection(self.idle.pop())

    def enforce_deadlines(self) -> None:
        for client in list(self.by_fd.values()):
            if self.now_ns - client.moved_ns > self.stall_ns:
                self.tally.stalled += 1
                self.end_connection(client)

    def open_socket(self) -> socket.socket:
        """A connection that is made or being made. Raises OSError."""
        sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.many_sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source_address(self.connects % SOURCES), 0))
            self.connects += 1
            sock.connect(self.target)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        return sock

    def start_connection(self, client: ChurnClient) -> None:
        """Connect, and send immediately if that is possible. A refused client makes no other."""
        client.started_ns = client.moved_ns = time.monotonic_ns()
        client.unsent = client.unread = self.message_bytes
        client.half_closed = False
        client.quota -= 1
        try:
            client.socket = self.open_socket()
        except OSError:
            self.tally.refused += 1
            return
        self.pending += 1
        self.by_fd[client.socket.fileno()] = client
        self.epoll.register(client.socket, select.EPOLLIN | select.EPOLLOUT)
        self.send_message(client)

    def visit(self, fd: int, events: int) -> None:
        client = self.by_fd[fd]
        if client.unsent:
            self.send_message(client)
        if client.socket is not None and client.unsent < self.message_bytes:
            self.receive(client)

    def send_message(self, client: ChurnClient) -> None:
        """Write once; half-close when all is sent."""
        assert client.socket is not None
        start = (client.offset + self.message_bytes - client.unsent) % PATTERN_PERIOD
        size = min(client.unsent, len(self.pattern) - start)
        try:
            n = client.socket.send(self.pattern[start : start + size])
        except BlockingIOError:
            return
        except OSError:
            self.fail_connection(client)
            return
        client.unsent -= n
        client.moved_ns = time.monotonic_ns()
        if not client.unsent:
            self.epoll.modify(client.socket, select.EPOLLIN)
            client.half_closed = True
            try:
                client.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.fail_connection(client)

    def receive(self, client: ChurnClient) -> None:
        """Read once, check; the end of the stream in the right place ends the connection."""
        assert client.socket is not None
        try:
            data = client.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.fail_connection(client)
            return
        self.received()
        client.moved_ns = self.now_ns
        n = len(data)
        if not n:
            self.finish_connection(client)
            return
        start = (client.offset + self.message_bytes - client.unread) % PATTERN_PERIOD
        if n > client.unread - client.unsent or data != self.pattern[start : start + n]:
            self.tally.mismatches += 1
            self.end_connection(client)
            return
        client.unread -= n

    def finish_connection(self, client: ChurnClient) -> None:
        """The peer has sent FIN. If it owes nothing, the next connection may start."""
        if client.unread or not client.half_closed:
            self.fail_connection(client)
            return
        self.end_connection(client)
        if not self.draining:
            self.tally.messages += 1
            self.tally.bytes += self.message_bytes
            self.tally.latency_ns.record(self.now_ns - client.started_ns, 1)
        client.offset = (client.offset + self.message_bytes) % PATTERN_PERIOD
        if client.quota:
            self.idle.append(client)

    def fail_connection(self, client: ChurnClient) -> None:
        """An error: refused if nothing had been sent, else lost."""
        if client.unsent == self.message_bytes:
            self.tally.refused += 1
        else:
            self.tally.lost += 1
        self.end_connection(client)

    def end_connection(self, client: ChurnClient) -> None:
        assert client.socket is not None
        del self.by_fd[client.socket.fileno()]
        client.socket.close()
        client.socket = None
        self.pending -= 1
