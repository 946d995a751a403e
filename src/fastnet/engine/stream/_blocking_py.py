"""One connection from its first byte to its last, on a blocking socket: what iterative, fork,
thread
and pool run.

The twin of csrc/fn_blocking.h, which has the argument, function for function.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stop import NOW
from fastnet.engine.stream._connection_py import Closed, closed_by, gather, last_words
from fastnet.metrics.connection_log import ConnectionRecord
from fastnet.metrics.counters import (
    BUSY_POLL_HITS,
    BUSY_POLL_MISSES,
    BYTES_IN,
    BYTES_OUT,
    CLOSED,
    FINISHED,
    IDLE,
    MESSAGES,
    STOPPED,
)
from fastnet.service.contract import Item


class Talk:
    """A connection being served. state belongs to the service."""

    def __init__(self, context: LoopContext, row: memoryview, sock: socket.socket) -> None:
        self.context = context
        self.row = row
        self.sock = sock
        self.buffer = memoryview(bytearray(context.limits.read_bytes))
        self.active_s = time.monotonic()
        self.ending = self.peer_eof = False
        self.state: Any = None

    def patience(self) -> None:
        """A call gave up after its tick: return to try again."""
        idle = self.context.limits.idle_timeout_s
        if self.context.stop.state == NOW:
            raise Closed(STOPPED)
        if idle and time.monotonic() - self.active_s >= idle:
            raise Closed(IDLE)

    def send_all(self, view: memoryview) -> None:
        while view.nbytes:
            try:
                sent = self.sock.send(view, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.patience()
                continue
            except OSError as error:
                raise closed_by(error) from None
            self.row[BYTES_OUT] += sent
            self.active_s = time.monotonic()
            view = view[sent:]
            if view.nbytes and self.context.stop.state == NOW:
                raise Closed(STOPPED)

    def reply(self, items: Sequence[Item]) -> None:
        """Send a reply to its end. Several pieces go out as one packet when the kernel takes all at
        once.
        """
        parts, ends = gather(items)
        if len(parts) > 1:
            parts = [memoryview(b"".join(parts))]
        for part in parts:
            self.send_all(part)
        if ends:
            self.ending = True
            if self.peer_eof:
                raise Closed(FINISHED)
            # a peer that vanished meanwhile: the next read tells
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def heard(self, n: int, drops: bool) -> None:
        """What one read brought: n bytes, or the end."""
        service = self.context.service
        if n == 0:
            self.peer_eof = True
            if self.ending:
                raise Closed(FINISHED)
            return self.reply(last_words(service, self))
        self.row[BYTES_IN] += n
        self.row[MESSAGES] += 1
        if self.ending:
            return self.patience()
        self.active_s = time.monotonic()
        if not drops:
            self.reply(service.data(self, self.buffer[:n]))

    def recv(self, flags: int) -> int:
        """Read; first without sleeping, for as long as busy polling allows. Raises BlockingIOError
        if nothing came.
        """
        busy_poll_us = self.context.limits.busy_poll_us
        if busy_poll_us and not flags & socket.MSG_DONTWAIT:
            until_ns = time.monotonic_ns() + busy_poll_us * 1000
            while True:
                try:
                    n = self.sock.recv_into(self.buffer, 0, flags | socket.MSG_DONTWAIT)
                    self.row[BUSY_POLL_HITS] += 1
                    return n
                except BlockingIOError:
                    if time.monotonic_ns() >= until_ns:
                        break
            self.row[BUSY_POLL_MISSES] += 1
        return self.sock.recv_into(self.buffer, 0, flags)

    def through(self) -> None:
        """Talk until one side ends it, by raising Closed."""
        service = self.context.service
        self.reply(service.open(self))
        while True:
            if self.context.stop.state == NOW:
                raise Closed(STOPPED)
            speaks = service.speaks and not self.ending
            drops = not service.reads or self.ending
            if not self.peer_eof:
                flags = (socket.MSG_TRUNC if drops else 0) | (socket.MSG_DONTWAIT if speaks else 0)
                try:
                    self.heard(self.recv(flags), drops)
                except BlockingIOError:
                    if not speaks:
                        self.patience()
                except OSError as error:
                    raise closed_by(error) from None
            if speaks:
                self.reply(service.sent(self))


def serve(context: LoopContext, row: memoryview, sock: socket.socket, peer: Any) -> None:
    """Serve the connection to its end and close it. row: counters that nobody else writes
    meanwhile.
    """
    talk = Talk(context, row, sock)
    before_in, before_out = row[BYTES_IN], row[BYTES_OUT]
    trace = ConnectionRecord(sock, peer) if context.trace_fd >= 0 else None
    set_patience(
        sock, min(context.limits.tick_s, context.limits.idle_timeout_s or context.limits.tick_s)
    )
    why = STOPPED
    try:
        talk.through()
    except Closed as closed:
        why = closed.why
    sock.close()
    row[CLOSED + why] += 1
    if trace is not None:
        trace.bytes_in, trace.bytes_out = row[BYTES_IN] - before_in, row[BYTES_OUT] - before_out
        trace.close(why, context.trace_fd)
    context.service.close(talk)


def set_patience(sock: socket.socket, seconds: float) -> None:
    """The socket's own time-out: recv and send raise BlockingIOError after it (socket(7),
    SO_RCVTIMEO).
    """
    timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
