"""Pipes of the splice movers, as large as this user may have them.

Facts. pipe(7): a user without privilege gets pipes of up to pipe-max-size, 1 MiB, until all of them
together reach pipe-user-pages-soft; then new ones are small and cannot be widened.
"""

from __future__ import annotations

import fcntl
import os

from fastnet.limits import MOVER_PIPE_BYTES


def open_pipe() -> tuple[int, int, int]:
    """Create a non-blocking pipe. Returns its read end, its write end and its size in bytes."""
    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return out, into, widen(into)


def widen(pipe_fd: int) -> int:
    """Enlarge a pipe up to MOVER_PIPE_BYTES, as far as allowed. Returns its size."""
    wanted = MOVER_PIPE_BYTES
    while wanted > (now := fcntl.fcntl(pipe_fd, fcntl.F_GETPIPE_SZ)):
        try:
            return fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, wanted)
        except OSError:
            wanted //= 2
    return now
