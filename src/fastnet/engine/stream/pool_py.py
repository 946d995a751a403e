"""A fixed number of threads and a bounded queue of accepted connections.

The pure twin of pool_c.pyx, which has the argument.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor
from fastnet.engine.stream._blocking_py import serve_connection


class ThreadPool:
    """The threads of one loop and their queue."""

    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.filled = threading.Condition()
        """Guards the three below; notified when one of the last two has changed."""
        self.admitted = 0
        """Connections queued or being served."""
        self.closing = False
        """No further connection will be queued."""
        self.queue: deque[tuple[socket.socket, Any]] = deque()
        self.members: list[threading.Thread] = []
        self.capacity_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Written when a full pool has capacity again."""

    def is_full(self) -> bool:
        limits = self.context.limits
        return len(self.queue) >= limits.pool_queue_max or self.admitted >= limits.max_connections

    def take_connection(self, finished: int) -> tuple[socket.socket, Any] | None:
        """Wait for a connection. finished: connections this thread has just closed.

        None when the pool is closing and the queue is empty.
        """
        with self.filled:
            if finished and self.is_full():
                os.eventfd_write(self.capacity_fd, 1)
            self.admitted -= finished
            self.filled.wait_for(lambda: self.queue or self.closing)
            if not self.queue:
                return None
            if self.is_full():
                os.eventfd_write(self.capacity_fd, 1)
            return self.queue.popleft()

    def run_thread(self, index: int) -> None:
        """The life of a pool thread: connection after connection."""
        row = self.context.counters.row(index + 1)
        finished = 0
        while (accepted := self.take_connection(finished)) is not None:
            serve_connection(self.context, row, *accepted)
            finished = 1

    def serve(self) -> None:
        """Queue connections until stopped."""
        acceptor = Acceptor(self.context, self.capacity_fd)
        while True:
            with self.filled:
                acceptor.full = self.is_full()
            try:
                accepted = acceptor.next()
            except EOFError:
                return
            if accepted is None:
                os.eventfd_read(self.capacity_fd)
                continue
            with self.filled:
                self.queue.append(accepted)
                self.admitted += 1
                self.filled.notify()

    def start_threads(self) -> None:
        """Start all threads."""
        for index in range(self.context.limits.pool_size):
            self.members.append(
                threading.Thread(target=self.run_thread, args=(index,), daemon=True)
            )
            self.members[-1].start()

    def stop_threads(self) -> None:
        """Let the threads finish what they serve and what is queued, and join them."""
        with self.filled:
            self.closing = True
            self.filled.notify_all()
        for member in self.members:
            member.join()


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    pool = ThreadPool(context)
    try:
        pool.start_threads()
        pool.serve()
    finally:
        pool.stop_threads()
        os.close(pool.capacity_fd)
