"""A thread for each connection. The pure twin of thread_c.pyx, which has the argument.

One difference is essential: these threads share the GIL, so one of them runs at a time.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor, reject
from fastnet.engine.stream._blocking_py import serve_connection
from fastnet.metrics.counters import REFUSED


class ThreadTable:
    """The threads of one loop."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.ended = threading.Condition()
        """Guards free_slots; notified when a thread has released its slot."""
        self.free_slots = list(range(context.limits.max_connections))
        """Slot i counts into row i + 1."""
        self.capacity_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Written when a full table has a free slot again."""

    def release(self, slot: int) -> None:
        """Put a slot back on the free list."""
        with self.ended:
            if not self.free_slots:
                os.eventfd_write(self.capacity_fd, 1)
            self.free_slots.append(slot)
            self.ended.notify()

    def run_thread(self, slot: int, sock: socket.socket, peer: Any) -> None:
        """The life of a connection's thread."""
        try:
            serve_connection(self.context, self.context.counters.row(slot + 1), sock, peer)
        finally:
            self.release(slot)

    def start_thread(self, sock: socket.socket, peer: Any) -> None:
        """Start a thread for the connection. If that fails, it is rejected."""
        with self.ended:
            slot = self.free_slots.pop()
        try:
            threading.Thread(target=self.run_thread, args=(slot, sock, peer), daemon=True).start()
        except RuntimeError:
            reject(self.context, sock, peer, REFUSED)
            self.release(slot)

    def serve(self) -> None:
        """Serve until stopped and every thread has ended."""
        acceptor = Acceptor(self.context, self.capacity_fd)
        while True:
            with self.ended:
                acceptor.full = not self.free_slots
            try:
                accepted = acceptor.next()
            except EOFError:
                break
            if accepted is not None:
                self.start_thread(*accepted)
            else:
                os.eventfd_read(self.capacity_fd)
        slots = self.context.limits.max_connections
        with self.ended:
            self.ended.wait_for(lambda: len(self.free_slots) == slots)


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    table = ThreadTable(context)
    try:
        table.serve()
    finally:
        os.close(table.capacity_fd)
