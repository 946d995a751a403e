"""epoll(7) poller, level-triggered. The pure twin of epoll_c.pyx, which has the argument."""

from __future__ import annotations

import select

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._connection_py import READ_INTEREST, WRITE_INTEREST
from fastnet.engine.stream._loop_py import HANGUP, run_loop

EVENTS = {
    0: 0,
    READ_INTEREST: select.EPOLLIN,
    WRITE_INTEREST: select.EPOLLOUT,
    READ_INTEREST | WRITE_INTEREST: select.EPOLLIN | select.EPOLLOUT,
}
"""epoll events by interest."""


class Epoll:
    """An epoll set."""

    def __init__(self) -> None:
        self.epoll = select.epoll()

    def watch(self, fd: int, before: int, interest: int) -> None:
        if not interest:
            self.epoll.unregister(fd)
        elif before:
            self.epoll.modify(fd, EVENTS[interest])
        else:
            self.epoll.register(fd, EVENTS[interest])

    def forget(self, fd: int) -> None:
        pass

    def wait(self, room: int, timeout_ms: int) -> list[tuple[int, int]]:
        timeout_s = None if timeout_ms < 0 else timeout_ms / 1000
        return [
            (
                fd,
                (READ_INTEREST if events & select.EPOLLIN else 0)
                | (WRITE_INTEREST if events & select.EPOLLOUT else 0)
                | (HANGUP if events & (select.EPOLLERR | select.EPOLLHUP) else 0),
            )
            for fd, events in self.epoll.poll(timeout_s, room)
        ]


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    poller = Epoll()
    try:
        run_loop(context, poller)
    finally:
        poller.epoll.close()
