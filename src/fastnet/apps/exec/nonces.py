"""What was asked before: one line a nonce in a file that outlives the server.

    1781872345000000 alice 8f3a...

Facts. A request is fresh when its `asked` is within EXEC_CLOCK_S of our clock; only as long must
its nonce be remembered, and forgotten nonces are all older than that. A clock set back would make
them fresh again. A file being written when the power fails ends in half a line, or lacks the last
one.
Decision: a nonce is on the disk (fdatasync) before its command starts, or the command does not
start. What was forgotten raises a floor, and nothing asked before the floor is fresh, whatever the
clock says. A file from the future is an error of the start, because until its time has come no
request could be told from a repeated one. Half a last line is cut off: the command behind it was
not started. The file is rewritten without the stale nonces when it is opened and when these are the
larger half. One server holds it at a time, by flock(2) on the file as in process/pidfile.py. When
the file has been removed meanwhile it is written anew; when another one has its place, which may be
another server's by now, nothing is remembered in either.
Cost: one fdatasync a command, milliseconds on a real disk.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import NamedTuple

from fastnet.errors import ConfigError, reason
from fastnet.limits import EXEC_CLOCK_S, EXEC_NONCES_FILE_BYTES_MAX, EXEC_NONCES_MAX
from fastnet.security.keys import check_private

NONCES_FILE = "~/.local/state/fastnet/exec.nonces"
REWRITE_LINES = 1024
WINDOW_US = int(EXEC_CLOCK_S * 1_000_000)


class Seen(NamedTuple):
    """One request, however often it arrives."""

    key_id: str
    nonce: bytes


class Nonces:
    """The nonces of a file, locked until `close`. Raises ConfigError when the file cannot be
    had.
    """

    def __init__(self, path: str, now_us: int) -> None:
        self.path = path
        self.asked_us: dict[Seen, int] = {}
        self.floor_us = 0
        self._lines = 0
        self._fd = -1
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), 0o700, exist_ok=True)
            while self._fd < 0:
                self._open()
            self._load(now_us)
        except OSError as error:
            self.close()
            hint = "Name a file this user may write with --nonces"
            raise ConfigError(f"cannot keep the nonces in {path}: {reason(error)}", hint) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Open and lock. Leaves _fd at -1 if the file was replaced meanwhile."""
        fd = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        try:
            check_private(self.path, "nonces", os.fstat(fd), 0o022)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hint = "Stop that server, or give this one a file of its own with --nonces"
                raise ConfigError(f"another server keeps its nonces in {self.path}", hint) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def _load(self, now_us: int) -> None:
        if os.fstat(self._fd).st_size > EXEC_NONCES_FILE_BYTES_MAX:
            hint = "Name another file with --nonces, or remove this one"
            raise ConfigError(f"{self.path} has more than {EXEC_NONCES_FILE_BYTES_MAX} bytes", hint)
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                asked, key_id, nonce = line.decode("ascii").split()
                self.asked_us[Seen(key_id, bytes.fromhex(nonce))] = int(asked)
            except ValueError:
                hint = "Name another file with --nonces, or remove this one"
                raise ConfigError(f"{self.path}: line {number} is no nonce of ours", hint) from None
        latest_us = max(self.asked_us.values(), default=0)
        if latest_us > now_us + 2 * WINDOW_US:
            ahead_s = (latest_us - now_us) / 1e6
            hint = f"Set the clock right; if it was wrong before, remove the file {EXEC_CLOCK_S:g} s after the last request"
            raise ConfigError(f"{self.path} has a request from {ahead_s:.0f} s in the future", hint)
        self._rewrite(now_us)

    def is_fresh(self, asked_us: int, now_us: int) -> bool:
        """Whether a request of this age could be known to be new."""
        self._forget(now_us)
        return abs(now_us - asked_us) <= WINDOW_US and asked_us > self.floor_us

    def __contains__(self, seen: Seen) -> bool:
        return seen in self.asked_us

    def is_full(self) -> bool:
        return len(self.asked_us) >= EXEC_NONCES_MAX

    def add(self, seen: Seen, asked_us: int, now_us: int) -> None:
        """Remember a request for good. Raises OSError when the disk does not take it, and then it
        is not remembered.
        """
        if not self._is_in_place() or self._lines > 2 * len(self.asked_us) + REWRITE_LINES:
            self._rewrite(now_us)
        line = f"{asked_us} {seen.key_id} {seen.nonce.hex()}\n".encode("ascii")
        end = os.fstat(self._fd).st_size
        try:
            if os.pwrite(self._fd, line, end) != len(line):
                raise OSError("the disk took half a line")
            os.fdatasync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            raise
        self._lines += 1
        self.asked_us[seen] = asked_us

    def _is_in_place(self) -> bool:
        """Whether the file still has its name. Raises OSError if another one has it."""
        try:
            if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                return True
        except FileNotFoundError:
            return False
        raise OSError("another file has its place; restart this server")

    def _forget(self, now_us: int) -> None:
        """Drop what is stale. Insertion is nearly in the order of time, so the front is where to
        look.
        """
        edge_us = now_us - WINDOW_US
        while self.asked_us:
            seen = next(iter(self.asked_us))
            if self.asked_us[seen] >= edge_us:
                break
            self.floor_us = max(self.floor_us, self.asked_us.pop(seen))

    def _rewrite(self, now_us: int) -> None:
        """A new file with what is not stale, under the same name and locked before it has it.
        Raises OSError.
        """
        self._forget(now_us)
        lines = [
            f"{asked_us} {key_id} {nonce.hex()}\n"
            for (key_id, nonce), asked_us in self.asked_us.items()
        ]
        fresh = f"{self.path}.new"
        fd = os.open(
            fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = "".join(lines).encode("ascii")
            if os.pwrite(fd, data, 0) != len(data):
                raise OSError("the disk took half a file")
            os.fsync(fd)
            os.rename(fresh, self.path)
            self._sync_folder()
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._lines = fd, len(lines)

    def _sync_folder(self) -> None:
        """Or the name would be that of the old file after a power failure, without what is appended
        from now on.
        """
        fd = os.open(
            os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
