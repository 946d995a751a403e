"""Closed-loop load: a message is sent when one has come back. Pure Python.

Facts. Echoes of pipelined messages arrive joined; one read may end several messages and a part of
the next.
Consequence: messages are counted by bytes, and all that one read ended are started again with one
write.
Decision: per event one read and, when something is to be sent, one write, so that long messages of
one connection cannot delay the others. Reading continues while a write is blocked, so two full
socket buffers never wait for each other. The loop is load/_loop_py.py.
Cost: Python's own few microseconds a message; this twin is the specification of closed_c, not the
means to find a native server's top speed.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from fastnet.limits import READ_BYTES
from fastnet.load._loop_py import LoadLoop
from fastnet.load.contract import PATTERN_PERIOD, LoadPlan, Tally
from fastnet.load.pattern import first_offset


class EchoConnection:
    """One stream, measured against the pattern."""

    __slots__ = (
        "batches",
        "half_closed",
        "moved_ns",
        "open",
        "partial",
        "quota",
        "read_offset",
        "send_offset",
        "socket",
        "unread",
        "unsent",
        "watches_writable",
    )

    def __init__(self, connected: socket.socket, offset: int, quota: int) -> None:
        self.socket = connected
        self.open = True
        self.watches_writable = False
        """EPOLLOUT is set."""
        self.half_closed = False
        self.read_offset = self.send_offset = offset
        """Of the next byte in the pattern."""
        self.quota = quota
        """Messages it may still start."""
        self.unread = 0
        """Bytes sent that have not come back."""
        self.unsent = 0
        """Bytes of started messages not sent yet."""
        self.partial = 0
        """Bytes read of the message that has not ended."""
        self.moved_ns = 0
        """Last time a byte moved in either direction."""
        self.batches: deque[list[int]] = deque()
        """Messages that were started together and have not come back: when, how many."""


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    return ClosedLoad(connections, plan, pattern).run(on_edge)


class ClosedLoad(LoadLoop):
    """All connections of one exchange."""

    def __init__(
        self, connections: Sequence[socket.socket], plan: LoadPlan, pattern: bytes
    ) -> None:
        super().__init__(plan, pattern)
        self.in_flight = plan.in_flight
        self.open = self.pending = len(connections)
        self.connections: dict[int, EchoConnection] = {}
        for number, connected in enumerate(connections):
            self.connections[connected.fileno()] = EchoConnection(
                connected, first_offset(number), plan.share(number)
            )
            self.epoll.register(connected, select.EPOLLIN)

    def start_all(self) -> None:
        self.now_ns = time.monotonic_ns()
        for c in self.connections.values():
            c.moved_ns = self.now_ns
            if c.quota:
                self.start_messages(c, self.in_flight)
                self.send_messages(c)
            else:
                self.half_close(c)

    def drain(self) -> None:
        for c in self.connections.values():
            if c.open and not c.half_closed:
                c.unsent = 0
                self.half_close(c)
        self.pending = self.open

    def enforce_deadlines(self) -> None:
        for c in self.connections.values():
            if c.open and self.now_ns - c.moved_ns > self.stall_ns:
                self.tally.stalled += 1
                self.end_connection(c)

    def visit(self, fd: int, events: int) -> None:
        c = self.connections[fd]
        if events & ~select.EPOLLOUT and not self.receive(c):
            return
        if c.unsent and (not c.watches_writable or events & select.EPOLLOUT):
            self.send_messages(c)
        elif not (c.quota or c.unsent or c.unread or c.half_closed):
            self.half_close(c)

    def receive(self, c: EchoConnection) -> bool:
        """Read once, check and count. Returns whether the connection is still open."""
        try:
            data = c.socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return self.lose_connection(c)
        self.received()
        c.moved_ns = self.now_ns
        n = len(data)
        if not n:
            if not c.half_closed or c.unread:
                return self.lose_connection(c)
            self.end_connection(c)
            return False
        if n > c.unread or data != self.pattern[c.read_offset : c.read_offset + n]:
            self.tally.mismatches += 1
            self.end_connection(c)
            return False
        c.read_offset = (c.read_offset + n) % PATTERN_PERIOD
        c.unread -= n
        if not self.draining:
            self.count_messages(c, n)
        return True

    def count_messages(self, c: EchoConnection, n: int) -> None:
        """Count the messages that n correct bytes have ended and start as many."""
        self.tally.bytes += n
        done, c.partial = divmod(c.partial + n, self.message_bytes)
        if not done:
            return
        self.tally.messages += done
        left = done
        while left:
            batch = c.batches[0]
            ended = min(left, batch[1])
            self.tally.latency_ns.record(self.now_ns - batch[0], ended)
            batch[1] -= ended
            left -= ended
            if not batch[1]:
                c.batches.popleft()
        self.start_messages(c, done)

    def start_messages(self, c: EchoConnection, count: int) -> None:
        count = min(count, c.quota)
        if count:
            c.quota -= count
            c.unsent += count * self.message_bytes
            c.batches.append([self.now_ns, count])

    def send_messages(self, c: EchoConnection) -> None:
        """Write once; watch EPOLLOUT exactly while something is left."""
        size = min(c.unsent, len(self.pattern) - c.send_offset)
        try:
            n = c.socket.send(self.pattern[c.send_offset : c.send_offset + size])
        except BlockingIOError:
            n = 0
        except OSError:
            self.lose_connection(c)
            return
        c.send_offset = (c.send_offset + n) % PATTERN_PERIOD
        c.unsent -= n
        c.unread += n
        if n:
            c.moved_ns = self.now_ns
        self.watch_writable(c, c.unsent > 0)

    def watch_writable(self, c: EchoConnection, writable: bool) -> None:
        if c.watches_writable != writable:
            c.watches_writable = writable
            self.epoll.modify(c.socket, select.EPOLLIN | (select.EPOLLOUT if writable else 0))

    def half_close(self, c: EchoConnection) -> None:
        """All is sent. The next read finds a peer that has closed by now."""
        self.watch_writable(c, False)
        self.shutdown(c, socket.SHUT_WR)
        c.half_closed = True
        if not self.draining:
            self.pending -= 1

    def lose_connection(self, c: EchoConnection) -> bool:
        self.tally.lost += 1
        self.end_connection(c)
        return False

    def end_connection(self, c: EchoConnection) -> None:
        """Remove the connection from the loop. Its owner closes it."""
        self.epoll.unregister(c.socket)
        self.shutdown(c, socket.SHUT_RDWR)
        c.open = False
        self.open -= 1
        if self.draining or not c.half_closed:
            self.pending -= 1

    def shutdown(self, c: EchoConnection, how: int) -> None:
        try:
            c.socket.shutdown(how)
        except OSError:
            return  # the peer's RST came first
