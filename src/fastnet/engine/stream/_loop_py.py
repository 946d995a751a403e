"""Readiness loop of the pure epoll and select engines; each engine adds its poller.

The pure twin of _loop_c.pxd, which has the argument, function for function. One difference is
essential: connections are found by descriptor, so a batch handles them before it accepts, and no
descriptor number can be reused within the batch.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Protocol

from fastnet.engine.context import LoopContext
from fastnet.engine.stop import NOW, RUN
from fastnet.engine.stream._accept_py import (
    AcceptAborted,
    AcceptExhausted,
    accept_one,
    now_ms,
    shutdown_listeners,
)
from fastnet.engine.stream._connection_py import (
    READ_INTEREST,
    WRITE_INTEREST,
    Closed,
    Connection,
    ConnectionSet,
    socket_error,
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
"""With READ_INTEREST and WRITE_INTEREST, what a poller reports: an error, or the end of both
directions."""


class Poller(Protocol):
    """What differs between the engines."""

    def watch(self, fd: int, before: int, interest: int) -> None:
        """Change the interest in fd.

        Raises OSError or ValueError if it cannot be watched.
        """

    def forget(self, fd: int) -> None:
        """fd is about to be closed."""

    def wait(self, room: int, timeout_ms: int) -> list[tuple[int, int]]:
        """Wait for up to room descriptors with READ_INTEREST, WRITE_INTEREST and HANGUP.

        timeout_ms: -1 for ever.
        """


class ReadinessLoop:
    """Accepting, events, accept backoff, idle timeouts and draining of one loop."""

    def __init__(self, context: LoopContext, poller: Poller) -> None:
        self.context = context
        self.poller = poller
        self.stream = ConnectionSet(context)
        self.listeners = {listener.fileno(): listener for listener in context.listeners}
        self.accepting = False
        """The listeners are watched."""
        self.accept_resume_ms: int | None = None
        """Accepting pauses until then, for lack of descriptors."""
        self.draining = False
        """The request to drain has been seen."""
        self.accepts_left = 0
        """While draining: connections that may still be accepted."""
        self.listeners_shut = False
        """The listeners are shut down."""

    def set_accepting(self, accepting: bool) -> None:
        """Watch all listeners, or none."""
        if self.accepting == accepting or self.listeners_shut:
            return
        self.accepting = accepting
        before, interest = (0, READ_INTEREST) if accepting else (READ_INTEREST, 0)
        for fd in self.listeners:
            self.poller.watch(fd, before, interest)

    def close_connection(self, conn: Connection, why: int) -> None:
        """Close a connection whose handler raised Closed, and release its slot."""
        self.poller.forget(conn.fd)
        self.stream.close(conn, why)

    def update_interest(self, conn: Connection) -> None:
        """After an event: watch for what the connection waits for now."""
        interest = self.stream.interest(conn)
        if interest == conn.interest:
            return
        try:
            self.poller.watch(conn.fd, conn.interest, interest)
        except (OSError, ValueError):
            raise Closed(REFUSED) from None
        conn.interest = interest

    def open_connection(self, sock: socket.socket, peer: Any) -> None:
        """Give an accepted connection a slot and send what the service produces first."""
        conn = Connection(sock)
        sock.setblocking(False)
        self.stream.connections[conn.fd] = conn
        self.stream.touch(conn)
        if self.context.trace_fd >= 0:
            conn.trace = ConnectionRecord(sock, peer)
        try:
            self.stream.open(conn)
            self.update_interest(conn)
        except Closed as closed:
            self.close_connection(conn, closed.why)

    def is_full(self) -> bool:
        """Whether no slot is free."""
        return len(self.stream.connections) >= self.context.limits.max_connections

    def accept_burst(self, listener: socket.socket) -> bool:
        """Accept up to accept_burst connections.

        True if the queue is empty, False if it may not be. Raises OSError if the listener is
        unusable.
        """
        for _ in range(self.context.limits.accept_burst):
            if self.is_full():
                if self.accepting:
                    self.stream.row[ACCEPT_PAUSES] += 1
                self.set_accepting(False)
                return False
            try:
                self.open_connection(*accept_one(self.context, listener, self.stream.row))
            except AcceptAborted:
                continue
            except AcceptExhausted:
                pause_ms = int(self.context.limits.accept_pause_s * 1000)
                self.accept_resume_ms = now_ms() + pause_ms
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
        """Watch the listeners again once there is capacity."""
        if self.accepting or self.is_full():
            return
        if self.accept_resume_ms is not None and self.accept_resume_ms > self.stream.now_ms:
            return
        self.accept_resume_ms = None
        self.set_accepting(True)

    def handle_event(self, conn: Connection, ready: int) -> None:
        """A connection is ready: write, then read, then update what it waits for."""
        try:
            if ready & WRITE_INTEREST:
                self.stream.write(conn)
            if ready & (READ_INTEREST | HANGUP):
                if self.stream.interest(conn) & READ_INTEREST:
                    self.stream.read(conn)
                elif ready & HANGUP:
                    raise socket_error(conn.sock)
            self.update_interest(conn)
        except Closed as closed:
            self.close_connection(conn, closed.why)

    def drain_accept_queue(self) -> None:
        """Accept what is queued on the listeners, a burst at a time, then shut them down."""
        emptied = [self.accept_burst(listener) for listener in self.context.listeners]
        self.accepts_left -= self.context.limits.accept_burst
        if all(emptied) or self.accepts_left <= 0:
            self.set_accepting(False)
            self.listeners_shut = True
            shutdown_listeners(self.context)

    def drain(self) -> bool:
        """After a stop request: empty the accept queue, shut the listeners down.

        True when the loop is done.
        """
        if not self.draining:
            self.draining = True
            self.accepts_left = self.context.limits.accept_drain_max
            self.poller.watch(self.context.stop.drain_fd, READ_INTEREST, 0)
            self.poller.watch(self.context.stop.now_fd, 0, READ_INTEREST)
        if self.context.stop.state == NOW:
            return True
        if not self.listeners_shut and self.accept_resume_ms is None and not self.is_full():
            self.drain_accept_queue()
        return self.listeners_shut and not self.stream.connections

    def poll_timeout_ms(self) -> int:
        """Close idle connections.

        Returns how long the poller may wait: until the next one expires, or the accept backoff
        ends; -1: for ever.
        """
        conn, due = self.stream.expired()
        while conn is not None:
            self.close_connection(conn, IDLE)
            conn, due = self.stream.expired()
        if self.accept_resume_ms is not None:
            left = max(0, self.accept_resume_ms - self.stream.now_ms)
            due = left if due < 0 or left < due else due
        return due

    def wait_events(self, timeout_ms: int) -> list[tuple[int, int]]:
        """Wait for events; busy-polls for up to busy_poll_us before blocking."""
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
        self.poller.watch(self.context.stop.drain_fd, 0, READ_INTEREST)
        self.set_accepting(True)
        while True:
            events = self.wait_events(self.poll_timeout_ms())
            self.stream.now_ms = now_ms()
            ready_listeners = []
            for fd, ready in events:
                if (conn := self.stream.connections.get(fd)) is not None:
                    self.handle_event(conn, ready)
                elif fd in self.listeners:
                    ready_listeners.append(self.listeners[fd])
            for listener in ready_listeners:
                if self.accepting:
                    self.accept_burst(listener)
            if self.context.stop.state != RUN and self.drain():
                return
            self.resume_accepting()


def run_loop(context: LoopContext, poller: Poller) -> None:
    """Serve, and close what is still open."""
    loop = ReadinessLoop(context, poller)
    try:
        loop.serve()
    finally:
        for conn in list(loop.stream.connections.values()):
            loop.close_connection(conn, STOPPED)
