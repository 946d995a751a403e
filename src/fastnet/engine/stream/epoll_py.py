"""Wait with epoll(7), level-triggered. The twin of epoll_c.pyx, which has the argument."""

from __future__ import annotations

import select

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._connection_py import READS, WRITES
from fastnet.engine.stream._loop_py import HANGUP, run_loop

EVENTS = {
    0: 0,
    READS: select.EPOLLIN,
    WRITES: select.EPOLLOUT,
    READS | WRITES: select.EPOLLIN | select.EPOLLOUT,
}


class Epoll:
    def __init__(self) -> None:
        self.epoll = select.epoll()

    def watch(self, fd: int, before: int, wants: int) -> None:
        if not wants:
            self.epoll.unregister(fd)
        elif before:
            self.epoll.modify(fd, EVENTS[wants])
        else:
            self.epoll.register(fd, EVENTS[wants])

    def forget(self, fd: int) -> None:
        pass

    def wait(self, room: int, timeout_ms: int) -> list[tuple[int, int]]:
        timeout_s = None if timeout_ms < 0 else timeout_ms / 1000
        return [
            (
                fd,
                (READS if events & select.EPOLLIN else 0)
                | (WRITES if events & select.EPOLLOUT else 0)
                | (HANGUP if events & (select.EPOLLERR | select.EPOLLHUP) else 0),
            )
            for fd, events in self.epoll.poll(timeout_s, room)
        ]


def run(context: LoopContext) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    poller = Epoll()
    try:
        run_loop(context, poller)
    finally:
        poller.epoll.close()
