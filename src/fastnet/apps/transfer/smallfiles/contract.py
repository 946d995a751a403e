"""What survey, gather and scatter do, whichever twin does it.

V1. `survey` returns everything in a folder with what lstat(2) says of it, by name; "." and ".." are
    not in it. It raises OSError, with the path it could not read, as soon as there is one.
G1. `gather` reads files in the order given and stops before the first that cannot be read, is not
    the file that the manifest announced (identity.identity), or is shorter. The bytes of those
    before it stand one after the other in `room`.
G2. It returns their rows of the pack's table, and of the proof, in the form of docs/protocol.md.
S1. `scatter` gives each file of a pack its name, in order, when it is the one that is due, has the
    announced size and the right digest. It stops before the first of which that is not true, or
    that cannot be made.
S2. A file has its name only when all of it is written, with its mode and time. It never replaces
    anything: a name that is taken ends the run. Whatever happens, nothing else than files with
    their final names is left, even after kill -9.
S3. Of a pack that is not well-formed nothing is made.
S4. Nothing is made outside of the root: a folder is a descriptor, and a name is one component.
S5. It returns how many files that were, their bytes, and their rows of the proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.target.root import Parts, Root


class Found(NamedTuple):
    """One name in a folder.

    mode: of any kind of file. identity: identity.identity. data_bytes: allocated, holes left out.
    """

    name: str
    mode: int
    mtime_ns: int
    size: int
    identity: str
    data_bytes: int


class Announced(NamedTuple):
    """A file that gather is to read: its number in the manifest, announced fields, path."""

    number: int
    entry: Entry
    place: str


class Gathered(NamedTuple):
    """files: how many. size: their bytes in the buffer. table, proof: their rows."""

    files: int
    size: int
    table: bytes
    proof: bytes


class Expected(NamedTuple):
    """What a receiver waits for.

    due: numbers of the entries that come, in order. places: where each goes, below root.
    """

    root: Root
    due: Sequence[int]
    entries: Sequence[Entry]
    places: dict[int, Parts]


class Scattered(NamedTuple):
    """files: how many have their names. size: their bytes. proof: their rows."""

    files: int
    size: int
    proof: bytes
