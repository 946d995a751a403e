"""A connection for each message: connect, send, half-close, read the echo to its end, close. Pure
Python.

Facts. Who closes first keeps the connection in TIME_WAIT for a minute (RFC 9293, 3.6.1), and here
that is the load: a source address has some 28,000 ports, fewer than a fast server serves in two
seconds. Over loopback every address of 127/8 is ours.
Decision: connections to 127/8 take SOURCES source addresses in turn; the kernel picks the port at
connect(2), when it knows both ends (IP_BIND_ADDRESS_NO_PORT). The message is sent right after
connect, which over loopback has nearly always ended by then. One epoll(7), level-triggered; at most
one read an event.
Cost: a connection takes the load about twice the work it takes the server, so the server is seldom
saturated: compare processor time a connection, not connections a second.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence

from fastnet.limits import EVENTS_PER_WAIT, READ_BYTES, TICK_S
from fastnet.load.contract import NS_PER_S, PATTERN_PERIOD, SOURCES, LoadPlan, Tally, source_address
from fastnet.load.pattern import first_place

NEVER = 2**63 - 1
IP_BIND_ADDRESS_NO_PORT = 24


class Visitor:
    """One connection after another. place: of its next message in the pattern; unread: bytes still
    owed of this one.
    """

    __slots__ = (
        "half_closed",
        "moved_ns",
        "place",
        "quota",
        "socket",
        "started_ns",
        "unread",
        "unsent",
    )

    def __init__(self, place: int, quota: int) -> None:
        self.place = place
        self.quota = quota
        self.socket: socket.socket | None = None
        self.started_ns = self.moved_ns = self.unread = self.unsent = 0
        self.half_closed = False


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    load = ChurnLoad(connections[0], plan, pattern)
    try:
        if plan.warmup_s:
            load.run(time.monotonic_ns() + round(plan.warmup_s * NS_PER_S))
        on_edge()
        opened_ns = load.open_window()
        load.run(opened_ns + round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
        load.close_window(opened_ns)
        on_edge()
        load.draining = True
        load.run(NEVER)
    finally:
        load.close()
    return load.tally


class ChurnLoad:
    """All visitors of one exchange; belongs to one thread."""

    def __init__(self, model: socket.socket, plan: LoadPlan, pattern: bytes) -> None:
        self.tally = Tally()
        self.family = model.family
        self.target = model.getpeername()
        self.many_sources = self.family == socket.AF_INET and self.target[0].startswith("127.")
        self.pattern = memoryview(pattern)
        self.message_bytes = plan.message_bytes
        self.stall_ns = round(plan.stall_s * NS_PER_S)
        self.tick_ns = round(TICK_S * NS_PER_S)
        self.draining = False
        self.dials = 0
        self.now_ns = self.next_tick_ns = 0
        self.poll = select.epoll()
        self.visitors = [Visitor(first_place(i), plan.share(i)) for i in range(plan.connections)]
        self.idle = [visitor for visitor in self.visitors if visitor.quota]
        self.by_fd: dict[int, Visitor] = {}

    def close(self) -> None:
        for visitor in self.by_fd.values():
            if visitor.socket is not None:
                visitor.socket.close()
        self.poll.close()

    def open_window(self) -> int:
        """Forget the warm-up. Returns when the window opened."""
        self.tally.messages = self.tally.bytes = 0
        self.tally.latency_ns.reset()
        self.tally.cpu_ns = time.thread_time_ns()
        self.now_ns = time.monotonic_ns()
        return self.now_ns

    def close_window(self, opened_ns: int) -> None:
        self.tally.window_ns = self.now_ns - opened_ns
        self.tally.cpu_ns = time.thread_time_ns() - self.tally.cpu_ns

    def run(self, until_ns: int) -> None:
        """Serve events until the time has come or no visitor has anything left to do."""
        while True:
            self.now_ns = time.monotonic_ns()
            while self.idle and not self.draining:
                self.begin(self.idle.pop())
            if self.now_ns >= until_ns or not self.by_fd:
                return
            if self.now_ns >= self.next_tick_ns:
                self.next_tick_ns = self.now_ns + self.tick_ns
                self.end_stalled()
                continue
            wait_ns = min(self.next_tick_ns, until_ns) - self.now_ns
            for fd, _ in self.poll.poll(wait_ns / NS_PER_S, EVENTS_PER_WAIT):
                self.visit(self.by_fd[fd])

    def end_stalled(self) -> None:
        for visitor in list(self.by_fd.values()):
            if self.now_ns - visitor.moved_ns > self.stall_ns:
                self.tally.stalled += 1
                self.end(visitor)

    def begin(self, visitor: Visitor) -> None:
        """Connect, and send at once if that is decided at once. A refused visitor does not come
        again.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        visitor.started_ns = visitor.moved_ns = time.monotonic_ns()
        visitor.unsent = visitor.unread = self.message_bytes
        visitor.half_closed = False
        visitor.quota -= 1
        try:
            if self.many_sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source_address(self.dials % SOURCES), 0))
            self.dials += 1
            sock.connect(self.target)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            self.tally.refused += 1
            return
        visitor.socket = sock
        self.by_fd[sock.fileno()] = visitor
        self.poll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        self.send(visitor)

    def visit(self, visitor: Visitor) -> None:
        if visitor.unsent:
            self.send(visitor)
        if visitor.socket is not None and visitor.unsent < self.message_bytes:
            self.receive(visitor)

    def send(self, visitor: Visitor) -> None:
        """Write once; half-close when all is sent."""
        assert visitor.socket is not None
        start = (visitor.place + self.message_bytes - visitor.unsent) % PATTERN_PERIOD
        size = min(visitor.unsent, len(self.pattern) - start)
        try:
            n = visitor.socket.send(self.pattern[start : start + size])
        except BlockingIOError:
            return
        except OSError:
            self.fail(visitor)
            return
        visitor.unsent -= n
        visitor.moved_ns = time.monotonic_ns()
        if not visitor.unsent:
            self.poll.modify(visitor.socket, select.EPOLLIN)
            visitor.half_closed = True
            try:
                visitor.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.fail(visitor)

    def receive(self, visitor: Visitor) -> None:
        """Read once, check; the end of the stream in the right place ends the visit."""
        assert visitor.socket is not None
        try:
            data = visitor.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.fail(visitor)
            return
        visitor.moved_ns = self.now_ns = time.monotonic_ns()
        n = len(data)
        if not n:
            self.over(visitor)
            return
        start = (visitor.place + self.message_bytes - visitor.unread) % PATTERN_PERIOD
        if n > visitor.unread - visitor.unsent or data != self.pattern[start : start + n]:
            self.tally.mismatches += 1
            self.end(visitor)
            return
        visitor.unread -= n

    def over(self, visitor: Visitor) -> None:
        """The peer has ended. If it owes nothing, the next visit may begin."""
        if visitor.unread or not visitor.half_closed:
            self.fail(visitor)
            return
        self.end(visitor)
        if not self.draining:
            self.tally.messages += 1
            self.tally.bytes += self.message_bytes
            self.tally.latency_ns.record(self.now_ns - visitor.started_ns, 1)
        visitor.place = (visitor.place + self.message_bytes) % PATTERN_PERIOD
        if visitor.quota:
            self.idle.append(visitor)

    def fail(self, visitor: Visitor) -> None:
        """An error: it was refused if nothing had gone out, and lost if something had."""
        if visitor.unsent == self.message_bytes:
            self.tally.refused += 1
        else:
            self.tally.lost += 1
        self.end(visitor)

    def end(self, visitor: Visitor) -> None:
        assert visitor.socket is not None
        del self.by_fd[visitor.socket.fileno()]
        visitor.socket.close()
        visitor.socket = None
