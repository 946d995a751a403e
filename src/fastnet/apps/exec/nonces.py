"""Nonces file: the requests that were used before, one line each, kept across restarts.

    1781872345000000 alice 8f3a...

Facts. A request is fresh while its timestamp is within EXEC_CLOCK_S of the server's clock; a nonce
has to be remembered for that long only, and forgotten nonces are all older. A clock that is set
back would make them fresh again. A file that is being written when the power fails ends in half a
line, or lacks the last one.
Decision: a nonce is on the disk (fdatasync(2)) before its command starts, or the command does not
start. Each forgotten nonce raises a floor, and no request from before the floor is fresh, whatever
the clock says. A file from the future is an error at the start: until that time no new request
could be told from a copy. Half a last line is cut off: the command behind it was not started. The
file is rewritten without stale nonces when it is opened and when these are the larger half. One
server holds it at a time, by flock(2) on the file as in process/pidfile.py. A file that has been
removed meanwhile is written anew; when another file has its name, which may be another server's,
no nonce is written to either.
Cost: one fdatasync(2) a command, milliseconds on a real disk.
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


class RequestId(NamedTuple):
    """Identity of a request, however often it arrives."""

    key_id: str
    """The key that authenticates it."""
    nonce: bytes
    """Random, one a command."""


class Nonces:
    """The nonces of a file, locked until `close`.

    Args:
        path: The file; made if it is missing.
        now_us: The server's clock, microseconds since 1970.
    Raises:
        ConfigError: The file cannot be opened, locked or read.
    """

    def __init__(self, path: str, now_us: int) -> None:
        self.path = path
        self.timestamp_us: dict[RequestId, int] = {}
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
        """Open and lock the file. Leaves _fd at -1 if it was replaced meanwhile."""
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
                timestamp, key_id, nonce = line.decode("ascii").split()
                self.timestamp_us[RequestId(key_id, bytes.fromhex(nonce))] = int(timestamp)
            except ValueError:
                hint = "Name another file with --nonces, or remove this one"
                raise ConfigError(f"{self.path}: line {number} is no nonce", hint) from None
        latest_us = max(self.timestamp_us.values(), default=0)
        if latest_us > now_us + 2 * WINDOW_US:
            ahead_s = (latest_us - now_us) / 1e6
            hint = "Set the clock right; if it was wrong before, remove the file "
            hint += f"{EXEC_CLOCK_S:g} s after the last request"
            raise ConfigError(f"{self.path} has a request from {ahead_s:.0f} s in the future", hint)
        self._rewrite(now_us)

    def is_fresh(self, timestamp_us: int, now_us: int) -> bool:
        """Whether a request of this age is new if its nonce is unknown."""
        self._forget(now_us)
        return abs(now_us - timestamp_us) <= WINDOW_US and timestamp_us > self.floor_us

    def __contains__(self, request_id: RequestId) -> bool:
        """Whether this request was used before."""
        return request_id in self.timestamp_us

    def is_full(self) -> bool:
        """Whether no further nonce can be kept."""
        return len(self.timestamp_us) >= EXEC_NONCES_MAX

    def add(self, request_id: RequestId, timestamp_us: int, now_us: int) -> None:
        """Write a nonce to the disk. Raises OSError; then the nonce is not remembered."""
        if not self._is_in_place() or self._lines > 2 * len(self.timestamp_us) + REWRITE_LINES:
            self._rewrite(now_us)
        line = f"{timestamp_us} {request_id.key_id} {request_id.nonce.hex()}\n".encode("ascii")
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
        self.timestamp_us[request_id] = timestamp_us

    def _is_in_place(self) -> bool:
        """Whether the file still has its name. Raises OSError if another file has it."""
        try:
            if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                return True
        except FileNotFoundError:
            return False
        raise OSError("another file has its place; restart this server")

    def _forget(self, now_us: int) -> None:
        """Drop stale nonces. Insertion is nearly in the order of time, so they are at the front."""
        edge_us = now_us - WINDOW_US
        while self.timestamp_us:
            request_id = next(iter(self.timestamp_us))
            if self.timestamp_us[request_id] >= edge_us:
                break
            self.floor_us = max(self.floor_us, self.timestamp_us.pop(request_id))

    def _rewrite(self, now_us: int) -> None:
        """Replace the file by one without stale nonces, locked before it has the name.

        Raises OSError.
        """
        self._forget(now_us)
        lines = [
            f"{timestamp_us} {key_id} {nonce.hex()}\n"
            for (key_id, nonce), timestamp_us in self.timestamp_us.items()
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
        """Write the folder to the disk, or a power failure would bring back the old file."""
        fd = os.open(
            os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Release the lock. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
