"""One turn of one non-blocking connection: read once, ask the service, send, park what the kernel
did
not take.

The twin of csrc/fn_stream.h, which has the argument, function for function. A turn that ends the
connection raises Closed.
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

READS, WRITES = 1, 2
"""What a connection is watched for."""

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""Pieces that one sendmsg(2) takes."""


class Closed(Exception):
    """The connection is over. why: a reason from metrics/counters.py."""

    def __init__(self, why: int) -> None:
        self.why = why


class Connection:
    """A slot. parked: ordered but not yet taken by the kernel. state belongs to the service."""

    __slots__ = (
        "ended",
        "ending",
        "fd",
        "peer_eof",
        "sock",
        "state",
        "trace",
        "watched",
        "write_buffer",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.write_buffer: memoryview | None = None
        self.ending = self.ended = self.peer_eof = False
        self.watched = 0
        self.state: Any = None
        self.trace: ConnectionRecord | None = None


def closed_by(error: OSError) -> Closed:
    return Closed(RESET if isinstance(error, (ConnectionResetError, BrokenPipeError)) else ERROR)


def gather(items: Sequence[Item]) -> tuple[list[memoryview], bool]:
    """The bytes of a reply as flat views, and whether the stream ends after them."""
    parts: list[memoryview] = []
    for item in items:
        if item is END:
            return parts, True
        view = memoryview(item).cast("B")
        if view.nbytes:
            parts.append(view)
    return parts, False


def last_words(service: Service, conn: Conn) -> Sequence[Item]:
    """What it answers to the peer's half-close; all it will ever say, unless it speaks by
    itself.
    """
    items = service.eof(conn)
    return items if service.speaks else (*items, END)


class Stream:
    """The connections of one loop and the buffer they share."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.service = context.service
        self.row = context.counters.row(0)
        self.buffer = memoryview(bytearray(context.limits.read_bytes))
        self.connections: dict[int, Connection] = {}
        self.idle: OrderedDict[int, int] = OrderedDict()
        """Descriptors in order of their last byte, with its time in ms."""
        self.now_ms = now_ms()

    def touch(self, conn: Connection) -> None:
        self.idle[conn.fd] = self.now_ms
        self.idle.move_to_end(conn.fd)

    def close(self, conn: Connection, why: int) -> None:
        """Close the descriptor, count why, free the slot."""
        del self.connections[conn.fd], self.idle[conn.fd]
        conn.sock.close()
        self.row[CLOSED + why] += 1
        if conn.write_buffer is not None and not self.service.stable:
            self.row[WRITE_BUFFER_BYTES] -= conn.write_buffer.nbytes
        if conn.trace is not None:
            conn.trace.close(why, self.context.trace_fd)
        self.service.close(conn)

    def open(self, conn: Connection) -> None:
        """The first turn: what the service says before it has read anything."""
        self.send(conn, self.service.open(conn))

    def drops(self, conn: Connection) -> bool:
        """Whether input is dropped: nobody wants it, or we have said our last word."""
        return not self.service.reads or conn.ending

    def read(self, conn: Connection) -> None:
        """A turn for input: exactly one read."""
        drops = self.drops(conn)
        try:
            # MSG_TRUNC: TCP drops the bytes without copying them (tcp(7)); a Unix socket ignores it
            # and copies.
            n = conn.sock.recv_into(self.buffer, 0, socket.MSG_TRUNC if drops else 0)
        except BlockingIOError:
            return
        except OSError as error:
            raise closed_by(error) from None
        self.heard(conn, self.buffer[:n], drops)

    def heard(self, conn: Connection, view: memoryview, drops: bool) -> None:
        """What one read brought: bytes, or the end."""
        n = view.nbytes
        if n == 0:
            conn.peer_eof = True
            if conn.ending:
                return self.settle(conn)
            return self.send(conn, last_words(self.service, conn))
        self.row[BYTES_IN] += n
        self.row[MESSAGES] += 1
        if conn.trace is not None:
            conn.trace.bytes_in += n
        if not conn.ended:
            self.touch(conn)
        if not drops:
            self.send(conn, self.service.data(conn, view))

    def write(self, conn: Connection) -> None:
        """A turn for output: what is parked first, then what the service has next."""
        if conn.write_buffer is not None:
            sent = self._push(conn, [conn.write_buffer])
            if not self.service.stable:
                self.row[WRITE_BUFFER_BYTES] -= sent
            conn.write_buffer = (
                conn.write_buffer[sent:] if sent < conn.write_buffer.nbytes else None
            )
            return self.settle(conn)
        if self.service.speaks and not conn.ending:
            self.send(conn, self.service.sent(conn))

    def send(self, conn: Connection, items: Sequence[Item]) -> None:
        """Send a reply, or as much of it as the kernel takes, and park the rest."""
        parts, conn.ending = gather(items)
        if parts:
            self._park(conn, parts, self._push(conn, parts))
        self.settle(conn)

    def _push(self, conn: Connection, parts: list[memoryview]) -> int:
        try:
            if len(parts) == 1:
                sent = conn.sock.send(parts[0], socket.MSG_NOSIGNAL)
            else:
                sent = conn.sock.sendmsg(parts[:IOV_MAX], (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise closed_by(error) from None
        self.row[BYTES_OUT] += sent
        if conn.trace is not None:
            conn.trace.bytes_out += sent
        self.touch(conn)
        return sent

    def _park(self, conn: Connection, parts: list[memoryview], skip: int) -> None:
        """Keep what is left of a reply after its first skip bytes. A bytes object is kept as it is,
        without a copy, and not even counted when it outlives the connection."""
        left = sum(part.nbytes for part in parts) - skip
        if not left:
            return
        if self.service.stable:
            conn.write_buffer = memoryview(b"".join(parts) if len(parts) > 1 else parts[0])[skip:]
            return
        if self.row[WRITE_BUFFER_BYTES] + left > self.context.limits.write_buffer_bytes_max:
            raise Closed(OVERLOAD)
        if len(parts) == 1 and parts[0].readonly:
            conn.write_buffer = parts[0][skip:]
        else:
            conn.write_buffer = memoryview(b"".join(parts)[skip:])
        self.row[WRITE_BUFFER_BYTES] += left

    def settle(self, conn: Connection) -> None:
        """After sending: the half-close or the close that was waiting for it."""
        if conn.write_buffer is not None or not conn.ending:
            return
        if conn.peer_eof:
            raise Closed(FINISHED)
        if not conn.ended:
            # a peer that vanished meanwhile: the next read tells
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
        conn.ended = True

    def wants(self, conn: Connection) -> int:
        """What to watch for next: READS, WRITES, both or neither."""
        wants = 0
        drops = not self.service.reads or conn.ended
        if conn.write_buffer is not None or (self.service.speaks and not conn.ending):
            wants |= WRITES
        if not conn.peer_eof and (conn.write_buffer is None or drops):
            wants |= READS
        return wants

    def overdue(self) -> tuple[Connection | None, int]:
        """One that has been idle too long, for the engine to close, and milliseconds until the next
        one is, -1 for none.
        """
        patience = int(self.context.limits.idle_timeout_s * 1000 + 0.999)
        if not patience or not self.idle:
            return None, -1
        fd, active_ms = next(iter(self.idle.items()))
        idle = self.now_ms - active_ms
        return (self.connections[fd], -1) if idle >= patience else (None, patience - idle)


def socket_closed(sock: socket.socket) -> Closed:
    """The poller reports an error or a hang-up while nobody reads: the reason the socket gives."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return closed_by(OSError(error, "")) if error else Closed(RESET)
