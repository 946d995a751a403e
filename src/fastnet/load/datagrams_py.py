"""Closed-loop load of datagrams: another one starts when one has come back, or is given up for
lost.
Pure Python.

Facts. A datagram may be lost, doubled or late, and nobody says so; a connected socket takes
datagrams of its peer alone.
Decision: each carries its number, and that alone decides what the rest of it must be. A window of
`in_flight` numbers is kept on their way; the place of a number in it is the number modulo its size.
What has not come back after LOST_S is lost, and if it comes later it is known for what it is.
Cost: the specification of datagrams_c, at Python's speed.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence

from fastnet.limits import EVENTS_PER_WAIT, READ_BYTES, TICK_S
from fastnet.load.contract import (
    LOST_S,
    NS_PER_S,
    NUMBER_BYTES,
    NUMBERS_APART,
    PATTERN_PERIOD,
    LoadPlan,
    Tally,
)
from fastnet.load.pattern import first_place

NEVER = 2**63 - 1


class Window:
    """One socket. out: by place in the window, the number that is on its way and when it started,
    or None.
    """

    __slots__ = ("next", "open", "out", "outstanding", "place", "quota", "socket")

    def __init__(self, connected: socket.socket, place: int, quota: int, size: int) -> None:
        self.socket = connected
        self.place = place
        self.quota = quota
        self.out: list[tuple[int, int] | None] = [None] * size
        self.next = list(range(size))
        """The number each place takes next; one window further each time."""
        self.outstanding = 0
        self.open = True


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    load = DatagramLoad(connections, plan, pattern)
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
        load.draining = True
        load.run(NEVER)
    finally:
        load.poll.close()
    return load.tally


class DatagramLoad:
    """All sockets of one exchange; belongs to one thread."""

    def __init__(
        self, connections: Sequence[socket.socket], plan: LoadPlan, pattern: bytes
    ) -> None:
        self.tally = Tally()
        self.pattern = memoryview(pattern)
        self.message_bytes = plan.message_bytes
        self.in_flight = plan.in_flight
        self.lost_ns = round(LOST_S * NS_PER_S)
        self.tick_ns = round(TICK_S * NS_PER_S)
        self.busy_poll_ns = plan.busy_poll_us * 1000
        self.spin_until_ns = 0
        self.draining = False
        self.now_ns = self.next_tick_ns = 0
        self.poll = select.epoll()
        self.windows: dict[int, Window] = {}
        for number, connected in enumerate(connections):
            window = Window(connected, first_place(number), plan.share(number), plan.in_flight)
            self.windows[connected.fileno()] = window
            self.poll.register(connected, select.EPOLLIN)

    def start_all(self) -> None:
        self.now_ns = time.monotonic_ns()
        for window in self.windows.values():
            for place in range(self.in_flight):
                self.start(window, place)

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

    def busy(self) -> bool:
        return any(window.outstanding for window in self.windows.values())

    def run(self, until_ns: int) -> None:
        """Serve events until the time has come or nothing is on its way any more."""
        while True:
            self.now_ns = time.monotonic_ns()
            if self.now_ns >= until_ns or not self.busy():
                return
            if self.now_ns >= self.next_tick_ns:
                self.next_tick_ns = self.now_ns + self.tick_ns
                self.give_up_the_lost()
                continue
            wait_ns = (
                0
                if self.now_ns < self.spin_until_ns
                else min(self.next_tick_ns, until_ns) - self.now_ns
            )
            ready = self.poll.poll(wait_ns / NS_PER_S, EVENTS_PER_WAIT)
            if ready:
                self.spin_until_ns = self.now_ns + self.busy_poll_ns
            for fd, _ in ready:
                self.receive(self.windows[fd])
                if self.now_ns >= until_ns:
                    return

    def give_up_the_lost(self) -> None:
        for window in self.windows.values():
            for place, out in enumerate(window.out):
                if out is not None and self.now_ns - out[1] > self.lost_ns:
                    self.tally.lost += 1
                    self.free(window, place)
                    self.start(window, place)

    def free(self, window: Window, place: int) -> None:
        window.out[place] = None
        window.outstanding -= 1

    def start(self, window: Window, place: int) -> None:
        """Send the next number of a place, if there is one to send."""
        if not window.quota or self.draining or not window.open:
            return
        number = window.next[place]
        window.next[place] += self.in_flight
        window.quota -= 1
        window.out[place] = (number, self.now_ns)
        window.outstanding += 1
        try:
            window.socket.send(self.datagram(window, number))
        except BlockingIOError:
            pass  # no room: as good as lost
        except OSError:
            self.end(window)

    def datagram(self, window: Window, number: int) -> bytes:
        start = (window.place + number * NUMBERS_APART) % PATTERN_PERIOD
        rest = self.pattern[start : start + self.message_bytes - NUMBER_BYTES]
        return number.to_bytes(NUMBER_BYTES, "little") + bytes(rest)

    def receive(self, window: Window) -> None:
        """Take all that is there and start as many."""
        while window.open:
            try:
                data = window.socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                return self.end(window)
            self.now_ns = time.monotonic_ns()
            self.check(window, data)

    def check(self, window: Window, data: bytes) -> None:
        number = int.from_bytes(data[:NUMBER_BYTES], "little")
        place = number % self.in_flight
        out = window.out[place]
        if data != self.datagram(window, number) or number >= window.next[place]:
            self.tally.mismatches += 1
            return self.end(window)
        if out is None or out[0] != number:
            return None  # late, or doubled on the way: it was counted once
        self.free(window, place)
        if not self.draining:
            self.tally.messages += 1
            self.tally.bytes += len(data)
            self.tally.latency_ns.record(self.now_ns - out[1], 1)
        return self.start(window, place)

    def end(self, window: Window) -> None:
        """Nobody is there, or a liar is. What was on its way is lost."""
        window.open = False
        self.tally.lost += window.outstanding
        window.outstanding = 0
        window.out = [None] * self.in_flight
        self.poll.unregister(window.socket)
