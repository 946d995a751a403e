"""Pidfile: a file with the process id, and a lock that shows that the process is alive.

Facts. The process of a pid in a file may have died without removing the file, and the pid may have
been reused. A flock(2) lock ends with the process that holds it, in any case. A file can be removed
and created again between our open and our lock, so the lock counts only if the path still refers to
the locked file.
Decision: the lock decides whether a server runs; the number is for users and scripts. A file
without a lock is stale and taken over. A file with other content than a pid is not ours and left
alone. At the end the file is removed while the lock is held, and only if it is still the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os

from fastnet.errors import ConfigError, reason

PID_BYTES_MAX = 32


class Pidfile:
    """A locked file with our pid. Raises ConfigError when another process holds the lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()
        self._fd = -1
        try:
            while self._fd < 0:
                self._try_lock()
        except OSError as error:
            hint = "Choose a file this user may write, or make its folder first"
            raise ConfigError(f"cannot write --pidfile {path}: {reason(error)}", hint) from error

    def _try_lock(self) -> None:
        """Open, lock and write the file. Leaves _fd at -1 if the file was replaced meanwhile."""
        fd = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
        )
        try:
            text = os.pread(fd, PID_BYTES_MAX + 1, 0)
            if len(text) > PID_BYTES_MAX or (text.strip() and not text.strip().isdigit()):
                raise ConfigError(
                    f"{self.path} exists and is not a pidfile", "Choose another --pidfile"
                )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
                raise self._locked_error(fd) from None
            if not self._is_at_path(fd):
                return
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % self._pid, 0)
            self._fd = fd
        finally:
            if self._fd != fd:
                os.close(fd)

    def _locked_error(self, fd: int) -> ConfigError:
        """The error when the file is locked; its holder may not have written its pid yet."""
        pid = os.pread(fd, PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
        owner = f"process {pid}" if pid else "another process"
        hint = f"Stop it first (kill {pid or 'PID'}), or choose another --pidfile"
        return ConfigError(f"already running: {owner} holds {self.path}", hint)

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Remove the file if it is ours, and release the lock."""
        if self._fd < 0:
            return
        try:
            if os.getpid() == self._pid and self._is_at_path(self._fd):
                os.unlink(self.path)
        except OSError:
            # the directory is gone or read-only; the lock ends anyway, and a stale file is harmless
            pass
        finally:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Pidfile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
