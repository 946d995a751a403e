"""accept(2) for stream engines: access list, error classes, blocking accept loop.

The pure twin of csrc/fn_accept.h, which has the argument, function for function.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stop import DRAIN, NOW, RUN
from fastnet.metrics.connection_log import ConnectionRecord
from fastnet.metrics.counters import ACCEPT_PAUSES, ACCEPTED, CLOSED, DENIED
from fastnet.transport.accept_errors import ACCEPT_CAPACITY_ERRNOS, ACCEPT_TRANSIENT_ERRNOS


class AcceptAborted(Exception):
    """That connection is gone: accept the next one."""


class AcceptExhausted(Exception):
    """No descriptor or memory for another connection: pause; already counted."""


def reject(context: LoopContext, sock: socket.socket, peer: Any, why: int) -> None:
    """Close an accepted connection without serving it, and count why."""
    trace = ConnectionRecord(sock, peer) if context.trace_fd >= 0 else None
    sock.close()
    context.counters.row(0)[CLOSED + why] += 1
    if trace is not None:
        trace.close(why, context.trace_fd)


def accept_one(
    context: LoopContext, listener: socket.socket, row: memoryview
) -> tuple[socket.socket, Any]:
    """Accept one connection that the access list allows; row: the loop's counters.

    Returns:
        The connection and its peer's address.
    Raises:
        BlockingIOError: the queue is empty.  AcceptAborted: try again.  AcceptExhausted: pause.
        OSError: the listener is unusable.
    """
    try:
        sock, peer = listener.accept()
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in ACCEPT_TRANSIENT_ERRNOS:
            raise AcceptAborted from None
        if error.errno in ACCEPT_CAPACITY_ERRNOS:
            row[ACCEPT_PAUSES] += 1
            raise AcceptExhausted from None
        raise
    row[ACCEPTED] += 1
    if (
        context.access.networks
        and sock.family != socket.AF_UNIX
        and not context.access.allows(peer[0])
    ):
        reject(context, sock, peer, DENIED)
        raise AcceptAborted
    return sock, peer


def shutdown_listeners(context: LoopContext) -> None:
    """Stop listening, whatever copies of the descriptors other loops and processes hold."""
    for listener in context.listeners:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # another loop was first


class Acceptor:
    """The accept loop of an engine that waits for connections and for nothing else."""

    def __init__(self, context: LoopContext, extra_fd: int = -1) -> None:
        self.context = context
        self.row = context.counters.row(0)
        self.extra_fd = extra_fd
        """Also wakes the wait when it is readable; -1: none."""
        self.full = False
        """Set by the engine: no capacity for another connection."""
        self.was_full = False
        """`full` of the previous call, so that a pause is counted once."""
        self.draining = False
        """The request to drain has been seen."""
        self.accepts_left = 0
        """While draining: connections that may still be accepted."""
        self.next_listener = 0
        """Listener to try first."""
        self.backing_off = False
        """The next wait is the accept backoff."""

    def try_listeners(self) -> tuple[socket.socket, Any]:
        """Try every listener once, round robin. Raises like accept_one."""
        listeners = self.context.listeners
        for _ in listeners:
            which = self.next_listener % len(listeners)
            self.next_listener += 1
            try:
                return accept_one(self.context, listeners[which], self.row)
            except BlockingIOError:
                continue
        raise BlockingIOError

    def wait(self) -> bool:
        """Block until a connection, a stop request or extra_fd.

        True if extra_fd is readable.
        """
        stop = self.context.stop
        poll = select.poll()
        poll.register(stop.now_fd if self.draining else stop.drain_fd, select.POLLIN)
        if self.extra_fd >= 0:
            poll.register(self.extra_fd, select.POLLIN)
        if not self.full and not self.backing_off:
            for listener in self.context.listeners:
                poll.register(listener, select.POLLIN)
        ready = poll.poll(self.context.limits.accept_pause_s * 1000 if self.backing_off else None)
        self.backing_off = False
        return any(fd == self.extra_fd for fd, _ in ready)

    def stopped(self) -> bool:
        """Follow the stop word. True once no further connection may be accepted."""
        stop = self.context.stop.state
        if stop == NOW or (self.draining and self.accepts_left <= 0):
            return True
        if stop == DRAIN and not self.draining:
            self.draining = True
            self.accepts_left = self.context.limits.accept_drain_max
        return False

    def next(self) -> tuple[socket.socket, Any] | None:
        """Wait for a connection.

        None: extra_fd is readable. Raises EOFError when stopped, OSError if a listener is unusable.
        """
        while not self.stopped():
            if self.full and not self.was_full:
                self.row[ACCEPT_PAUSES] += 1
            self.was_full = self.full
            if not self.full and not self.backing_off:
                try:
                    sock, peer = self.try_listeners()
                    sock.setblocking(True)
                    self.accepts_left -= 1
                    return sock, peer
                except AcceptAborted:
                    continue
                except AcceptExhausted:
                    self.backing_off = True
                except BlockingIOError:
                    if self.draining:
                        shutdown_listeners(self.context)
                        raise EOFError from None
                except OSError:
                    if self.context.stop.state == RUN:
                        raise
                    raise EOFError from None  # another loop shut the shared listener down
            if self.wait():
                return None
        raise EOFError


def now_ms() -> int:
    """Milliseconds of the monotonic clock."""
    return time.monotonic_ns() // 1_000_000
