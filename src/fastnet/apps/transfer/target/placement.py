"""Placement of received entries: below a folder, as one named file, or standard output.

Decision: everything is settled before the first byte travels. What is in the way refuses the whole
transfer, by name, so that nothing half-done is left; what is there already (the same size and time)
is not sent again.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE, FOLDER, LINK, STREAM, Entry, check_all
from fastnet.apps.transfer.target.paths import check_link, numbered
from fastnet.apps.transfer.target.root import Root
from fastnet.errors import TransferError, TransferRefused

OVERWRITE = ("never", "always", "older", "rename")
NAMES_SHOWN = 3


@dataclass
class PlacementPlan:
    """What a receiver will do with the entries of a manifest."""

    entries: list[Entry]
    """The entries of the manifest."""
    parts: list[tuple[str, ...]]
    """Their paths, as components."""
    places: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By entry: the path of each file that is to be received."""
    skip: list[int] = field(default_factory=list)
    """Files that exist already and need not be sent."""
    folders: list[int] = field(default_factory=list)
    """Folders."""
    links: list[int] = field(default_factory=list)
    """Symbolic links to create."""
    refused: list[str] = field(default_factory=list)
    """Symbolic links that are not created, and why."""
    existing: set[int] = field(default_factory=set)
    """Folders that exist already."""
    absent: set[tuple[str, ...]] = field(default_factory=set)
    """Folders that do not exist, so nothing below them does."""
    taken: set[tuple[str, ...]] = field(default_factory=set)
    """Paths in use, by entries or by their substitutes."""

    def folders_written(self) -> set[tuple[str, ...]]:
        """Folders in which something has a new name."""
        named = (
            *self.places.values(),
            *(self.parts[index] for index in (*self.links, *self.folders)),
        )
        return {each[:-1] for each in named}

    @property
    def wanted_bytes(self) -> int:
        return sum(self.entries[index].size for index in self.places)


class Placement:
    """Names and policies of one receiver.

    root: None for standard output. only: the name that the one file gets.
    """

    def __init__(
        self, root: Root | None, overwrite: str = "never", only: str | None = None
    ) -> None:
        self.root = root
        self.overwrite = overwrite
        self.only = only

    def place(self, entries: list[Entry]) -> PlacementPlan:
        """Settle where everything goes.

        Raises ProtocolError for names no honest sender sends, and TransferRefused.
        """
        placed = PlacementPlan(entries, check_all(entries))
        if self.root is not None:
            self.root.forget()
        if self.overwrite == "rename":
            placed.taken.update(placed.parts)
        if self.only is not None or self.root is None:
            self._check_single(entries)
        in_the_way: list[str] = []
        for index, entry in enumerate(entries):
            parts = self.named(placed, index)
            if self.root is None:
                placed.places[index] = parts
            elif entry.kind == STREAM and self.only is None:
                hint = "Name it on this side: --output FILE, or - for standard output"
                raise TransferRefused(
                    "the sender sends a stream, which has no name", hint, ErrorCode.REFUSED
                )
            else:
                self._place_one(self.root, placed, index, parts, in_the_way)
        if in_the_way:
            names = ", ".join(in_the_way[:NAMES_SHOWN])
            more = (
                f" and {len(in_the_way) - NAMES_SHOWN} more"
                if len(in_the_way) > NAMES_SHOWN
                else ""
            )
            hint = (
                "Receive elsewhere, "
                "or say --overwrite always, older or rename on the receiving side"
            )
            exist = (
                "exists already and differs" if len(in_the_way) == 1 else "exist already and differ"
            )
            raise TransferRefused(f"{names}{more} {exist}", hint, ErrorCode.EXISTS)
        return placed

    def named(self, placed: PlacementPlan, index: int) -> tuple[str, ...]:
        """Where an entry goes if nothing is in its way."""
        return placed.parts[index] if self.only is None else (self.only,)

    def make_folders(self, placed: PlacementPlan) -> None:
        """Before the first file. Raises OSError."""
        if self.root is not None and self.only is None:
            for index in placed.folders:
                self.root.folder(placed.parts[index], make=True)

    def make_links(self, placed: PlacementPlan) -> None:
        """After the last file, so that none of them can be written through one.

        Raises OSError.
        """
        if self.root is None:
            return
        for index in placed.links:
            entry, parts = placed.entries[index], placed.parts[index]
            if self.overwrite == "always" and self.root.lstat(parts) is not None:
                self.root.unlink(parts)
            self.root.symlink(entry.extra, parts)
            self.root.set_link_time(parts, entry.mtime_ns)

    def set_folders(self, placed: PlacementPlan) -> None:
        """Set modes and times of folders, the deepest first.

        Whatever is made in a folder changes its time. Raises OSError.
        """
        if self.root is None:
            return
        for index in reversed(placed.folders):
            entry, is_ours = placed.entries[index], index not in placed.existing
            self.root.set_folder(
                placed.parts[index],
                entry.mode,
                entry.mtime_ns,
                is_ours or self.overwrite == "always",
            )

    def _check_single(self, entries: list[Entry]) -> None:
        if len(entries) != 1 or entries[0].kind not in (FILE, STREAM):
            hint = "Receive into a folder: --into FOLDER"
            message = f"--output takes one file, and the sender sends {len(entries)} entries"
            raise TransferRefused(message, hint, ErrorCode.REFUSED)

    def _place_one(
        self,
        root: Root,
        placed: PlacementPlan,
        index: int,
        parts: tuple[str, ...],
        in_the_way: list[str],
    ) -> None:
        entry = placed.entries[index]
        found = None if parts[:-1] in placed.absent else self._look(root, parts)
        if entry.kind == FOLDER:
            placed.folders.append(index)
            if found is None:
                placed.absent.add(parts)
            elif stat.S_ISDIR(found.st_mode):
                placed.existing.add(index)
            else:
                in_the_way.append("/".join(parts))
        elif entry.kind == LINK:
            self._place_link(root, placed, index, parts, found, in_the_way)
        elif found is None:
            placed.places[index] = parts
        elif stat.S_ISDIR(found.st_mode):
            in_the_way.append("/".join(parts))
        elif self.overwrite == "always":
            placed.places[index] = parts
        elif stat.S_ISREG(found.st_mode) and is_same(found, entry):
            placed.skip.append(index)
        elif self.overwrite == "older":
            if found.st_mtime_ns < entry.mtime_ns:
                placed.places[index] = parts
            else:
                placed.skip.append(index)
        elif self.overwrite == "rename":
            placed.places[index] = self._free(root, parts, placed.taken)
        else:
            in_the_way.append("/".join(parts))

    def _look(self, root: Root, parts: tuple[str, ...]) -> os.stat_result | None:
        try:
            return root.lstat(parts)
        except OSError as error:
            message = f"{'/'.join(parts)} would be outside of {root.path}"
            hint = (
                "A link or a file stands where a folder should be: remove it, or receive elsewhere"
            )
            raise TransferRefused(message, hint, ErrorCode.EXISTS) from error

    def _place_link(
        self,
        root: Root,
        placed: PlacementPlan,
        index: int,
        parts: tuple[str, ...],
        found: os.stat_result | None,
        in_the_way: list[str],
    ) -> None:
        why = check_link(parts, placed.entries[index].extra)
        if why is not None:
            placed.refused.append(f"{'/'.join(parts)}: {why}")
        elif found is None or (stat.S_ISLNK(found.st_mode) and self.overwrite == "always"):
            placed.links.append(index)
        elif stat.S_ISLNK(found.st_mode) and root.readlink(parts) == placed.entries[index].extra:
            pass
        else:
            in_the_way.append("/".join(parts))

    def _free(
        self, root: Root, parts: tuple[str, ...], taken: set[tuple[str, ...]]
    ) -> tuple[str, ...]:
        """A numbered name that nothing has: nothing there, and nothing that comes."""
        n = 2
        while True:
            candidate = (*parts[:-1], numbered(parts[-1], n))
            if candidate not in taken and root.lstat(candidate) is None:
                taken.add(candidate)
                return candidate
            n += 1


def is_same(found: os.stat_result, entry: Entry) -> bool:
    """Whether what is there has the size and the time of what would come."""
    return (
        entry.kind == FILE and found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns
    )


def check_space(root: Root, needed_bytes: int) -> None:
    """Raises TransferError when the file system has less than that."""
    free = root.free_bytes()
    if needed_bytes > free:
        message = f"{needed_bytes} bytes would come, and {root.path} has room for {free}"
        raise TransferError(
            message, "Free some space, or receive to another file system", ErrorCode.DISK_FULL
        )
