"""Target of a raw transfer: a file that appears when it is complete, or a stream.

Facts. rename(2) replaces a file at one instant, within one file system; link(2) does not replace. A
process killed with SIGKILL removes nothing; its locks (flock(2)) are gone.
Decision: bytes go to `.NAME.RANDOM.part` in the same folder, made anew (O_EXCL) and locked. When
all is there it is linked (overwrite "never") or renamed ("always") to its name. On any failure it
is removed. What a killed receiver leaves is a .part file, never a wrong NAME; it is not
resumed, so the next receiver of NAME removes it. A target that exists and is no regular file
(/dev/null, a FIFO) is written to as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from types import TracebackType

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.target.write_errors import NO_HARD_LINKS, came_into_being, cannot_write
from fastnet.errors import TransferError, TransferRefused
from fastnet.limits import NAME_BYTES_MAX
from fastnet.mover.contract import NO_OFFSET

STDOUT = 1
OVERWRITE = ("never", "always")
RANDOM_BYTES = 4
PART_TAIL = b".part"
TAIL_BYTES = 1 + 2 * RANDOM_BYTES + len(PART_TAIL)


class RawTarget:
    """An open target.

    `-` is standard output. Leaving the context without `commit` removes what was written.
    """

    def __init__(self, path: str, overwrite: str = "never") -> None:
        self.path = path
        self.name = "standard output" if path == "-" else path
        self.fd = STDOUT
        self.temporary = ""
        self._overwrite = overwrite
        self.is_stream = path == "-" or self._is_special()
        if path != "-":
            self._open()

    @property
    def offset(self) -> int:
        """Where a mover writes first."""
        return NO_OFFSET if self.is_stream else 0

    def _is_special(self) -> bool:
        """Whether the path is a device, a FIFO or a socket.

        Raises TransferRefused for a file that may not be replaced.
        """
        try:
            found = os.lstat(self.path)
            if stat.S_ISLNK(found.st_mode) and self._overwrite == "always":
                found = os.stat(self.path)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise self._cannot_write(error) from error
        if stat.S_ISDIR(found.st_mode):
            raise TransferRefused(
                f"{self.path} is a folder", "Name the file: --output FOLDER/FILE", ErrorCode.TARGET
            )
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self._refuse_existing()
            return False
        return True

    def _refuse_existing(self) -> None:
        if self._overwrite == "never":
            hint = "Give another name, or replace it with --overwrite always"
            raise TransferRefused(f"{self.path} exists already", hint, ErrorCode.EXISTS)

    def _open(self) -> None:
        try:
            if self.is_stream:
                self.fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                return
            folder, name = os.path.split(os.fsencode(self.path))
            head = os.path.join(folder, b"." + name[: NAME_BYTES_MAX - 1 - TAIL_BYTES])
            sweep(head)
            self.temporary, self.fd = open_locked(head)
        except (OSError, ValueError) as error:
            self.temporary = ""
            raise self._cannot_write(error) from error

    def commit(self) -> None:
        """Give the complete file its name.

        Raises TransferRefused if that exists by now.
        """
        if not self.temporary:
            return
        try:
            if self._overwrite == "always":
                os.rename(self.temporary, self.path)
            else:
                self._link()
        except FileExistsError as error:
            raise came_into_being(self.path) from error
        except OSError as error:
            raise self._cannot_write(error) from error
        self.temporary = ""

    def _link(self) -> None:
        try:
            os.link(self.temporary, self.path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            # A file system without hard links; what is lost is only the race with another writer of
            # the same name.
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            os.rename(self.temporary, self.path)
        else:
            os.unlink(self.temporary)

    def _cannot_write(self, error: OSError | ValueError) -> TransferError:
        return cannot_write(self.name, error)

    def close(self) -> None:
        """Close it, and remove what was not committed."""
        if self.path != "-":
            os.close(self.fd)
        if self.temporary:
            with suppress(OSError):
                os.unlink(self.temporary)

    def __enter__(self) -> RawTarget:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def open_locked(head: bytes) -> tuple[str, int]:
    """A new file, locked: its path and descriptor.

    Another one when a sweeper was between its making and its lock.
    """
    while True:
        path = head + b"." + os.urandom(RANDOM_BYTES).hex().encode() + PART_TAIL
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if lock(fd) is not False and os.fstat(fd).st_nlink:
            return os.fsdecode(path), fd
        os.close(fd)


def sweep(head: bytes) -> None:
    """Remove partial files that killed receivers of this name have left.

    They are regular files of this user without a lock.
    """
    folder, name = os.path.split(head)
    ours = re.compile(
        re.escape(name) + rb"\.[0-9a-f]{%d}" % (2 * RANDOM_BYTES) + re.escape(PART_TAIL)
    )
    names: list[bytes] = []
    with suppress(OSError):  # a folder may be written to and not listed
        names = os.listdir(folder or b".")
    for each in names:
        if not ours.fullmatch(each):
            continue
        path = os.path.join(folder, each)
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and lock(fd):
                    os.unlink(path)
            finally:
                os.close(fd)


def lock(fd: int) -> bool | None:
    """Lock the file.

    Returns whether that succeeded; None if the file system has no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
