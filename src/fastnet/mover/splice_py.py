"""splice(2) mover: file and socket through a pipe of page references. Pure Python.

Facts. One end of splice(2) must be a pipe. From a socket each fragment of a packet takes one slot
of the pipe, of which the usual 64 KiB pipe has 16; from the pipe to a file the bytes are copied
once, into the page cache. EAGAIN is "socket empty" or "pipe full".
Decision: a pipe of MOVER_PIPE_BYTES, or as much of that as this user may have, drained before it is
filled again: so EAGAIN has one meaning, and a pipe never holds bytes of two extents.
Cost: two descriptors, two system calls per step. Twin: csrc/fn_mover.h.
"""

from __future__ import annotations

import os

from fastnet.limits import MOVER_STEP_BYTES
from fastnet.mover import copy_py
from fastnet.mover._pipe import open_pipe
from fastnet.mover.contract import NO_OFFSET

FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Mover(copy_py.Mover):
    """One direction of one socket."""

    name = "splice"

    def __init__(self) -> None:
        super().__init__()
        self._out, self._in, self.pipe_bytes = open_pipe()
        self._piped = 0

    @property
    def held_bytes(self) -> int:
        return self._piped + len(self._held)

    def close(self) -> None:
        """Drop what is held, and the pipe."""
        super().close()
        self._piped = 0
        if self._in >= 0:
            os.close(self._in)
            os.close(self._out)
            self._in = self._out = -1

    def _send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if self.runs == self.name:
            try:
                return self._splice_out(sock_fd, file_fd, offset, count)
            except BlockingIOError:
                raise
            except OSError as error:
                self._copy_from_now_on(error)
                self._piped = 0  # it is in the file, and is read again
        return self._copy_out(sock_fd, file_fd, offset, count)

    def _splice_out(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if offset == NO_OFFSET:
            raise copy_py.no_offset()
        if not self._piped:
            most = min(count, self.pipe_bytes, MOVER_STEP_BYTES)
            self._piped = os.splice(file_fd, self._in, most, offset_src=offset, flags=FLAGS)
        if not self._piped:
            return 0
        moved = os.splice(self._out, sock_fd, min(count, self._piped), flags=FLAGS)
        self._piped -= moved
        return moved

    def _receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if self.runs == self.name:
            try:
                return self._splice_in(sock_fd, file_fd, offset, count)
            except BlockingIOError:
                raise
            except OSError as error:
                self._copy_from_now_on(error)
                self._unpipe()
        return self._copy_in(sock_fd, file_fd, offset, count)

    def _splice_in(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if offset == NO_OFFSET:
            raise copy_py.no_offset()
        if not self._piped:
            most = min(count, self.pipe_bytes, MOVER_STEP_BYTES)
            self._piped = os.splice(sock_fd, self._in, most, flags=FLAGS)
        if not self._piped:
            return 0
        moved = os.splice(
            self._out, file_fd, min(count, self._piped), offset_dst=offset, flags=FLAGS
        )
        self._piped -= moved
        return moved

    def _unpipe(self) -> None:
        """Copy the bytes that are in the pipe already (M10)."""
        if self._piped:
            self._held = memoryview(os.read(self._out, self._piped))
            self._piped = 0
