"""select(2) poller: two sets, scanned on every wait. The pure twin of select_c.pyx.

select_c.pyx has the argument.
"""

from __future__ import annotations

import select

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._connection_py import READ_INTEREST, WRITE_INTEREST
from fastnet.engine.stream._loop_py import run_loop
from fastnet.limits import FD_SETSIZE


class Select:
    """The descriptors with read interest and those with write interest."""

    def __init__(self) -> None:
        self.reads: set[int] = set()
        self.writes: set[int] = set()

    def watch(self, fd: int, before: int, interest: int) -> None:
        if fd >= FD_SETSIZE:
            raise ValueError(f"select(2) cannot watch descriptor {fd}")
        self.forget(fd)
        if interest & READ_INTEREST:
            self.reads.add(fd)
        if interest & WRITE_INTEREST:
            self.writes.add(fd)

    def forget(self, fd: int) -> None:
        self.reads.discard(fd)
        self.writes.discard(fd)

    def wait(self, room: int, timeout_ms: int) -> list[tuple[int, int]]:
        timeout_s = None if timeout_ms < 0 else timeout_ms / 1000
        reads, writes, _ = select.select(self.reads, self.writes, (), timeout_s)
        ready = dict.fromkeys(reads, READ_INTEREST)
        for fd in writes:
            ready[fd] = ready.get(fd, 0) | WRITE_INTEREST
        return list(ready.items())


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    run_loop(context, Select())
