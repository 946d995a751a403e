"""Survey of what to send: the paths of the command line and everything below folders.

Decision: what the user names is followed when it is a link, what is found below is not: a link
there travels as a link. Sockets, FIFOs and devices are left out and told. Nothing is hashed and no
file is opened before the first byte travels.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import (
    FILE,
    FOLDER,
    LINK,
    MODE_BITS,
    STREAM,
    Entry,
    check_all,
)
from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.smallfiles import choose
from fastnet.apps.transfer.smallfiles.contract import Found
from fastnet.apps.transfer.source.identity import BLOCK_BYTES, identity
from fastnet.errors import TransferError, reason

Survey = Callable[[str], list[Found]]

STDIN_NAME = "stdin"
"""What a stream is called in the manifest; the receiver names the file."""


class Filter(NamedTuple):
    """Which paths go: those that match no pattern of `exclude`, or one of `include`.

    Patterns of fnmatch(3).

    A pattern with "/" is matched against the whole path in the manifest, another one against its
    last component. With `include` given and nothing in `exclude`, files that match nothing stay
    behind.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether there is a pattern at all."""
        return bool(self.include or self.exclude)

    def takes(self, path: str, is_folder: bool) -> bool:
        if any(matches(path, pattern) for pattern in self.include):
            return True
        if any(matches(path, pattern) for pattern in self.exclude):
            return False
        return is_folder or not self.include or bool(self.exclude)


def matches(path: str, pattern: str) -> bool:
    pattern = pattern.rstrip("/")
    return fnmatch.fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern)


def walk(
    paths: Sequence[str],
    chosen: Filter,
    leave_out: Callable[[str, str], None],
    backend: str = "auto",
) -> tuple[list[Entry], list[str]]:
    """Entries, and beside each the path to read it from ("-" for standard input).

    leave_out(path, why) is called with what is not sent.

    Raises TransferError for a path that is not there, two of one name, or a folder that cannot be
    read.
    """
    survey: Survey = choose("survey", backend)[0].survey
    entries: list[Entry] = []
    places: list[str] = []
    for path in paths:
        for entry, place in _below(path, chosen, leave_out, survey):
            entries.append(entry)
            places.append(place)
    try:
        check_all(entries)
    except ProtocolError as error:
        hint = "Rename it, or send it with another command"
        raise TransferError(error.message.partition(": ")[2], hint, ErrorCode.SOURCE) from error
    return entries, places


def _below(
    path: str, chosen: Filter, leave_out: Callable[[str, str], None], survey: Survey
) -> Iterator[tuple[Entry, str]]:
    if path == "-":
        yield Entry(STREAM, STDIN_NAME), "-"
        return
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error
    name = os.path.basename(os.path.abspath(path))
    if not name:
        raise TransferError(
            f"{path} has no name to send it under", "Name a folder below it", ErrorCode.SOURCE
        )
    if stat.S_ISREG(found.st_mode):
        yield _file(name, found), path
    elif stat.S_ISDIR(found.st_mode):
        yield _folder(name, found), path
        yield from _inside(name, path, chosen, leave_out, survey)
    else:
        hint = "Send what comes out of it as a stream: fastnet send - ... < PATH"
        raise TransferError(f"{path} is no file and no folder", hint, ErrorCode.SOURCE)


def _inside(
    above: str, folder: str, chosen: Filter, leave_out: Callable[[str, str], None], survey: Survey
) -> Iterator[tuple[Entry, str]]:
    folders, beside = [], os.path.join(folder, "")
    try:
        for name, mode, mtime_ns, size, what, data_bytes in survey(folder):
            path, place, is_folder = f"{above}/{name}", f"{beside}{name}", stat.S_ISDIR(mode)
            if chosen.is_any and not chosen.takes(path, is_folder):
                continue
            if stat.S_ISREG(mode):
                yield Entry(FILE, path, mode & MODE_BITS, mtime_ns, size, what, data_bytes), place
            elif is_folder:
                folders.append((Entry(FOLDER, path, mode & MODE_BITS, mtime_ns), place))
            elif stat.S_ISLNK(mode):
                yield Entry(LINK, path, 0o777, mtime_ns, 0, os.readlink(place)), place
            else:
                leave_out(place, "it is no file, no folder and no link")
    except OSError as error:
        raise _cannot_read(error.filename or folder, error) from error
    for entry, place in folders:
        yield entry, place
        yield from _inside(entry.path, place, chosen, leave_out, survey)


def _file(name: str, found: os.stat_result) -> Entry:
    data_bytes = min(found.st_size, found.st_blocks * BLOCK_BYTES)
    return Entry(
        FILE,
        name,
        found.st_mode & MODE_BITS,
        found.st_mtime_ns,
        found.st_size,
        identity(found),
        data_bytes,
    )


def _folder(name: str, found: os.stat_result) -> Entry:
    return Entry(FOLDER, name, found.st_mode & MODE_BITS, found.st_mtime_ns)


def _cannot_read(path: str, error: OSError | ValueError) -> TransferError:
    why = reason(error) if isinstance(error, OSError) else "not a path"
    return TransferError(
        f"cannot read {path}: {why}", "Check the path and its permissions", ErrorCode.SOURCE
    )
