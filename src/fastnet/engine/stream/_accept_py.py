"""Taking connections: the access list, the errors that are weather, and the wait of the engines
that
block.

The twin of csrc/fn_accept.h, which has the argument, function for function.
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


class Retry(Exception):
    """That connection is gone; try again."""


class Pause(Exception):
    """No descriptor or memory for another connection; already counted."""


def turn_away(context: LoopContext, sock: socket.socket, peer: Any, why: int) -> None:
    """Count and close a connection that was accepted but gets no service."""
    trace = ConnectionRecord(sock, peer) if context.trace_fd >= 0 else None
    sock.close()
    context.counters.row(0)[CLOSED + why] += 1
    if trace is not None:
        trace.close(why, context.trace_fd)


def accept(
    context: LoopContext, listener: socket.socket, row: memoryview
) -> tuple[socket.socket, Any]:
    """Accept one connection that the access list lets in. Raises BlockingIOError if none waits,
    Retry,
    Pause, or another OSError if the listener is unusable."""
    try:
        sock, peer = listener.accept()
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in ACCEPT_TRANSIENT_ERRNOS:
            raise Retry from None
        if error.errno in ACCEPT_CAPACITY_ERRNOS:
            row[ACCEPT_PAUSES] += 1
            raise Pause from None
        raise
    row[ACCEPTED] += 1
    if (
        context.access.networks
        and sock.family != socket.AF_UNIX
        and not context.access.allows(peer[0])
    ):
        turn_away(context, sock, peer, DENIED)
        raise Retry
    return sock, peer


class Acceptor:
    """The listeners of an engine that waits for connections and nothing else. extra_fd: also wake
    for this one, or -1.
    """

    def __init__(self, context: LoopContext, extra_fd: int = -1) -> None:
        self.context = context
        self.row = context.counters.row(0)
        self.extra_fd = extra_fd
        self.full = self.was_full = self.draining = self.paused = False
        self.sweep = 0
        self.first = 0

    def _try(self) -> tuple[socket.socket, Any]:
        """Look at every listener once, a different one first each time."""
        for _ in self.context.listeners:
            self.first += 1
            try:
                return accept(
                    self.context,
                    self.context.listeners[self.first % len(self.context.listeners)],
                    self.row,
                )
            except BlockingIOError:
                continue
        raise BlockingIOError

    def _wait(self) -> bool:
        """Sleep until there is something to do. True if extra_fd is readable."""
        poll = select.poll()
        poll.register(
            self.context.stop.now_fd if self.draining else self.context.stop.drain_fd, select.POLLIN
        )
        if self.extra_fd >= 0:
            poll.register(self.extra_fd, select.POLLIN)
        if not self.full and not self.paused:
            for listener in self.context.listeners:
                poll.register(listener, select.POLLIN)
        ready = poll.poll(self.context.limits.accept_pause_s * 1000 if self.paused else None)
        self.paused = False
        return any(fd == self.extra_fd for fd, _ in ready)

    def next(self) -> tuple[socket.socket, Any] | None:
        """Wait for a connection. None: extra_fd is readable. Raises EOFError when no more will
        come.
        """
        while True:
            stop = self.context.stop.state
            if stop == NOW or (self.draining and self.sweep <= 0):
                raise EOFError
            if stop == DRAIN and not self.draining:
                self.draining, self.sweep = True, self.context.limits.accept_drain_max
            if self.full and not self.was_full:
                self.row[ACCEPT_PAUSES] += 1
            self.was_full = self.full
            if not self.full and not self.paused:
                try:
                    sock, peer = self._try()
                    sock.setblocking(True)
                    self.sweep -= 1
                    return sock, peer
                except Retry:
                    continue
                except Pause:
                    self.paused = True
                except BlockingIOError:
                    if self.draining:
                        shut(self.context)
                        raise EOFError from None
                except OSError:
                    if self.context.stop.state == RUN:
                        raise
                    raise EOFError from None  # another loop shut the shared listener down
            if self._wait():
                return None


def shut(context: LoopContext) -> None:
    """Stop listening, whatever copies of the descriptors other processes hold."""
    for listener in context.listeners:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # another loop was first


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
