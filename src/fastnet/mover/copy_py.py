"""Copy mover: read(2) and write(2) through one buffer, for any file, pipe or socket.

Pure Python.

Facts. A file can be read again, a pipe and a socket cannot. A pipe that poll(2) calls writable
takes PIPE_BUF bytes without blocking (pipe(7)); a file is always ready, and blocks for its disk.
Decision: bytes of a file that the socket did not take are read again in the next step; bytes from a
pipe or a socket are held. The other movers override one or two steps of this one, and fall back to
it where the kernel refuses theirs.
Cost: two copies per byte. Twin: csrc/fn_mover.h.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from fastnet.errors import reason
from fastnet.limits import MOVER_BUFFER_BYTES, MOVER_WAKE_BYTES
from fastnet.mover.contract import NO_OFFSET, Tap

REFUSALS = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE)
"""Errors for a file or socket that sendfile(2) or splice(2) does not support."""

NOTHING = memoryview(b"")

Step = Callable[[int, int, int, int], int]


class Mover:
    """One direction of one socket."""

    name = "copy"

    def __init__(self) -> None:
        self.moved_bytes = 0
        self.runs = self.name
        self.reason = ""
        self.tap: Tap | None = None
        self._passed = NOTHING
        self._buffer = memoryview(bytearray(MOVER_BUFFER_BYTES))
        self._held = NOTHING
        self._waits_for_pipe = False
        self._woken_for = 1

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Drop what is held."""
        self._held = NOTHING

    # Steps

    def send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        """One step, file to socket (M1 to M4)."""
        return self._count(self._send(sock_fd, file_fd, offset, count))

    def receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        """One step, socket to file (M1 to M3, M5, M6)."""
        return self._count(self._receive(sock_fd, file_fd, offset, count))

    def _count(self, moved: int) -> int:
        self.moved_bytes += moved
        if self.tap and moved:
            self.tap(self._passed[:moved])
        return moved

    def _send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        return self._copy_out(sock_fd, file_fd, offset, count)

    def _receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        return self._copy_in(sock_fd, file_fd, offset, count)

    def _copy_out(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        self._passed = part = self._buffer[:count]
        if offset == NO_OFFSET:
            if not self._held:
                self._wait_not(file_fd, select.POLLIN)
                self._held = part[: os.readv(file_fd, [part])]
            self._passed = self._held
            sent = os.write(sock_fd, self._held[:count]) if self._held else 0
            self._held = self._held[sent:]
            return sent
        got = os.preadv(file_fd, [part], offset)
        return os.write(sock_fd, part[:got]) if got else 0

    def _copy_in(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        if not self._held:
            part = self._buffer[:count]
            self._held = part[: os.readv(sock_fd, [part])]
        if not self._held:
            return 0
        self._passed = self._held
        if offset == NO_OFFSET:
            self._wait_not(file_fd, select.POLLOUT)
            written = os.write(file_fd, self._held[: min(count, portion(file_fd))])
        else:
            written = os.pwrite(file_fd, self._held[:count], offset)
        self._held = self._held[written:]
        return written

    def _wait_not(self, pipe_fd: int, event: int) -> None:
        """Raise BlockingIOError, and remember the cause, if a pipe is not ready."""
        poll = select.poll()
        poll.register(pipe_fd, event)
        self._waits_for_pipe = not poll.poll(0)
        if self._waits_for_pipe:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _copy_from_now_on(self, error: OSError) -> None:
        """Fall back to copying (M10). Raises `error` again unless it is in REFUSALS."""
        if error.errno not in REFUSALS:
            raise error
        self.runs, self.reason = "copy", f"{self.name}: {reason(error)}"

    # Slices

    def send_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]:
        """Steps of `send` and waits, for `slice_s` seconds at most (M9)."""
        return self._slice(
            self.send, select.POLLOUT, select.POLLIN, sock_fd, file_fd, offset, count, slice_s
        )

    def receive_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]:
        """Steps of `receive` and waits, for `slice_s` seconds at most (M9)."""
        try:
            return self._slice(
                self.receive,
                select.POLLIN,
                select.POLLOUT,
                sock_fd,
                file_fd,
                offset,
                count,
                slice_s,
            )
        finally:
            self._low_water(sock_fd, 1)

    def _slice(
        self,
        step: Step,
        sock_event: int,
        pipe_event: int,
        sock_fd: int,
        file_fd: int,
        offset: int,
        count: int,
        slice_s: float,
    ) -> tuple[int, bool]:
        ends = monotonic() + slice_s
        moved = 0
        while moved < count:
            self._waits_for_pipe = False
            try:
                n = step(
                    sock_fd,
                    file_fd,
                    NO_OFFSET if offset == NO_OFFSET else offset + moved,
                    count - moved,
                )
            except BlockingIOError:
                left_s = ends - monotonic()
                if left_s <= 0:
                    break
                if sock_event == select.POLLIN and offset != NO_OFFSET:
                    self._low_water(sock_fd, min(count - moved, MOVER_WAKE_BYTES))
                if self._waits_for_pipe:
                    wait_for_pipe(file_fd, pipe_event, sock_fd, left_s)
                else:
                    wait(sock_fd, sock_event, left_s)
                continue
            if n == 0:
                return moved, True
            moved += n
            if monotonic() >= ends:
                break
        return moved, False

    def _low_water(self, sock_fd: int, size: int) -> None:
        """Have poll(2) report the socket readable from this number of bytes on, or at its end.

        socket(7), SO_RCVLOWAT.
        """
        if size == self._woken_for or (size <= 1 and self._woken_for <= 1):
            return
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        self._woken_for = size


def no_offset() -> OSError:
    """The error of sendfile(2) and splice(2) for a file without offsets that is no pipe."""
    return OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))


def portion(pipe_fd: int) -> int:
    """Bytes that a pipe or terminal reported as writable takes without blocking."""
    return MOVER_BUFFER_BYTES if stat.S_ISREG(os.fstat(pipe_fd).st_mode) else select.PIPE_BUF


def wait(fd: int, event: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll(seconds * 1000)


def wait_for_pipe(pipe_fd: int, event: int, sock_fd: int, seconds: float) -> None:
    """Wait for a pipe; raise OSError when the connection fails meanwhile."""
    poll = select.poll()
    poll.register(pipe_fd, event)
    poll.register(sock_fd, 0)
    for fd, _ in poll.poll(seconds * 1000):
        if fd == sock_fd:
            gone(sock_fd)


def gone(sock_fd: int) -> NoReturn:
    with socket.socket(fileno=os.dup(sock_fd)) as sock:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.EPIPE
    raise OSError(code, os.strerror(code))
