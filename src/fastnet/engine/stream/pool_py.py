"""A fixed number of threads and a bounded queue of accepted connections. The twin of pool_c.pyx,
which has the argument.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor
from fastnet.engine.stream._blocking_py import serve


class Pool:
    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.filled = threading.Condition()
        """Guards the three below."""
        self.queue: deque[tuple[socket.socket, Any]] = deque()
        self.held = 0
        """Connections waiting or being served."""
        self.closing = False
        self.members: list[threading.Thread] = []
        self.room_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Written when a full pool has room again."""

    def is_full(self) -> bool:
        limits = self.context.limits
        return len(self.queue) >= limits.pool_queue_max or self.held >= limits.max_connections

    def take_turns(self, index: int) -> None:
        """The whole life of a pool thread: connection after connection."""
        while True:
            with self.filled:
                self.filled.wait_for(lambda: self.queue or self.closing)
                if not self.queue:
                    return
                if self.is_full():
                    os.eventfd_write(self.room_fd, 1)
                sock, peer = self.queue.popleft()
            serve(self.context, self.context.counters.row(index + 1), sock, peer)
            with self.filled:
                if self.is_full():
                    os.eventfd_write(self.room_fd, 1)
                self.held -= 1

    def hire(self) -> None:
        for index in range(self.context.limits.pool_size):
            self.members.append(
                threading.Thread(target=self.take_turns, args=(index,), daemon=True)
            )
            self.members[-1].start()

    def serve(self) -> None:
        acceptor = Acceptor(self.context, self.room_fd)
        while True:
            with self.filled:
                acceptor.full = self.is_full()
            try:
                accepted = acceptor.next()
            except EOFError:
                return
            if accepted is None:
                os.eventfd_read(self.room_fd)
                continue
            with self.filled:
                self.queue.append(accepted)
                self.held += 1
                self.filled.notify()

    def dismiss(self) -> None:
        """Let the members finish what they serve and what is queued."""
        with self.filled:
            self.closing = True
            self.filled.notify_all()
        for member in self.members:
            member.join()


def run(context: LoopContext) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    pool = Pool(context)
    try:
        pool.hire()
        pool.serve()
    finally:
        pool.dismiss()
        os.close(pool.room_fd)
