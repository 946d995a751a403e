"""Source of a raw transfer: a file, or a stream of unknown length.

Facts. The size in stat(2) is a promise that the next writer may break, and files of /proc promise
nothing at all: size 0. A page of a file is read when it is sent, so a file that is written to
meanwhile gives a mix of old and new.
Decision: the size at the start is what is sent. A file that became shorter, or that was written to
without becoming longer, ends the transfer as failed; one that only grew is a log file, and its
first `size` bytes are a true copy. A file of size 0 is read to its end.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.extent import WITHOUT_END
from fastnet.errors import TransferError, reason
from fastnet.mover.contract import NO_OFFSET

STDIN = 0


class RawSource:
    """An open source.

    Several transfers may send from it at the same time, unless it is a stream. `-` is
    standard input.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        self.fd = STDIN if path == "-" else open_source(path)
        self._own = path != "-"
        self._opened = os.fstat(self.fd)
        if stat.S_ISDIR(self._opened.st_mode):
            self.close()
            raise TransferError(
                f"{path} is a folder", "Raw mode sends one file; leave --raw out", ErrorCode.SOURCE
            )
        self.is_stream = path == "-" or not stat.S_ISREG(self._opened.st_mode)

    @property
    def size(self) -> int | None:
        """Bytes to send, None when only the end will tell."""
        return None if self.is_stream else self._opened.st_size or None

    @property
    def extent(self) -> tuple[int, int]:
        """Offset and count for a mover."""
        return (NO_OFFSET if self.is_stream else 0), self.size or WITHOUT_END

    def fault(self, sent_bytes: int) -> TransferError | None:
        """The error of a file that changed while `sent_bytes` of it were sent, or None."""
        if self.size is None:
            return None
        now = os.fstat(self.fd)
        if sent_bytes < self.size:
            message = f"{self.name} shrank while it was sent: {sent_bytes} of {self.size} bytes"
            return TransferError(
                message, "Send it again when no process writes to it", ErrorCode.SHRANK
            )
        if now.st_size == self.size and now.st_mtime_ns != self._opened.st_mtime_ns:
            message = (
                f"{self.name} was written to while it was sent, "
                "so what arrived may be neither the old nor the new"
            )
            return TransferError(
                message, "Send it again when no process writes to it", ErrorCode.CHANGED
            )
        return None

    def growth(self) -> int:
        """Bytes appended to the file since its size was taken."""
        return 0 if self.size is None else max(0, os.fstat(self.fd).st_size - self.size)

    def close(self) -> None:
        if self._own:
            os.close(self.fd)

    def __enter__(self) -> RawSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def open_source(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a path"
        raise TransferError(
            f"cannot read {path}: {why}", "Check the path and its permissions", ErrorCode.SOURCE
        ) from error
