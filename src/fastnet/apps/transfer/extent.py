"""Move one extent of a file over a connection, in slices, with a time-out for silence.

Decision: a mover moves for MOVER_SLICE_S without the GIL and comes back; between slices signals are
noticed, progress is told and silence is measured. Whoever wants to stop a transfer raises in
`on_slice`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic

from fastnet.limits import MOVER_SLICE_S
from fastnet.mover.contract import STREAM, Mover

OnSlice = Callable[[int], None]
"""Told after each slice how many bytes of the extent are through."""

WITHOUT_END = 1 << 62
"""A count for "until the end": no file and no stream is that long."""


class Stalled(Exception):
    """Nothing has moved for the time-out. moved_bytes: what was through by then."""

    def __init__(self, moved_bytes: int) -> None:
        super().__init__(f"stalled after {moved_bytes} bytes")
        self.moved_bytes = moved_bytes


def send_extent(
    mover: Mover,
    sock: socket.socket,
    file_fd: int,
    offset: int,
    count: int,
    stall_s: float,
    on_slice: OnSlice,
) -> int:
    """Send `count` bytes from `offset`. Returns the bytes sent: fewer only when the file or stream
    ended before.

    Raises Stalled, OSError of the socket or the file, and whatever on_slice raises.
    """
    return _slices(mover.send_some, sock, file_fd, offset, count, stall_s, on_slice)


def receive_extent(
    mover: Mover,
    sock: socket.socket,
    file_fd: int,
    offset: int,
    count: int,
    stall_s: float,
    on_slice: OnSlice,
) -> int:
    """Receive `count` bytes to `offset`. Returns the bytes in the file: fewer only when the peer
    half-closed before.
    """
    return _slices(mover.receive_some, sock, file_fd, offset, count, stall_s, on_slice)


def _slices(
    some: Callable[[int, int, int, int, float], tuple[int, bool]],
    sock: socket.socket,
    file_fd: int,
    offset: int,
    count: int,
    stall_s: float,
    on_slice: OnSlice,
) -> int:
    moved, ended = 0, False
    heard = monotonic()
    while moved < count and not ended:
        at = STREAM if offset == STREAM else offset + moved
        n, ended = some(sock.fileno(), file_fd, at, count - moved, min(MOVER_SLICE_S, stall_s))
        moved += n
        if n:
            heard = monotonic()
        elif not ended and monotonic() - heard >= stall_s:
            raise Stalled(moved)
        on_slice(moved)
    return moved
