"""Extents of a file, and the one loop that copies an extent between a file and a socket.

Decision: a mover runs for MOVER_SLICE_S without the GIL and returns; between slices the loop checks
for cancellation, reports progress and measures how long nothing has moved. The rate limit gives a
slice its length, the connection owns the idle timeout. An extent is sent by one such loop, whatever
the mover, with TLS or without it, in fastnet/1 and in raw mode.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from fastnet.limits import MOVER_SLICE_S
from fastnet.mover.contract import NO_OFFSET

WITHOUT_END = 1 << 62
"""Byte count that means "until the source ends"; no file and no pipe is that long."""


@dataclass(frozen=True)
class Extent:
    """A byte range of a file with the digest of its bytes."""

    offset: int
    """First byte in the file."""
    count: int
    """Length in bytes."""
    digest: bytes = b""
    """Digest of the bytes; empty while it is not known."""

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.offset + self.count


def subtract(
    ranges: Iterable[tuple[int, int]], held: Sequence[Extent], bytes_max: int
) -> Iterator[tuple[Extent, bool]]:
    """Split byte ranges into extents to send and extents that the receiver already holds.

    Args:
        ranges: Half-open ranges (offset, end) in ascending order, without overlaps.
        held: Extents in ascending order, without overlaps. One that begins in a hole is not used.
        bytes_max: Longest extent to send.
    Returns:
        Pairs of an extent and whether it is held, in ascending order; together they cover `ranges`.
    """
    at = offset = 0
    for start, end in ranges:
        offset = max(start, offset)
        while offset < end:
            while at < len(held) and held[at].offset < offset:
                at += 1
            following = held[at] if at < len(held) else None
            if following is not None and following.offset == offset:
                extent, is_held = following, True
            else:
                stop = end if following is None else min(end, following.offset)
                extent, is_held = Extent(offset, min(bytes_max, stop - offset)), False
            yield extent, is_held
            offset += extent.count


class CopyConnection(Protocol):
    """What a copy needs of its connection."""

    sock: socket.socket
    """Non-blocking socket."""
    stall_s: float
    """Idle timeout in seconds."""

    def check_idle(self, since: float) -> None:
        """Raise when nothing has moved since `since` (monotonic) for longer than allowed."""

    def on_moved(self, byte_count: int) -> None:
        """Called after each slice with its bytes, 0 included; may raise to cancel."""


def unlimited(byte_count: int) -> int:
    """The allowance of a copy without a rate limit."""
    return byte_count


MoveSome = Callable[[int, int, int, int, float], tuple[int, bool]]
"""`send_some` or `receive_some` of a mover (mover/contract.py, M9)."""


@dataclass
class ExtentCopy:
    """One extent on its way between a file and a socket."""

    move_some: MoveSome
    """One slice of a mover, in the direction of the copy."""
    connection: CopyConnection
    file_fd: int
    offset: int
    """First byte in the file, or NO_OFFSET for a pipe or terminal."""
    count: int
    """Bytes to copy, or WITHOUT_END."""
    allowance: Callable[[int], int] = unlimited
    """Given the bytes that are left, returns how many may be sent now; sleeps for a rate limit."""

    def run(self) -> int:
        """Copy the extent.

        Returns:
            Bytes copied; fewer than `count` only when the file or pipe ended, or the peer sent FIN.
        Raises:
            OSError: Of the socket or the file.  Whatever `check_idle` and `on_moved` raise.
        """
        sock_fd, slice_s = (
            self.connection.sock.fileno(),
            min(MOVER_SLICE_S, self.connection.stall_s),
        )
        copied, allowed, ended, since = 0, 0, False, monotonic()
        while copied < self.count and not ended:
            if not allowed:
                allowed = self.allowance(self.count - copied)
            at = NO_OFFSET if self.offset == NO_OFFSET else self.offset + copied
            moved, ended = self.move_some(sock_fd, self.file_fd, at, allowed, slice_s)
            copied += moved
            allowed -= moved
            if moved:
                since = monotonic()
            elif not ended:
                self.connection.check_idle(since)
            self.connection.on_moved(moved)
        return copied
