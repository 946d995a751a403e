"""A process for each connection: the parent accepts, the child serves one peer and exits.

The pure twin of fork_c.pyx, which has the argument about pidfds, signals and descriptors.

Facts. Python 3.12 warns of fork(2) in a process with threads, for a lock that another thread held
stays held in the child.
Consequence: the child must take no lock that another thread may have held: it serves one connection
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
from fastnet.engine.stream._accept_py import Acceptor, reject
from fastnet.engine.stream._blocking_py import serve_connection
from fastnet.metrics.counters import CLOSED, KILLED, REFUSED


class ChildTable:
    """The children of one loop."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.exits = select.epoll()
        """Epoll set of all pidfds."""
        self.children: dict[int, tuple[int, int]] = {}
        """By pidfd: the child's pid and its slot; slot i counts into row i + 1."""
        self.free_slots = list(range(context.limits.max_connections))

    def reap(self, pid: int, slot: int) -> None:
        """Collect the exit status of a child and free its slot."""
        if reap(pid):
            self.context.counters.row(0)[CLOSED + KILLED] += 1
        self.free_slots.append(slot)

    def reap_exited(self, timeout_s: float | None) -> None:
        """Wait for children to exit and free their slots."""
        for pidfd, _ in self.exits.poll(timeout_s):
            self.reap(*self.children.pop(pidfd))
            # A sibling just forked may still hold a copy, and only the last one's close would take
            # it out of the set.
            self.exits.unregister(pidfd)
            os.close(pidfd)

    def run_child(self, slot: int, sock: socket.socket, peer: Any) -> None:
        """Serve one connection in the new process. Does not return."""
        status = 1
        try:
            become_child()
            keep_only({sock.fileno(), self.context.trace_fd})
            serve_connection(self.context, self.context.counters.row(slot + 1), sock, peer)
            status = 0
        finally:
            os._exit(status)

    def spawn(self, sock: socket.socket, peer: Any) -> None:
        """Fork a child for the connection. If fork(2) fails, it is rejected."""
        slot = self.free_slots.pop()
        try:
            pid = os.fork()
        except OSError:
            reject(self.context, sock, peer, REFUSED)
            self.free_slots.append(slot)
            return
        if pid == 0:
            self.run_child(slot, sock, peer)
        sock.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # out of descriptors: its exit would not be reported, so wait for it
            self.reap(pid, slot)
            return
        self.children[pidfd] = (pid, slot)
        self.exits.register(pidfd, select.EPOLLIN)

    def serve(self) -> None:
        """Serve until stopped and every child has exited."""
        acceptor = Acceptor(self.context, self.exits.fileno())
        while True:
            acceptor.full = not self.free_slots
            try:
                accepted = acceptor.next()
            except EOFError:
                break
            if accepted is not None:
                self.spawn(*accepted)
            else:
                self.reap_exited(0)
        while self.children:
            self.reap_exited(None)


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    table = ChildTable(context)
    try:
        table.serve()
    finally:
        table.exits.close()
