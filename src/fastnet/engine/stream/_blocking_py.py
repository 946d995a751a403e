"""One connection on a blocking socket: iterative, fork, thread and pool.

The pure twin of csrc/fn_blocking.h, which has the argument, function for function.
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
from fastnet.engine.stream._connection_py import Closed, eof_reply, flatten, stream_error
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


class BlockingConnection:
    """A connection being served."""

    def __init__(self, context: LoopContext, row: memoryview, sock: socket.socket) -> None:
        self.context = context
        self.row = row
        """Counters with no other writer meanwhile."""
        self.sock = sock
        self.buffer = memoryview(bytearray(context.limits.read_bytes))
        self.active_s = time.monotonic()
        """When the last byte moved."""
        self.fin_queued = False
        """The service has returned END."""
        self.fin_received = False
        """The peer has half-closed."""
        self.state: Any = None
        """The service's own."""

    def check_deadline(self) -> None:
        """A call returned after its tick: return to retry, or raise Closed."""
        timeout_s = self.context.limits.idle_timeout_s
        if self.context.stop.state == NOW:
            raise Closed(STOPPED)
        if timeout_s and time.monotonic() - self.active_s >= timeout_s:
            raise Closed(IDLE)

    def send_all(self, view: memoryview) -> None:
        """Send bytes to their end."""
        while view.nbytes:
            try:
                sent = self.sock.send(view, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.check_deadline()
                continue
            except OSError as error:
                raise stream_error(error) from None
            self.row[BYTES_OUT] += sent
            self.active_s = time.monotonic()
            view = view[sent:]
            if view.nbytes and self.context.stop.state == NOW:
                raise Closed(STOPPED)

    def send_reply(self, items: Sequence[Item]) -> None:
        """Send a reply to its end.

        Several pieces leave in one segment if the kernel takes all in one call.
        """
        parts, ends = flatten(items)
        if len(parts) > 1:
            parts = [memoryview(b"".join(parts))]
        for part in parts:
            self.send_all(part)
        if ends:
            self.fin_queued = True
            if self.fin_received:
                raise Closed(FINISHED)
            # a peer that has disconnected meanwhile: the next read reports it
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def received(self, n: int, discards: bool) -> None:
        """Handle the result of one read: n bytes, or 0 for end of stream."""
        service = self.context.service
        if n == 0:
            self.fin_received = True
            if self.fin_queued:
                raise Closed(FINISHED)
            return self.send_reply(eof_reply(service, self))
        self.row[BYTES_IN] += n
        self.row[MESSAGES] += 1
        # after our FIN received bytes are no activity, and keep recv from ever timing out
        if self.fin_queued:
            return self.check_deadline()
        self.active_s = time.monotonic()
        if not discards:
            self.send_reply(service.data(self, self.buffer[:n]))

    def recv(self, flags: int) -> int:
        """recv(2) into the buffer; busy-polls for up to busy_poll_us before blocking.

        Raises BlockingIOError if nothing was received.
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

    def run(self) -> None:
        """Serve until either side closes, by raising Closed."""
        service = self.context.service
        self.send_reply(service.open(self))
        while True:
            if self.context.stop.state == NOW:
                raise Closed(STOPPED)
            produces = service.produces_output and not self.fin_queued
            discards = not service.accepts_input or self.fin_queued
            if not self.fin_received:
                flags = socket.MSG_TRUNC if discards else 0
                flags |= socket.MSG_DONTWAIT if produces else 0
                try:
                    self.received(self.recv(flags), discards)
                except BlockingIOError:
                    if not produces:
                        self.check_deadline()
                except OSError as error:
                    raise stream_error(error) from None
            if produces:
                self.send_reply(service.sent(self))


def serve_connection(context: LoopContext, row: memoryview, sock: socket.socket, peer: Any) -> None:
    """Serve the connection to its end and close it.

    row: counters with no other writer meanwhile.
    """
    conn = BlockingConnection(context, row, sock)
    before_in, before_out = row[BYTES_IN], row[BYTES_OUT]
    trace = ConnectionRecord(sock, peer) if context.trace_fd >= 0 else None
    tick_s = context.limits.tick_s
    set_socket_timeout(sock, min(tick_s, context.limits.idle_timeout_s or tick_s))
    why = STOPPED
    try:
        conn.run()
    except Closed as closed:
        why = closed.why
    sock.close()
    row[CLOSED + why] += 1
    if trace is not None:
        trace.bytes_in, trace.bytes_out = row[BYTES_IN] - before_in, row[BYTES_OUT] - before_out
        trace.close(why, context.trace_fd)
    context.service.close(conn)


def set_socket_timeout(sock: socket.socket, seconds: float) -> None:
    """SO_RCVTIMEO and SO_SNDTIMEO: recv and send raise BlockingIOError after it (socket(7))."""
    timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
