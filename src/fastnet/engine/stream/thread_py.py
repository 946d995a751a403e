"""A thread for each connection. The twin of thread_c.pyx, which has the argument.

One difference is essential: these threads share the GIL, so they take turns where the native ones
run at once.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor, turn_away
from fastnet.engine.stream._blocking_py import serve
from fastnet.metrics.counters import REFUSED


class Crew:
    def __init__(self, context: LoopContext) -> None:
        self.context = context
        self.changed = threading.Condition()
        """Guards free and its count."""
        self.free = list(range(context.limits.max_connections))
        self.room_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Written when a full crew has a place again."""

    def serve_one(self, place: int, sock: socket.socket, peer: Any) -> None:
        """The whole life of a connection's thread."""
        try:
            serve(self.context, self.context.counters.row(place + 1), sock, peer)
        finally:
            self.give_back(place)

    def give_back(self, place: int) -> None:
        with self.changed:
            if not self.free:
                os.eventfd_write(self.room_fd, 1)
            self.free.append(place)
            self.changed.notify()

    def start(self, sock: socket.socket, peer: Any) -> None:
        """Give the connection a thread. Without one to be had it is turned away."""
        with self.changed:
            place = self.free.pop()
        try:
            threading.Thread(target=self.serve_one, args=(place, sock, peer), daemon=True).start()
        except RuntimeError:
            turn_away(self.context, sock, peer, REFUSED)
            self.give_back(place)

    def serve(self) -> None:
        acceptor = Acceptor(self.context, self.room_fd)
        while True:
            with self.changed:
                acceptor.full = not self.free
            try:
                accepted = acceptor.next()
            except EOFError:
                break
            if accepted is not None:
                self.start(*accepted)
            else:
                os.eventfd_read(self.room_fd)
        with self.changed:
            self.changed.wait_for(lambda: len(self.free) == self.context.limits.max_connections)


def run(context: LoopContext) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    crew = Crew(context)
    try:
        crew.serve()
    finally:
        os.close(crew.room_fd)
