"""sendfile(2) mover: page cache to socket without a copy; receiving copies. Pure Python.

Facts. sendfile(2) on a non-blocking socket returns the bytes that fitted; 0 means that the file
ends there, so a file that shrank is no reason to repeat the call. It cannot read from sockets.
Twin: csrc/fn_mover.h.
"""

from __future__ import annotations

import os

from fastnet.limits import MOVER_STEP_BYTES
from fastnet.mover import copy_py
from fastnet.mover.contract import NO_OFFSET


class Mover(copy_py.Mover):
    """One direction of one socket."""

    name = "sendfile"

    def _send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if self.runs == self.name:
            try:
                if offset == NO_OFFSET:
                    raise copy_py.no_offset()
                return os.sendfile(sock_fd, file_fd, offset, min(count, MOVER_STEP_BYTES))
            except BlockingIOError:
                raise
            except OSError as error:
                self._copy_from_now_on(error)
        return self._copy_out(sock_fd, file_fd, offset, count)

    def _receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if self.runs == self.name:
            self.runs, self.reason = "copy", "sendfile only sends"
        return self._copy_in(sock_fd, file_fd, offset, count)
