"""A file that is not complete yet, under a temporary name beside its own.

Decision: its writer holds a lock (flock(2)); a second receiver is refused, and the lock of a killed
one is released. The next receiver of the same file resumes the partial file or starts it over.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.target.paths import part_name
from fastnet.apps.transfer.target.root import Parts, Root
from fastnet.errors import TransferRefused


class PartialFile:
    """`commit` gives it its name, `remove` drops it. parts: its own name."""

    def __init__(self, root: Root, parts: Parts) -> None:
        self.root = root
        self.name = "/".join(parts)
        self.place = (*parts[:-1], part_name(parts[-1]))
        self.fd = self._open_locked()

    def _open_locked(self) -> int:
        """Open and lock the part file.

        Again when its owner finished and moved it away in between.
        """
        while True:
            fd = self.root.open(self.place, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if self._is_lockable(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _is_lockable(self, fd: int) -> bool:
        """Lock it.

        Returns False when it is to be opened anew. Raises TransferRefused for what is not ours to
        write to.
        """
        opened = os.fstat(fd)
        if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.geteuid():
            message = f"what stands at {'/'.join(self.place)} is no unfinished file of ours"
            raise TransferRefused(message, "Remove it, or receive elsewhere", ErrorCode.EXISTS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another receiver is writing {self.name}"
            raise TransferRefused(
                message, "Wait for it, or receive elsewhere", ErrorCode.EXISTS
            ) from error
        if os.fstat(fd).st_nlink > 1:
            # Its owner was killed between giving it its name and taking away this one: writing
            # would be to the whole file.
            self.root.unlink(self.place)
            return False
        found = self.root.lstat(self.place)
        return found is not None and found.st_ino == opened.st_ino

    def commit(self, parts: Parts, replace: bool) -> None:
        """Everything is there: give it its name.

        Raises FileExistsError when it may not replace.
        """
        self.root.rename(self.place, parts, replace)

    def remove(self) -> None:
        """Remove the partial file."""
        with suppress(FileNotFoundError):
            self.root.unlink(self.place)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
