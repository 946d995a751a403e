"""Closed-loop load of datagrams: one is sent when one is back or lost. Pure.

Facts. A datagram may be lost, duplicated or late, and no error reports it; a connected socket
receives datagrams of its peer alone.
Decision: each carries a sequence number, and that alone decides what the rest of it must be. A
window of `in_flight` numbers is kept on the network; the slot of a number is the number modulo the
window's size. What has not come back after LOST_S is lost, and if it comes later it is recognized
by its number. The loop is load/_loop_py.py.
Cost: the specification of datagrams_c, at Python's speed.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence

from fastnet.limits import READ_BYTES
from fastnet.load._loop_py import LoadLoop
from fastnet.load.contract import (
    LOST_S,
    NS_PER_S,
    PATTERN_PERIOD,
    SEQUENCE_BYTES,
    SEQUENCE_STEP,
    LoadPlan,
    Tally,
)
from fastnet.load.pattern import first_offset


class SendWindow:
    """One socket."""

    __slots__ = ("in_flight", "next", "offset", "open", "outstanding", "quota", "socket")

    def __init__(self, connected: socket.socket, offset: int, quota: int, slots: int) -> None:
        self.socket = connected
        self.open = True
        self.offset = offset
        """Of sequence number 0 in the pattern."""
        self.quota = quota
        """Datagrams it may still start."""
        self.outstanding = 0
        """Slots in flight."""
        self.in_flight: list[tuple[int, int] | None] = [None] * slots
        """By slot, the sequence number in flight and when it started, or None."""
        self.next = list(range(slots))
        """The number each slot takes next; one window further each time."""


def exchange(
    connections: Sequence[socket.socket],
    plan: LoadPlan,
    pattern: bytes,
    on_edge: Callable[[], None],
) -> Tally:
    return DatagramLoad(connections, plan, pattern).run(on_edge)


class DatagramLoad(LoadLoop):
    """All sockets of one exchange."""

    def __init__(
        self, connections: Sequence[socket.socket], plan: LoadPlan, pattern: bytes
    ) -> None:
        super().__init__(plan, pattern)
        self.in_flight = plan.in_flight
        self.lost_ns = round(LOST_S * NS_PER_S)
        self.windows: dict[int, SendWindow] = {}
        for number, connected in enumerate(connections):
            window = SendWindow(connected, first_offset(number), plan.share(number), plan.in_flight)
            self.windows[connected.fileno()] = window
            self.epoll.register(connected, select.EPOLLIN)

    def start_all(self) -> None:
        self.now_ns = time.monotonic_ns()
        for window in self.windows.values():
            for slot in range(self.in_flight):
                self.start_datagram(window, slot)

    def enforce_deadlines(self) -> None:
        for window in self.windows.values():
            for slot, datagram in enumerate(window.in_flight):
                if datagram is not None and self.now_ns - datagram[1] > self.lost_ns:
                    self.tally.lost += 1
                    self.free_slot(window, slot)
                    self.start_datagram(window, slot)

    def visit(self, fd: int, events: int) -> None:
        """Receive all that is queued and start as many."""
        window = self.windows[fd]
        while window.open:
            try:
                data = window.socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                return self.end_window(window)
            self.received()
            self.check_datagram(window, data)

    def free_slot(self, window: SendWindow, slot: int) -> None:
        window.in_flight[slot] = None
        window.outstanding -= 1
        self.pending -= 1

    def start_datagram(self, window: SendWindow, slot: int) -> None:
        """Send the next sequence number of a slot, if there is one to send."""
        if not window.quota or self.draining or not window.open:
            return
        sequence = window.next[slot]
        window.next[slot] += self.in_flight
        window.quota -= 1
        window.in_flight[slot] = (sequence, self.now_ns)
        window.outstanding += 1
        self.pending += 1
        try:
            window.socket.send(self.datagram_of(window, sequence))
        except BlockingIOError:
            pass  # the kernel has no room: as good as lost
        except OSError:
            self.end_window(window)

    def datagram_of(self, window: SendWindow, sequence: int) -> bytes:
        start = (window.offset + sequence * SEQUENCE_STEP) % PATTERN_PERIOD
        payload = self.pattern[start : start + self.message_bytes - SEQUENCE_BYTES]
        return sequence.to_bytes(SEQUENCE_BYTES, "little") + bytes(payload)

    def check_datagram(self, window: SendWindow, data: bytes) -> None:
        sequence = int.from_bytes(data[:SEQUENCE_BYTES], "little")
        slot = sequence % self.in_flight
        datagram = window.in_flight[slot]
        if data != self.datagram_of(window, sequence) or sequence >= window.next[slot]:
            self.tally.mismatches += 1
            return self.end_window(window)
        if datagram is None or datagram[0] != sequence:
            return None  # late, or duplicated by the network: it was counted once
        self.free_slot(window, slot)
        if not self.draining:
            self.tally.messages += 1
            self.tally.bytes += len(data)
            self.tally.latency_ns.record(self.now_ns - datagram[1], 1)
        return self.start_datagram(window, slot)

    def end_window(self, window: SendWindow) -> None:
        """The peer is gone, or its datagrams are wrong. What was in flight is lost."""
        window.open = False
        self.tally.lost += window.outstanding
        self.pending -= window.outstanding
        window.outstanding = 0
        window.in_flight = [None] * self.in_flight
        self.epoll.unregister(window.socket)
