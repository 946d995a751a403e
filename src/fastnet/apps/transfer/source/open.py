"""A source that still is what the manifest announced, or what is wrong with it."""

from __future__ import annotations

import os
import stat

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.source.identity import identity
from fastnet.errors import reason


class Unsendable(Exception):
    """One file cannot be sent, or not as it was; the others can. code: an ErrorCode."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def open_announced(entry: Entry, place: str) -> int:
    """Open the file at `place`.

    Raises Unsendable when it cannot be read, or is not the one of the manifest any more.
    """
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unsendable(ErrorCode.SOURCE, f"cannot read {place}: {reason(error)}") from error
    found = os.fstat(fd)
    if (
        not stat.S_ISREG(found.st_mode)
        or found.st_size < entry.size
        or identity(found) != entry.extra
    ):
        os.close(fd)
        raise Unsendable(ErrorCode.CHANGED, f"{place} was changed before its turn came")
    return fd
