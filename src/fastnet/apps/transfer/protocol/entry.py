"""Entry of a manifest: one file, folder, link or stream, and its form in JSON.

In JSON an entry is a list: kind, path, mode, mtime in ns, size, and for a link its target, for a
file the identity of the source. Paths are relative, with "/" between components; bytes that are no
UTF-8 are written as U+DC80 to U+DCFF, as Python reads them (PEP 383).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.target.paths import BadName, is_plain, parts_of, shown
from fastnet.limits import DEPTH_MAX

FILE, FOLDER, LINK, STREAM = "f", "d", "l", "s"
KINDS = (FILE, FOLDER, LINK, STREAM)
MODE_BITS = 0o777
"""No set-user-ID, no sticky bit: a received file gets no privilege."""
SIZE_MAX = 1 << 62
EXTRA_MAX = 4096
TIME_NS_MAX = 1 << 62


class Entry(NamedTuple):
    """One entry; a tuple, because there may be a million of them."""

    kind: str
    """One of KINDS."""
    path: str
    mode: int = 0o644
    mtime_ns: int = 0
    size: int = 0
    """Bytes of a file, else 0; a stream's size is known at its end."""
    extra: str = ""
    """A link's target, or a file's identity, which changes when the source does."""
    data_bytes: int = 0
    """Bytes of a file outside holes; not in the manifest."""

    def as_list(self) -> list[Any]:
        return list(self[:-1])

    @property
    def parts(self) -> tuple[str, ...]:
        return parts_of(self.path)


def from_list(fields: Any) -> Entry:
    """An entry as a peer wrote it, each field of its type and in its range.

    Raises ProtocolError.
    """
    if not isinstance(fields, list) or len(fields) != 6:
        raise ProtocolError("an entry of the manifest")
    kind, path, mode, mtime_ns, size, extra = fields
    numbers = type(mode) is int and type(mtime_ns) is int and type(size) is int
    if not numbers or kind not in KINDS or type(path) is not str or type(extra) is not str:
        raise ProtocolError("an entry of the manifest")
    if (
        not 0 <= size <= SIZE_MAX
        or abs(mtime_ns) > TIME_NS_MAX
        or (size and kind != FILE)
        or len(extra) > EXTRA_MAX
    ):
        raise ProtocolError("a size or time of the manifest")
    return Entry(kind, path, mode & MODE_BITS, mtime_ns, size, extra)


def check_all(entries: list[Entry]) -> list[tuple[str, ...]]:
    """The components of each path, in the same order.

    No name occurs twice, and every entry follows the entry of its folder.

    So there are no more folders than entries, and nothing is ever below a link or a file.
    Components of a folder are the same objects for all that is in it: a deep tree costs no more
    memory than a flat one. Raises ProtocolError, because no honest sender makes another manifest.
    """
    taken: set[str] = set()
    folders: dict[str, tuple[str, ...]] = {"": ()}
    every: list[tuple[str, ...]] = []
    for entry in entries:
        path = entry.path
        folder, slash, name = path.rpartition("/")
        above = folders.get(folder)
        if (
            above is None
            or (slash and not folder)
            or len(above) >= DEPTH_MAX
            or not is_plain(path, name)
        ):
            path = normal(path)
            folder, _, name = path.rpartition("/")
            above = folders.get(folder)
        if path in taken:
            raise ProtocolError(f"the name {shown(entry.path)} stands twice in the manifest")
        if above is None:
            raise ProtocolError(
                f"the name {shown(entry.path)} is not below a folder of the manifest"
            )
        parts = (*above, name)
        taken.add(path)
        if entry.kind == FOLDER:
            folders[path] = parts
        every.append(parts)
    return every


def normal(path: str) -> str:
    """A path as the file system gives it back, so that equal names are equal texts.

    Raises ProtocolError.
    """
    try:
        return "/".join(parts_of(path))
    except BadName as error:
        raise ProtocolError(str(error)) from error
