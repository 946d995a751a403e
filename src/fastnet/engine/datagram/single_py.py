"""One datagram at a time: recvmsg(2), the service, sendmsg(2). Pure Python.

Facts. Python has no recvmmsg(2). The kernel cuts a train of joined datagrams unless UDP_GRO is set.
Decision: this is the specification of single_c and mmsg_c, counter for counter; what mmsg_c joins
is sent one by one here.
Cost: two system calls and a few microseconds of Python a datagram.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence

from fastnet.engine.context import LoopContext
from fastnet.engine.stop import NOW, RUN
from fastnet.limits import DATAGRAM_DRAIN_BATCHES_MAX, DATAGRAMS_PER_TURN, READ_BYTES
from fastnet.metrics.counters import (
    AMPLIFICATION_BLOCKED,
    BUSY_POLL_HITS,
    BUSY_POLL_MISSES,
    BYTES_IN,
    BYTES_OUT,
    HANDLER_ERRORS,
    KERNEL_DROPS,
    MESSAGES,
    REPLIES,
    TRUNCATED,
    UNANSWERED,
    UNSENT,
)
from fastnet.service.contract import Address, HandlerFailed
from fastnet.transport.udp import await_room

SO_RXQ_OVFL = 40
DROPS = struct.Struct("@I")


class DatagramLoop:
    """Serves one bound socket."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        (self.sock,) = context.listeners
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self.own = self.sock.getsockname()
        self.is_local = self.sock.family == socket.AF_UNIX
        self.row = context.counters.row(0)
        self.bytes_max = context.limits.datagram_bytes_max
        self.memory = memoryview(bytearray(max(READ_BYTES, self.bytes_max)))
        self.drops = 0
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN)
        self.poll.register(context.stop.drain_fd, select.POLLIN)

    def serve(self) -> None:
        """Serve until stopped."""
        drain_batches = DATAGRAM_DRAIN_BATCHES_MAX
        while self.context.stop.state != NOW and drain_batches:
            emptied = self.handle_messages()
            if self.context.stop.state != RUN:
                drain_batches = 0 if emptied else drain_batches - 1
            elif emptied:
                self.wait_readable()

    def wait_readable(self) -> None:
        """Until there is a datagram or a stop request; busy-polls first."""
        busy_poll_us = self.context.limits.busy_poll_us
        if busy_poll_us:
            until_ns = time.monotonic_ns() + busy_poll_us * 1000
            while time.monotonic_ns() < until_ns:
                if self.poll.poll(0):
                    self.row[BUSY_POLL_HITS] += 1
                    return
            self.row[BUSY_POLL_MISSES] += 1
        self.poll.poll()

    def handle_messages(self) -> bool:
        """Receive and answer up to DATAGRAMS_PER_TURN. True if nothing is queued any more."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                n, control, flags, peer = self.sock.recvmsg_into(
                    [self.memory], socket.CMSG_SPACE(DROPS.size)
                )
            except BlockingIOError:
                return True
            except OSError:
                continue  # ICMP error of an earlier reply: its peer is gone
            for level, kind, data in control:
                if (level, kind) == (socket.SOL_SOCKET, SO_RXQ_OVFL):
                    self.count_drops(DROPS.unpack(data)[0])
            self.receive_datagram(self.memory[:n], flags, peer)
        return False

    def count_drops(self, drops: int) -> None:
        """SO_RXQ_OVFL counts all since the socket was made, in 32 bits."""
        self.row[KERNEL_DROPS] += (drops - self.drops) & 0xFFFFFFFF
        self.drops = drops

    def receive_datagram(self, datagram: memoryview, flags: int, peer: Address) -> None:
        row = self.row
        row[MESSAGES] += 1
        row[BYTES_IN] += len(datagram)
        if flags & socket.MSG_TRUNC:
            row[TRUNCATED] += 1
        elif self.ignores(peer):
            row[UNANSWERED] += 1
        else:
            self.answer_datagram(datagram, peer)

    def ignores(self, peer: Address) -> bool:
        """Whether a peer gets no reply.

        The access list denies it, or it replies by itself and the exchange would never end.
        """
        limits = self.context.limits
        if not isinstance(peer, tuple):
            return peer == self.own and not limits.answer_any_port
        host, port = peer[:2]
        if not limits.answer_any_port and (port == self.own[1] or port < limits.answered_port_min):
            return True
        return not self.context.access.allows(host)

    def answer_datagram(self, datagram: memoryview, peer: Address) -> None:
        """Call the service and send its reply."""
        try:
            reply = self.context.service.datagram(datagram, peer)
        except HandlerFailed:
            self.row[HANDLER_ERRORS] += 1
            return
        if reply is not None:
            self.send_reply(reply, peer, len(datagram))

    def send_reply(
        self, pieces: Sequence[bytes | memoryview], peer: Address, request_bytes: int
    ) -> None:
        """Send or count a reply. The second rule bounds amplification (RFC 9000, 8)."""
        size = sum(map(len, pieces))
        if peer is None:
            self.row[UNANSWERED] += 1
            return
        unblocked_bytes = max(request_bytes, self.context.limits.unvalidated_reply_bytes_max)
        if unblocked_bytes < size <= self.bytes_max:
            self.row[AMPLIFICATION_BLOCKED] += 1
            return
        sent = size <= self.bytes_max and (
            self.send(pieces, peer) or (self.await_room() and self.send(pieces, peer))
        )
        self.row[REPLIES if sent else UNSENT] += 1
        self.row[BYTES_OUT] += size if sent else 0

    def send(
        self, pieces: Sequence[bytes | memoryview], peer: tuple[object, ...] | str | bytes
    ) -> bool:
        try:
            self.sock.sendmsg(pieces, (), 0, peer)
        except OSError:
            return False
        return True

    def await_room(self) -> bool:
        """Wait for room in the send buffer. Returns whether there is some.

        Never for that of a Unix socket: it is the one peer's queue that is full, or all is held by
        peers that do not read.
        """
        return not self.is_local and await_room(self.sock)


def run(context: LoopContext) -> None:
    """Serve the context's socket until it is stopped (engine/datagram/contract.py)."""
    DatagramLoop(context).serve()
