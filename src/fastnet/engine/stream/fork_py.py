"""A process for each connection. The twin of fork_c.pyx, which has the argument about pidfds,
signals
and descriptors.

Facts. Python 3.12 warns of fork(2) in a process with threads, for a lock another thread held stays
held in the child.
Consequence: the child must take no lock that somebody else may have held: it serves one connection
and leaves by os._exit, without logging, imports or finalizers. Python itself takes care of the GIL
and its import lock.
Decision: the garbage collector is frozen in the child, so that no object of the parent's is
finalized there and closes a descriptor number that is the child's by now.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.forked import become_child, keep_only, reap
from fastnet.engine.stream._accept_py import Acceptor, turn_away
from fastnet.engine.stream._blocking_py import serve
from fastnet.metrics.counters import CLOSED, KILLED, REFUSED


class Nursery:
    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.deaths = select.epoll()
        self.children: dict[int, tuple[int, int]] = {}
        """By pidfd: the child's pid and its place; place i counts into row i + 1."""
        self.free = list(range(context.limits.max_connections))

    def reap(self, timeout_s: float | None) -> None:
        """Wait for each child that has ended and free its place."""
        for pidfd, _ in self.deaths.poll(timeout_s):
            pid, place = self.children.pop(pidfd)
            self.bury(pid, place)
            # A sibling just forked may still hold a copy, and only the last one's close would take
            # it out of the set.
            self.deaths.unregister(pidfd)
            os.close(pidfd)

    def bury(self, pid: int, place: int) -> None:
        if reap(pid):
            self.context.counters.row(0)[CLOSED + KILLED] += 1
        self.free.append(place)

    def spawn(self, sock: socket.socket, peer: Any) -> None:
        """Fork a child for the connection. Without one to be had it is turned away."""
        place = self.free.pop()
        try:
            pid = os.fork()
        except OSError:
            turn_away(self.context, sock, peer, REFUSED)
            self.free.append(place)
            return
        if pid == 0:
            self.be_child(place, sock, peer)
        sock.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # out of descriptors: nothing would tell us of its end, so see it out now
            self.bury(pid, place)
            return
        self.children[pidfd] = (pid, place)
        self.deaths.register(pidfd, select.EPOLLIN)

    def be_child(self, place: int, sock: socket.socket, peer: Any) -> None:
        """Serve one connection in the new process. Does not return."""
        status = 1
        try:
            become_child()
            keep_only({sock.fileno(), self.context.trace_fd})
            serve(self.context, self.context.counters.row(place + 1), sock, peer)
            status = 0
        finally:
            os._exit(status)

    def serve(self) -> None:
        acceptor = Acceptor(self.context, self.deaths.fileno())
        while True:
            acceptor.full = not self.free
            try:
                accepted = acceptor.next()
            except EOFError:
                break
            if accepted is not None:
                self.spawn(*accepted)
            else:
                self.reap(0)
        while self.children:
            self.reap(None)


def run(context: LoopContext) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    nursery = Nursery(context)
    try:
        nursery.serve()
    finally:
        nursery.deaths.close()
