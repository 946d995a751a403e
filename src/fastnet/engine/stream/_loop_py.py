"""The loop of every pure engine that waits for readiness; the poller that waits is the engine's own
file.

The twin of engine/stream/_loop_c.pxd, which has the argument, function for function. One
difference: connections are found by descriptor, so a batch serves them before it accepts, and no
number can change hands within the batch.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Protocol

from fastnet.engine.context import LoopContext
from fastnet.engine.stop import NOW, RUN
from fastnet.engine.stream._accept_py import Pause, Retry, accept, now_ms, shut
from fastnet.engine.stream._connection_py import (
    READS,
    WRITES,
    Closed,
    Connection,
    Stream,
    socket_closed,
)
from fastnet.metrics.connection_log import ConnectionRecord
from fastnet.metrics.counters import (
    ACCEPT_PAUSES,
    BUSY_POLL_HITS,
    BUSY_POLL_MISSES,
    IDLE,
    REFUSED,
    STOPPED,
)

HANGUP = 4
"""With READS and WRITES, what a poller reports: an error or the end in both directions."""


class Poller(Protocol):
    """What differs between the engines."""

    def watch(self, fd: int, before: int, wants: int) -> None:
        """Change what fd is watched for. Raises OSError or ValueError if it cannot be."""

    def forget(self, fd: int) -> None:
        """fd is about to be closed."""

    def wait(self, room: int, timeout_ms: int) -> list[tuple[int, int]]:
        """Wait for up to room descriptors with READS, WRITES and HANGUP. timeout_ms: -1 for
        ever.
        """


class Loop:
    def __init__(self, context: LoopContext, poller: Poller) -> None:
        self.context = context
        self.poller = poller
        self.stream = Stream(context)
        self.listeners = {listener.fileno(): listener for listener in context.listeners}
        self.accepting = self.draining = self.swept = False
        self.rest_over_ms: int | None = None
        self.sweep = 0

    def set_accepting(self, accepting: bool) -> None:
        """Watch all listeners, or none."""
        if self.accepting == accepting or self.swept:
            return
        self.accepting = accepting
        for fd in self.listeners:
            self.poller.watch(fd, 0 if accepting else READS, READS if accepting else 0)

    def end(self, conn: Connection, why: int) -> None:
        self.poller.forget(conn.fd)
        self.stream.close(conn, why)

    def settle(self, conn: Connection) -> None:
        """After a turn: watch for what the connection waits for now."""
        wants = self.stream.wants(conn)
        if wants == conn.watched:
            return
        try:
            self.poller.watch(conn.fd, conn.watched, wants)
        except (OSError, ValueError):
            raise Closed(REFUSED) from None
        conn.watched = wants

    def begin(self, sock: socket.socket, peer: Any) -> None:
        """Give an accepted connection a slot and its first turn."""
        conn = Connection(sock)
        sock.setblocking(False)
        self.stream.connections[conn.fd] = conn
        self.stream.touch(conn)
        if self.context.trace_fd >= 0:
            conn.trace = ConnectionRecord(sock, peer)
        try:
            self.stream.open(conn)
            self.settle(conn)
        except Closed as closed:
            self.end(conn, closed.why)

    def is_full(self) -> bool:
        return len(self.stream.connections) >= self.context.limits.max_connections

    def accept_some(self, listener: socket.socket, most: int) -> bool:
        """Accept up to `most`. True if nobody waits any more, False if somebody may."""
        for _ in range(most):
            if self.is_full():
                if self.accepting:
                    self.stream.row[ACCEPT_PAUSES] += 1
                self.set_accepting(False)
                return False
            try:
                self.begin(*accept(self.context, listener, self.stream.row))
            except Retry:
                continue
            except Pause:
                self.rest_over_ms = now_ms() + int(self.context.limits.accept_pause_s * 1000)
                self.set_accepting(False)
                return False
            except BlockingIOError:
                return True
            except OSError:
                if self.context.stop.state == RUN:
                    raise
                return True  # another loop shut the shared listener down
        return False

    def resume_accepting(self) -> None:
        """Watch the listeners again once the reason for the pause is over."""
        if self.accepting or self.is_full():
            return
        if self.rest_over_ms is not None and self.rest_over_ms > self.stream.now_ms:
            return
        self.rest_over_ms = None
        self.set_accepting(True)

    def turn(self, conn: Connection, ready: int) -> None:
        """One connection's turn."""
        try:
            if ready & WRITES:
                self.stream.write(conn)
            if ready & (READS | HANGUP):
                if self.stream.wants(conn) & READS:
                    self.stream.read(conn)
                elif ready & HANGUP:
                    raise socket_closed(conn.sock)
            self.settle(conn)
        except Closed as closed:
            self.end(conn, closed.why)

    def drain(self) -> bool:
        """Once asked to stop: take what is queued, then shut the listeners. True when the loop is
        done.
        """
        if not self.draining:
            self.draining, self.sweep = True, self.context.limits.accept_drain_max
            self.poller.watch(self.context.stop.drain_fd, READS, 0)
            self.poller.watch(self.context.stop.now_fd, 0, READS)
        if self.context.stop.state == NOW:
            return True
        if not self.swept and self.rest_over_ms is None and not self.is_full():
            burst = self.context.limits.accept_burst
            emptied = [self.accept_some(listener, burst) for listener in self.context.listeners]
            self.sweep -= burst
            if all(emptied) or self.sweep <= 0:
                self.set_accepting(False)
                self.swept = True
                shut(self.context)
        return self.swept and not self.stream.connections

    def patience_ms(self) -> int:
        """Close what has been idle too long. Returns how long the poller may wait until the next
        connection has been, or accepting has rested; -1 for ever."""
        overdue, due = self.stream.overdue()
        while overdue is not None:
            self.end(overdue, IDLE)
            overdue, due = self.stream.overdue()
        if self.rest_over_ms is not None:
            rest = max(0, self.rest_over_ms - self.stream.now_ms)
            due = rest if due < 0 or rest < due else due
        return due

    def wait(self, timeout_ms: int) -> list[tuple[int, int]]:
        """Wait for events; first without sleeping, for as long as busy polling allows."""
        limits = self.context.limits
        if limits.busy_poll_us and timeout_ms:
            until_ns = time.monotonic_ns() + limits.busy_poll_us * 1000
            while True:
                if events := self.poller.wait(limits.events_per_wait, 0):
                    self.stream.row[BUSY_POLL_HITS] += 1
                    return events
                if time.monotonic_ns() >= until_ns:
                    break
            self.stream.row[BUSY_POLL_MISSES] += 1
        return self.poller.wait(limits.events_per_wait, timeout_ms)

    def serve(self) -> None:
        """Serve until stopped."""
        self.poller.watch(self.context.stop.drain_fd, 0, READS)
        self.set_accepting(True)
        while True:
            events = self.wait(self.patience_ms())
            self.stream.now_ms = now_ms()
            knocking = []
            for fd, ready in events:
                if (conn := self.stream.connections.get(fd)) is not None:
                    self.turn(conn, ready)
                elif fd in self.listeners:
                    knocking.append(self.listeners[fd])
            for listener in knocking:
                if self.accepting:
                    self.accept_some(listener, self.context.limits.accept_burst)
            if self.context.stop.state != RUN and self.drain():
                return
            self.resume_accepting()


def run_loop(context: LoopContext, poller: Poller) -> None:
    """Serve, and close whatever is still open."""
    loop = Loop(context, poller)
    try:
        loop.serve()
    finally:
        for conn in list(loop.stream.connections.values()):
            loop.end(conn, STOPPED)
