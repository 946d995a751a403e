"""Journal of verified extents beside a .fastnet-part file, for resuming a large file.

Facts. A process killed with SIGKILL loses nothing that it gave to write(2): the page cache is the
kernel's. A machine that stops loses what was not synced, in any order. A write(2) of a few bytes to
the end of a file is whole or torn, never mixed.
Decision: the journal is a header that says of which source this is, and then a record an extent,
appended when the extent's digest was right, each with a check sum: a torn end costs its extent. A
journal of the same boot of this host is believed; after another boot each extent is read and its
digest compared, for only then may the disk hold something else.
Cost: one write(2) an extent.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from contextlib import closing, suppress

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.target.partial_file import PartialFile
from fastnet.apps.transfer.target.paths import journal_name
from fastnet.apps.transfer.target.root import Root
from fastnet.errors import TransferRefused

FORMAT = 1
HEADER_BYTES_MAX = 4096
RECORD = struct.Struct("!QQI")
"""Offset, length and check sum (CRC-32 of offset, length and digest), before the digest."""


def boot() -> str:
    """A name of this boot of this host (random(4))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class ResumableFile(PartialFile):
    """A partial file with a journal.

    `commit` gives it its name, `leave` keeps what is verified for a later run, `remove` drops it.
    """

    def __init__(
        self, root: Root, parts: tuple[str, ...], entry: Entry, algorithm: Algorithm
    ) -> None:
        self._journal_place = (*parts[:-1], journal_name(parts[-1]))
        self._algorithm = algorithm
        self._journal = -1
        self.held: list[Extent] = []
        self._is_resumable = bool(algorithm.size and entry.extra)
        self._has_any = False
        super().__init__(root, parts)
        try:
            self.held = self._read(entry)
            self._has_any = bool(self.held)
            if not self.held:
                self._start_over(entry)
        except BaseException:
            self.close()
            raise

    def _header(self, entry: Entry) -> bytes:
        fields = {
            "format": FORMAT,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "source": entry.extra,
            "digest": self._algorithm.name,
            "boot": boot(),
        }
        return json.dumps(fields).encode("ascii") + b"\n"

    def _read(self, entry: Entry) -> list[Extent]:
        """The extents that an earlier run has verified of this very source.

        Empty if there is no journal, or one that cannot be trusted.
        """
        if not self._is_resumable or self.root.lstat(self._journal_place) is None:
            return []
        self._journal = self.root.open(self._journal_place, os.O_RDWR | os.O_APPEND)
        with open(self._journal, "rb", closefd=False) as file:
            first, records = file.readline(HEADER_BYTES_MAX), file.read()
        try:
            was, now = json.loads(first), json.loads(self._header(entry))
            same_boot = was.pop("boot") == now.pop("boot") != ""
        except (ValueError, AttributeError, KeyError):
            return []
        if was != now:
            return []
        noted = self._unpack(records, min(entry.size, os.fstat(self.fd).st_size))
        held = without_overlaps(noted)
        os.ftruncate(self._journal, len(first) + len(noted) * (RECORD.size + self._algorithm.size))
        if not same_boot:
            held = [extent for extent in held if self._is_there(extent)]
        if held and (not same_boot or len(held) < len(noted)):
            self._rewrite(entry, held)
        return held

    def _unpack(self, records: bytes, ends_max: int) -> list[Extent]:
        held: list[Extent] = []
        row = RECORD.size + self._algorithm.size
        for at in range(0, len(records) - row + 1, row):
            offset, count, check = RECORD.unpack_from(records, at)
            digest = records[at + RECORD.size : at + row]
            if check != check_sum(offset, count, digest) or not 0 < count <= ends_max - offset:
                break
            held.append(Extent(offset, count, digest))
        return held

    def _is_there(self, extent: Extent) -> bool:
        return self._algorithm.of_extent(self.fd, extent.offset, extent.count) == extent.digest

    def _start_over(self, entry: Entry) -> None:
        os.ftruncate(self.fd, 0)
        self._rewrite(entry, [])

    def _rewrite(self, entry: Entry, held: list[Extent]) -> None:
        if self._journal < 0:
            self._journal = self.root.open(
                self._journal_place, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600
            )
        os.ftruncate(self._journal, 0)
        os.write(self._journal, self._header(entry))
        for extent in held:
            self.note(extent)

    def note(self, extent: Extent) -> None:
        """This extent is in the file and its digest was right."""
        check = check_sum(extent.offset, extent.count, extent.digest)
        os.write(self._journal, RECORD.pack(extent.offset, extent.count, check) + extent.digest)
        self._has_any = True

    def commit(self, parts: tuple[str, ...], replace: bool) -> None:
        """Everything is there: give it its name, forget the journal.

        Raises FileExistsError when it may not replace.
        """
        super().commit(parts, replace)
        with suppress(FileNotFoundError):
            self.root.unlink(self._journal_place)

    def remove(self) -> None:
        """Remove the partial file and its journal."""
        with suppress(FileNotFoundError):
            self.root.unlink(self._journal_place)
        super().remove()

    def leave(self) -> None:
        """Close it; keep the verified extents for a later run."""
        if self.fd >= 0 and not (self._is_resumable and self._has_any):
            self.remove()
        self.close()

    def close(self) -> None:
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = -1
        super().close()


def discard(root: Root, parts: tuple[str, ...]) -> None:
    """Remove the partial file and journal of a killed receiver; a locked one stays."""
    with suppress(OSError, TransferRefused), closing(PartialFile(root, parts)) as file:
        with suppress(FileNotFoundError):
            root.unlink((*parts[:-1], journal_name(parts[-1])))
        file.remove()


def without_overlaps(extents: list[Extent]) -> list[Extent]:
    """In the order of the file; of two that overlap the one that begins first."""
    kept: list[Extent] = []
    for extent in sorted(extents, key=lambda each: each.offset):
        if not kept or extent.offset >= kept[-1].offset + kept[-1].count:
            kept.append(extent)
    return kept


def check_sum(offset: int, count: int, digest: bytes) -> int:
    return zlib.crc32(digest, zlib.crc32(struct.pack("!QQ", offset, count)))
