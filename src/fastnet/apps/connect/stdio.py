"""Standard input and output that never block the loop that polls them.

Facts. O_NONBLOCK belongs to the open file description, which we share with the shell and with every
other program on the same terminal or pipe (fcntl(2)): set here, it would make *their* reads fail,
also after we are gone. A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking
(pipe(7)); a terminal promises only one byte. Regular files are always ready, for poll(2); epoll(7)
refuses them.
Consequence: blocking descriptors, read once per POLLIN, and written in portions that cannot block.
Decision, by what standard output is:
    pipe          PIPE_BUF bytes per POLLOUT. Measured against 64 KiB to a pipe reopened with
                  O_NONBLOCK through /proc/self/fd/1: 1.0 to 1.5 against 0.8 to 1.0 GB/s, and it
                  needs no permission
    terminal      reopened through /proc/self/fd/1 with O_NONBLOCK: that description is ours; where
                  that fails, PIPE_BUF bytes per POLLOUT, and a stopped terminal (Ctrl-S) may stop
                  the input too
    socket        send(2) with MSG_DONTWAIT, which is a flag of the call and not of the socket
    anything else written whole: a file or device that is always ready
Cost: a reader that shares our input and is quicker than our read(2) makes that one read wait; so it
is for every program.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastnet.errors import FastnetError, reason

STDIN, STDOUT, STDERR = 0, 1, 2


class ReaderGone(Exception):
    """The reader of our standard output has closed it."""


class StandardInput:
    """Source of bytes: a descriptor that is polled for POLLIN and then read once."""

    def __init__(self, fd: int = STDIN) -> None:
        self.fd = fd
        self.is_terminal = os.isatty(fd)

    def read_into(self, buffer: memoryview) -> int | None:
        """Bytes read, 0 at the end of input, None when another reader was faster.

        Raises FastnetError when reading fails.
        """
        try:
            return os.readv(self.fd, [buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO and self.is_terminal:
                return 0  # the terminal hung up
            hint = (
                "Give it a file, a pipe, a terminal or /dev/null: fastnet connect ENDPOINT < FILE"
            )
            raise FastnetError(f"cannot read standard input: {reason(error)}", hint) from error


class StandardOutput:
    """Sink of bytes: a descriptor that is polled for POLLOUT and written without blocking."""

    def __init__(self, fd: int = STDOUT) -> None:
        self.fd = fd
        self._own_fd: int | None = None
        self._socket: socket.socket | None = None
        self._portion: int | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode):
            self._portion = select.PIPE_BUF
        elif os.isatty(fd):
            self._reopen_terminal()
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLOUT)

    def _reopen_terminal(self) -> None:
        try:
            self._own_fd = os.open(
                f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            )
        except OSError:
            self._portion = select.PIPE_BUF
        else:
            self.fd = self._own_fd

    def write(self, data: memoryview) -> int:
        """Bytes written without blocking, 0 when there is no room.

        Raises ReaderGone, or FastnetError when writing fails.
        """
        written = 0
        try:
            if self._portion is None:
                return self._write_once(data)
            while written < len(data) and self._poll.poll(0):
                written += os.write(self.fd, data[written : written + self._portion])
        except BlockingIOError:
            return written
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ReaderGone from error
        except OSError as error:
            raise FastnetError(
                f"cannot write to standard output: {reason(error)}", full(error)
            ) from error
        return written

    def _write_once(self, data: memoryview) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        return os.write(self.fd, data)

    def close(self) -> None:
        """Close what was opened here; the descriptor of the caller stays open."""
        if self._socket is not None:
            self._socket.close()
        if self._own_fd is not None:
            os.close(self._own_fd)


def full(error: OSError) -> str:
    return "Free some space and run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def occupy_standard_descriptors() -> None:
    """Open something on descriptors 0, 1 and 2 if they are closed.

    Otherwise a socket could get the number and be used as standard input or output.
    A closed input reads as empty. Writing to a closed output stays an error: the running program's
    file cannot be written, nor reopened for writing as /dev/null could.
    """
    for fd, path, flags in (
        (STDIN, os.devnull, os.O_RDONLY),
        (STDOUT, "/proc/self/exe", os.O_RDONLY),
        (STDERR, os.devnull, os.O_WRONLY),
    ):
        try:
            os.fstat(fd)
        except OSError:
            os.open(path, flags)  # gets the lowest free number, which is fd
    for name, fd in (("stdout", STDOUT), ("stderr", STDERR)):
        if getattr(sys, name) is None:
            with suppress(OSError):
                setattr(
                    sys,
                    name,
                    io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), write_through=True),
                )


@contextmanager
def interruptible() -> Iterator[int]:
    """A descriptor that a signal with a Python handler makes readable, for poll(2).

    Such a handler runs between bytecodes, so a signal right before poll(2) would not end it. The C
    handler writes to this descriptor immediately, the poll returns, and the handler then raises
    KeyboardInterrupt.
    """
    fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    try:
        yield fd
    finally:
        signal.set_wakeup_fd(before)
        os.close(fd)
        os.close(write_fd)
