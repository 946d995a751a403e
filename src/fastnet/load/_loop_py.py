"""Event loop shared by the pure load generators: phases, epoll(7), tally.

Facts. The phases of a load are warm-up, window and drain. The generators differ in what one
readable connection means, and in nothing else that a loop does.
Decision: a generator is a subclass with a handful of hooks; phases, waiting, busy polling and ticks
stand here once. The native twin is load/_loop_c.pxd, function for function.
Cost: Python's own few microseconds a message.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from fastnet.limits import EVENTS_PER_WAIT, TICK_S
from fastnet.load.contract import NS_PER_S, LoadPlan, Tally

NEVER = 2**63 - 1
"""A deadline that does not come."""


class LoadLoop:
    """One exchange; belongs to one thread. A subclass overrides the hooks."""

    def __init__(self, plan: LoadPlan, pattern: bytes) -> None:
        self.tally = Tally()
        self.plan = plan
        self.pattern = memoryview(pattern)
        self.message_bytes = plan.message_bytes
        self.stall_ns = round(plan.stall_s * NS_PER_S)
        self.tick_ns = round(TICK_S * NS_PER_S)
        self.busy_poll_ns = plan.busy_poll_us * 1000
        self.busy_poll_until_ns = 0
        self.now_ns = self.next_tick_ns = 0
        self.draining = False
        """The window is closed: no message is started or counted."""
        self.pending = 0
        """Connections or datagrams that the phase waits for; at 0 it is over."""
        self.epoll = select.epoll()

    def start_all(self) -> None:
        """Start the first messages of every connection."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Before each wait: open connections anew. Here they stay open."""

    def visit(self, fd: int, events: int) -> None:
        """One connection is ready: at most one read and one write."""
        raise NotImplementedError

    def enforce_deadlines(self) -> None:
        """Once a tick: end connections that stalled, give up datagrams that were lost."""
        raise NotImplementedError

    def drain(self) -> None:
        """The window is closed, `draining` is set: half-close. Here nothing is to be done."""

    def close(self) -> None:
        """Close what the generator has opened."""
        self.epoll.close()

    def run(self, on_edge: Callable[[], None]) -> Tally:
        """Warm-up, window and drain; then everything is closed."""
        plan, tally = self.plan, self.tally
        try:
            if plan.warmup_s:
                self.start_all()
                self.run_until(time.monotonic_ns() + round(plan.warmup_s * NS_PER_S))
            on_edge()
            self.reset()
            cpu_ns = time.thread_time_ns()
            opened_ns = self.now_ns = time.monotonic_ns()
            if not plan.warmup_s:
                self.start_all()
            self.run_until(opened_ns + round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
            tally.window_ns = self.now_ns - opened_ns
            tally.cpu_ns = time.thread_time_ns() - cpu_ns
            on_edge()
            self.draining = True
            self.drain()
            self.run_until(NEVER)
        finally:
            self.close()
        return tally

    def reset(self) -> None:
        """Discard what the warm-up has counted; its faults stay counted."""
        self.tally.messages = self.tally.bytes = 0
        self.tally.latency_ns.reset()

    def run_until(self, until_ns: int) -> None:
        """Handle events until the deadline, or until nothing is pending."""
        while self.handle_events(until_ns):
            self.enforce_deadlines()

    def handle_events(self, until_ns: int) -> bool:
        """Returns True after a tick, False when the phase is over."""
        while True:
            self.now_ns = time.monotonic_ns()
            self.reopen()
            if self.now_ns >= until_ns or not self.pending:
                return False
            if self.now_ns >= self.next_tick_ns:
                self.next_tick_ns = self.now_ns + self.tick_ns
                return True
            for fd, events in self.epoll.poll(self.timeout_s(until_ns), EVENTS_PER_WAIT):
                self.visit(fd, events)
                if self.now_ns >= until_ns:
                    return False

    def timeout_s(self, until_ns: int) -> float:
        """How long epoll_wait(2) may block; 0 while busy polling."""
        if self.now_ns < self.busy_poll_until_ns:
            return 0.0
        return (min(self.next_tick_ns, until_ns) - self.now_ns) / NS_PER_S

    def received(self) -> None:
        """Something was read: take the time, and busy-poll from now on."""
        self.now_ns = time.monotonic_ns()
        self.busy_poll_until_ns = self.now_ns + self.busy_poll_ns
