"""Closed-loop load: a new message starts when one has come back. Pure Python.

Facts. Echoes of pipelined messages arrive joined; one read may end several messages and a part of
the next.
Consequence: messages are counted by bytes, and all that one read ended are started again with one
write.
Decision: one epoll(7), level-triggered; per event one read and, when something is to be sent, one
write, so that long messages of one connection cannot keep the others waiting. Reading goes on while
a write is stuck, so two full socket buffers never wait for each other.
Cost: Python's own few microseconds a message; this twin is the specification of closed_c, not the
means to find a native server's top speed.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from fastnet.limits import EVENTS_PER_WAIT, READ_BYTES, TICK_S
from fastnet.load.contract import NS_PER_S, PATTERN_PERIOD, LoadPlan, Tally
from fastnet.load.pattern import first_place

NEVER = 2**63 - 1


class Connection:
    """One stream. Places are positions in the pattern; unread bytes were sent and have not come
    back.
    """

    __slots__ = (
        "armed",
        "half_closed",
        "moved_ns",
        "open",
        "part",
        "quota",
        "read_place",
        "send_place",
        "socket",
        "starts",
        "unread",
        "unsent",
    )

    def __init__(self, connected: socket.socket, place: int, quota: int) -> None:
        self.socket = connected
        self.read_place = self.send_place = place
        self.quota = quota
        self.starts: deque[list[int]] = deque()
        self.part = self.unread = self.unsent = self.moved_ns = 0
        self.armed = self.half_closed = False
        self.open = True


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    load = ClosedLoad(connections, plan, pattern)
    try:
        if plan.warmup_s:
            load.start_all()
            load.run(time.monotonic_ns() + round(plan.warmup_s * NS_PER_S))
        on_edge()
        opened_ns = load.open_window()
        if not plan.warmup_s:
            load.start_all()
        load.run(opened_ns + round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
        load.close_window(opened_ns)
        on_edge()
        load.half_close_all()
        load.run(NEVER)
    finally:
        load.poll.close()
    return load.tally


class ClosedLoad:
    """All connections of one exchange; belongs to one thread."""

    def __init__(
        self, connections: Sequence[socket.socket], plan: LoadPlan, pattern: bytes
    ) -> None:
        self.tally = Tally()
        self.pattern = memoryview(pattern)
        self.message_bytes = plan.message_bytes
        self.in_flight = plan.in_flight
        self.stall_ns = round(plan.stall_s * NS_PER_S)
        self.tick_ns = round(TICK_S * NS_PER_S)
        self.busy_poll_ns = plan.busy_poll_us * 1000
        self.spin_until_ns = 0
        self.draining = False
        self.now_ns = self.next_tick_ns = 0
        self.open = self.exchanging = len(connections)
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        for number, connected in enumerate(connections):
            self.connections[connected.fileno()] = Connection(
                connected, first_place(number), plan.share(number)
            )
            self.poll.register(connected, select.EPOLLIN)

    def start_all(self) -> None:
        self.now_ns = time.monotonic_ns()
        for c in self.connections.values():
            c.moved_ns = self.now_ns
            if c.quota:
                self.start(c, self.in_flight)
                self.send(c)
            else:
                self.half_close(c)

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

    def half_close_all(self) -> None:
        self.draining = True
        for c in self.connections.values():
            if c.open and not c.half_closed:
                c.unsent = 0
                self.half_close(c)

    def run(self, until_ns: int) -> None:
        """Serve events until the time has come or no connection has anything left to do."""
        while self.turn(until_ns):
            self.end_stalled()

    def turn(self, until_ns: int) -> bool:
        """Returns after a tick (True) or when the phase is over (False)."""
        while True:
            self.now_ns = time.monotonic_ns()
            if self.now_ns >= until_ns or not (self.open if self.draining else self.exchanging):
                return False
            if self.now_ns >= self.next_tick_ns:
                self.next_tick_ns = self.now_ns + self.tick_ns
                return True
            wait_ns = (
                0
                if self.now_ns < self.spin_until_ns
                else min(self.next_tick_ns, until_ns) - self.now_ns
            )
            ready = self.poll.poll(wait_ns / NS_PER_S, EVENTS_PER_WAIT)
            if ready:
                self.spin_until_ns = self.now_ns + self.busy_poll_ns
            for descriptor, events in ready:
                self.visit(self.connections[descriptor], events)
                if self.now_ns >= until_ns:
                    return False

    def end_stalled(self) -> None:
        for c in self.connections.values():
            if c.open and self.now_ns - c.moved_ns > self.stall_ns:
                self.tally.stalled += 1
                self.end(c)

    def visit(self, c: Connection, events: int) -> None:
        if events & ~select.EPOLLOUT and not self.receive(c):
            return
        if c.unsent and (not c.armed or events & select.EPOLLOUT):
            self.send(c)
        elif not (c.quota or c.unsent or c.unread or c.half_closed):
            self.half_close(c)

    def receive(self, c: Connection) -> bool:
        """Read once, check and count. Returns whether the connection goes on."""
        try:
            data = c.socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return self.lose(c)
        self.now_ns = c.moved_ns = time.monotonic_ns()
        n = len(data)
        if not n:
            if not c.half_closed or c.unread:
                return self.lose(c)
            self.end(c)
            return False
        if n > c.unread or data != self.pattern[c.read_place : c.read_place + n]:
            self.tally.mismatches += 1
            self.end(c)
            return False
        c.read_place = (c.read_place + n) % PATTERN_PERIOD
        c.unread -= n
        if not self.draining:
            self.credit(c, n)
        return True

    def credit(self, c: Connection, n: int) -> None:
        """Count the messages that n right bytes have ended and start as many."""
        self.tally.bytes += n
        done, c.part = divmod(c.part + n, self.message_bytes)
        if not done:
            return
        self.tally.messages += done
        left = done
        while left:
            started = c.starts[0]
            ended = min(left, started[1])
            self.tally.latency_ns.record(self.now_ns - started[0], ended)
            started[1] -= ended
            left -= ended
            if not started[1]:
                c.starts.popleft()
        self.start(c, done)

    def start(self, c: Connection, count: int) -> None:
        count = min(count, c.quota)
        if count:
            c.quota -= count
            c.unsent += count * self.message_bytes
            c.starts.append([self.now_ns, count])

    def send(self, c: Connection) -> None:
        """Write once; ask for EPOLLOUT exactly while something is left."""
        size = min(c.unsent, len(self.pattern) - c.send_place)
        try:
            n = c.socket.send(self.pattern[c.send_place : c.send_place + size])
        except BlockingIOError:
            n = 0
        except OSError:
            self.lose(c)
            return
        c.send_place = (c.send_place + n) % PATTERN_PERIOD
        c.unsent -= n
        c.unread += n
        if n:
            c.moved_ns = self.now_ns
        self.arm(c, c.unsent > 0)

    def arm(self, c: Connection, writable: bool) -> None:
        if c.armed != writable:
            c.armed = writable
            self.poll.modify(c.socket, select.EPOLLIN | (select.EPOLLOUT if writable else 0))

    def half_close(self, c: Connection) -> None:
        """All is sent. A peer that is gone by now is found by the next read."""
        self.arm(c, False)
        self.shutdown(c, socket.SHUT_WR)
        c.half_closed = True
        self.exchanging -= 1

    def lose(self, c: Connection) -> bool:
        self.tally.lost += 1
        self.end(c)
        return False

    def end(self, c: Connection) -> None:
        """Take the connection out of the loop. Its owner closes it."""
        self.poll.unregister(c.socket)
        self.shutdown(c, socket.SHUT_RDWR)
        c.open = False
        self.open -= 1
        self.exchanging -= not c.half_closed

    def shutdown(self, c: Connection, how: int) -> None:
        try:
            c.socket.shutdown(how)
        except OSError:
            return  # the peer's RST came first
