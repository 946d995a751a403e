"""One datagram at a time: recvmsg(2), the service, sendmsg(2). Pure Python.

Facts. Python has no recvmmsg(2). A train of joined datagrams is cut by the kernel as long as nobody
asks for UDP_GRO.
Decision: this is the specification of single_c and mmsg_c, counter for counter; what mmsg_c joins
goes out one by one here.
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
from fastnet.limits import DATAGRAM_SWEEP_TURNS, DATAGRAMS_PER_TURN, READ_BYTES
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


class Loop:
    """One bound socket."""

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
        turns = DATAGRAM_SWEEP_TURNS
        while self.context.stop.state != NOW and turns:
            emptied = self.take_some()
            if self.context.stop.state != RUN:
                turns = 0 if emptied else turns - 1
            elif emptied:
                self.wait()

    def wait(self) -> None:
        """Until there is a datagram or a request to stop; first without sleeping, for as long as
        busy polling allows.
        """
        busy_poll_us = self.context.limits.busy_poll_us
        if busy_poll_us:
            until_ns = time.monotonic_ns() + busy_poll_us * 1000
            while time.monotonic_ns() < until_ns:
                if self.poll.poll(0):
                    self.row[BUSY_POLL_HITS] += 1
                    return
            self.row[BUSY_POLL_MISSES] += 1
        self.poll.poll()

    def take_some(self) -> bool:
        """Take and answer up to a turn's worth. True if nothing is queued any more."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                n, notes, flags, peer = self.sock.recvmsg_into(
                    [self.memory], socket.CMSG_SPACE(DROPS.size)
                )
            except BlockingIOError:
                return True
            except OSError:
                continue  # of an earlier reply: nobody is there any more
            for level, kind, data in notes:
                if (level, kind) == (socket.SOL_SOCKET, SO_RXQ_OVFL):
                    self.count_drops(DROPS.unpack(data)[0])
            self.heard(self.memory[:n], flags, peer)
        return False

    def count_drops(self, drops: int) -> None:
        """The kernel tells of all since the socket was made, in 32 bits."""
        self.row[KERNEL_DROPS] += (drops - self.drops) & 0xFFFFFFFF
        self.drops = drops

    def heard(self, datagram: memoryview, flags: int, peer: Address) -> None:
        row = self.row
        row[MESSAGES] += 1
        row[BYTES_IN] += len(datagram)
        if flags & socket.MSG_TRUNC:
            row[TRUNCATED] += 1
        elif self.ignores(peer):
            row[UNANSWERED] += 1
        else:
            self.ask(datagram, peer)

    def ignores(self, peer: Address) -> bool:
        """Whether a peer is not to be heard: it is not let in, or it answers by itself, and would
        for ever.
        """
        limits = self.context.limits
        if not isinstance(peer, tuple):
            return peer == self.own and not limits.answer_any_port
        host, port = peer[:2]
        if not limits.answer_any_port and (port == self.own[1] or port < limits.answered_port_min):
            return True
        return not self.context.access.allows(host)

    def ask(self, datagram: memoryview, peer: Address) -> None:
        """What the service says to it."""
        try:
            reply = self.context.service.datagram(datagram, peer)
        except HandlerFailed:
            self.row[HANDLER_ERRORS] += 1
            return
        if reply is not None:
            self.answer(reply, peer, len(datagram))

    def answer(self, pieces: Sequence[bytes | memoryview], peer: Address, request: int) -> None:
        """Send a reply to a request of so many bytes."""
        size = sum(map(len, pieces))
        if peer is None:
            self.row[UNANSWERED] += 1
            return
        if max(request, self.context.limits.unvalidated_reply_bytes_max) < size <= self.bytes_max:
            self.row[AMPLIFICATION_BLOCKED] += 1
            return
        sent = size <= self.bytes_max and (
            self.send(pieces, peer) or (self.has_room() and self.send(pieces, peer))
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

    def has_room(self) -> bool:
        """Wait a moment for the send buffer; False if that was not why the reply did not go out.

        Never for that of a Unix socket: it is the one peer's queue that is full, or all is held by
        peers that do not read.
        """
        return not self.is_local and await_room(self.sock)


def run(context: LoopContext) -> None:
    """Serve work's socket until it is stopped (engine/datagram/contract.py)."""
    Loop(context).serve()
