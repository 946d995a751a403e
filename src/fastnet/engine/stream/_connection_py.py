"""Non-blocking connections: read once, call the service, send, buffer the rest.

The pure twin of csrc/fn_stream.h and csrc/fn_stream_io.h, which have the argument, function for
function. A handler that closes the connection raises Closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import now_ms
from fastnet.metrics.connection_log import ConnectionRecord
from fastnet.metrics.counters import (
    BYTES_IN,
    BYTES_OUT,
    CLOSED,
    ERROR,
    FINISHED,
    MESSAGES,
    OVERLOAD,
    RESET,
    WRITE_BUFFER_BYTES,
)
from fastnet.service.contract import END, Conn, Item, Service

READ_INTEREST, WRITE_INTEREST = 1, 2
"""What the engine waits for on a connection."""

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""Pieces that one sendmsg(2) takes."""


class Closed(Exception):
    """The connection is to be closed. why: a reason from metrics/counters.py."""

    def __init__(self, why: int) -> None:
        self.why = why


class Connection:
    """A slot of the table of connections."""

    __slots__ = (
        "fd",
        "fin_queued",
        "fin_received",
        "fin_sent",
        "interest",
        "sock",
        "state",
        "trace",
        "write_buffer",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.write_buffer: memoryview | None = None
        """Output the kernel has not taken yet."""
        self.fin_queued = False
        """The service has returned END: half-close once the write buffer is empty."""
        self.fin_sent = False
        """shutdown(SHUT_WR) was called; further input is discarded."""
        self.fin_received = False
        """The peer has half-closed."""
        self.interest = 0
        """READ_INTEREST, WRITE_INTEREST, both or 0: what the poller watches for."""
        self.state: Any = None
        """The service's own."""
        self.trace: ConnectionRecord | None = None


def stream_error(error: OSError) -> Closed:
    """The reason for an error of a socket call."""
    return Closed(RESET if isinstance(error, (ConnectionResetError, BrokenPipeError)) else ERROR)


def socket_error(sock: socket.socket) -> Closed:
    """The pending error of a socket that the poller reports while it is not read."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return stream_error(OSError(error, "")) if error else Closed(RESET)


def flatten(items: Sequence[Item]) -> tuple[list[memoryview], bool]:
    """The bytes of a reply as flat views, and whether the stream ends after them."""
    parts: list[memoryview] = []
    for item in items:
        if item is END:
            return parts, True
        view = memoryview(item).cast("B")
        if view.nbytes:
            parts.append(view)
    return parts, False


def eof_reply(service: Service, conn: Conn) -> Sequence[Item]:
    """The reply to the peer's FIN, with END unless the service produces output by itself."""
    items = service.eof(conn)
    return items if service.produces_output else (*items, END)


class ConnectionSet:
    """The connections of one loop."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.service: Service = context.service
        self.row = context.counters.row(0)
        """The loop's counters."""
        self.buffer = memoryview(bytearray(context.limits.read_bytes))
        """Read buffer, shared by all connections."""
        self.connections: dict[int, Connection] = {}
        """By descriptor."""
        self.idle: OrderedDict[int, int] = OrderedDict()
        """Descriptors in order of their last byte, with its time in ms."""
        self.now_ms = now_ms()
        """The time, as of the last wait."""

    def touch(self, conn: Connection) -> None:
        """Bytes moved on this connection: it becomes the last to expire."""
        self.idle[conn.fd] = self.now_ms
        self.idle.move_to_end(conn.fd)

    def close(self, conn: Connection, why: int) -> None:
        """Close the descriptor, count why, release the slot."""
        del self.connections[conn.fd], self.idle[conn.fd]
        conn.sock.close()
        self.row[CLOSED + why] += 1
        if conn.write_buffer is not None and not self.service.static_output:
            self.row[WRITE_BUFFER_BYTES] -= conn.write_buffer.nbytes
        if conn.trace is not None:
            conn.trace.close(why, self.context.trace_fd)
        self.service.close(conn)

    def finish_output(self, conn: Connection) -> None:
        """Half-close or close, if that was queued behind output that is now out."""
        if conn.write_buffer is not None or not conn.fin_queued:
            return
        if conn.fin_received:
            raise Closed(FINISHED)
        if not conn.fin_sent:
            # a peer that has disconnected meanwhile: the next read reports it
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
        conn.fin_sent = True

    def discards_input(self, conn: Connection) -> bool:
        """Whether input is discarded: the service accepts none, or our FIN is queued."""
        return not self.service.accepts_input or conn.fin_queued

    def interest(self, conn: Connection) -> int:
        """What to wait for next: READ_INTEREST, WRITE_INTEREST, both or 0."""
        interest = 0
        discards = not self.service.accepts_input or conn.fin_sent
        produces = self.service.produces_output and not conn.fin_queued
        if conn.write_buffer is not None or produces:
            interest |= WRITE_INTEREST
        if not conn.fin_received and (conn.write_buffer is None or discards):
            interest |= READ_INTEREST
        return interest

    def expired(self) -> tuple[Connection | None, int]:
        """A connection whose idle timeout has expired, and when the next one expires.

        The connection is for the engine to close, or None; the time is in milliseconds, -1: never.
        """
        timeout_ms = int(self.context.limits.idle_timeout_s * 1000 + 0.999)
        if not timeout_ms or not self.idle:
            return None, -1
        fd, active_ms = next(iter(self.idle.items()))
        idle_ms = self.now_ms - active_ms
        if idle_ms >= timeout_ms:
            return self.connections[fd], -1
        return None, timeout_ms - idle_ms

    def buffer_rest(self, conn: Connection, parts: list[memoryview], skip: int) -> None:
        """Put what follows the first `skip` bytes of a reply into the empty write buffer.

        A bytes object is kept without a copy, and not counted if it is static output.
        """
        left = sum(part.nbytes for part in parts) - skip
        if not left:
            return
        if self.service.static_output:
            conn.write_buffer = memoryview(b"".join(parts) if len(parts) > 1 else parts[0])[skip:]
            return
        if self.row[WRITE_BUFFER_BYTES] + left > self.context.limits.write_buffer_bytes_max:
            raise Closed(OVERLOAD)
        if len(parts) == 1 and parts[0].readonly:
            conn.write_buffer = parts[0][skip:]
        else:
            conn.write_buffer = memoryview(b"".join(parts)[skip:])
        self.row[WRITE_BUFFER_BYTES] += left

    def send(self, conn: Connection, items: Sequence[Item]) -> None:
        """Send a reply, or as much as the kernel takes, and buffer the rest."""
        parts, conn.fin_queued = flatten(items)
        if parts:
            self.buffer_rest(conn, parts, self.send_parts(conn, parts))
        self.finish_output(conn)

    def send_parts(self, conn: Connection, parts: list[memoryview]) -> int:
        """One send(2) or sendmsg(2). Returns the bytes the kernel has taken."""
        try:
            if len(parts) == 1:
                sent = conn.sock.send(parts[0], socket.MSG_NOSIGNAL)
            else:
                sent = conn.sock.sendmsg(parts[:IOV_MAX], (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise stream_error(error) from None
        self.row[BYTES_OUT] += sent
        if conn.trace is not None:
            conn.trace.bytes_out += sent
        self.touch(conn)
        return sent

    def open(self, conn: Connection) -> None:
        """A connection was made: send what the service produces before any input."""
        self.send(conn, self.service.open(conn))

    def received(self, conn: Connection, view: memoryview, discards: bool) -> None:
        """Handle the result of one read: bytes, or none for end of stream."""
        n = view.nbytes
        if n == 0:
            conn.fin_received = True
            if conn.fin_queued:
                return self.finish_output(conn)
            return self.send(conn, eof_reply(self.service, conn))
        self.row[BYTES_IN] += n
        self.row[MESSAGES] += 1
        if conn.trace is not None:
            conn.trace.bytes_in += n
        # after our FIN received bytes are no activity: the peer has the idle timeout to close
        if not conn.fin_sent:
            self.touch(conn)
        if not discards:
            self.send(conn, self.service.data(conn, view))

    def read(self, conn: Connection) -> None:
        """Input is ready: exactly one read."""
        discards = self.discards_input(conn)
        try:
            # MSG_TRUNC: TCP discards the bytes without a copy (tcp(7)); a Unix socket ignores the
            # flag and copies.
            n = conn.sock.recv_into(self.buffer, 0, socket.MSG_TRUNC if discards else 0)
        except BlockingIOError:
            return
        except OSError as error:
            raise stream_error(error) from None
        self.received(conn, self.buffer[:n], discards)

    def write(self, conn: Connection) -> None:
        """Flush the write buffer, or send what the service produces next.

        Called when the send buffer has room.
        """
        buffer = conn.write_buffer
        if buffer is not None:
            sent = self.send_parts(conn, [buffer])
            if not self.service.static_output:
                self.row[WRITE_BUFFER_BYTES] -= sent
            conn.write_buffer = buffer[sent:] if sent < buffer.nbytes else None
            return self.finish_output(conn)
        if self.service.produces_output and not conn.fin_queued:
            self.send(conn, self.service.sent(conn))
