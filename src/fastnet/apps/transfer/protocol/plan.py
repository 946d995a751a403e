"""Plan: the entries that a receiver needs and the extents that it holds."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.protocol.entry import FILE, STREAM, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError, field


class Plan(NamedTuple):
    """What a sender must send."""

    indices: list[int]
    """Entries to send, in order."""
    held: dict[int, list[Extent]]
    """Extents that the receiver holds already, by entry."""
    total_bytes: int | None
    """Bytes to send; None when the size of one entry is not known."""
    skipped_bytes: int
    """Bytes that need not be sent."""


def read(plan: dict[str, Any], entries: list[Entry], digest_bytes: int) -> Plan:
    """Parse and check a PLAN for these entries. Raises ProtocolError."""
    skip = set(_indices(field(plan, "skip", list, []), entries))
    wanted = [
        index
        for index, entry in enumerate(entries)
        if entry.kind in (FILE, STREAM) and index not in skip
    ]
    pairs = field(plan, "held", list, [])
    if not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], list) for pair in pairs
    ):
        raise ProtocolError("what it says that it has")
    _indices([pair[0] for pair in pairs], entries)
    held = {index: _extents(rows, entries[index].size, digest_bytes) for index, rows in pairs}
    if not held.keys() <= set(wanted):
        raise ProtocolError("it holds extents of an entry it does not need")
    has = sum(extent.count for extents in held.values() for extent in extents)
    total = sum(entries[index].size for index in wanted) - has
    streams = any(entries[index].kind == STREAM for index in wanted)
    return Plan(
        wanted, held, None if streams else total, sum(entries[index].size for index in skip) + has
    )


def _indices(values: list[Any], entries: list[Entry]) -> list[int]:
    if not all(type(value) is int and 0 <= value < len(entries) for value in values):
        raise ProtocolError("an entry of its plan")
    return values


def _extents(rows: list[Any], size: int, digest_bytes: int) -> list[Extent]:
    ends, extents = 0, []
    for row in rows:
        try:
            offset, count, digest = row
            extent = Extent(offset, count, bytes.fromhex(digest))
        except (TypeError, ValueError) as error:
            raise ProtocolError("what it says that it has") from error
        sound = type(offset) is int and type(count) is int and ends <= offset and count > 0
        if not sound or offset + count > size or len(extent.digest) != digest_bytes:
            raise ProtocolError("what it says that it has")
        extents.append(extent)
        ends = offset + count
    return extents
