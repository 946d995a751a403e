"""Manifest: the list of entries, sent in parts, received within bounds.

Decision: a part is at most half as long as a control frame may be, so a million files need no large
frame; the last part is marked, and has the number of bytes outside holes.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import Entry, from_list
from fastnet.apps.transfer.protocol.frames import Frame, FrameKind, ProtocolError, field, pack_json
from fastnet.apps.transfer.session.connection import TransferConnection
from fastnet.errors import TransferRefused
from fastnet.limits import CONTROL_BYTES_MAX, MANIFEST_BYTES_MAX, MANIFEST_BYTES_S_MIN

PART_BYTES = CONTROL_BYTES_MAX // 2
ESCAPED = 6
"""Most bytes of a character in a JSON string that is ASCII."""
WIDE_BYTES = 2
"""Added per character of a non-ASCII name: in memory it may take four bytes, twice."""
NUMBERS_BYTES = 64
"""Upper bound for the numbers of an entry in JSON."""


class Manifest(NamedTuple):
    """Everything that a sender offers."""

    entries: list[Entry]
    data_bytes: int
    """Bytes of all files outside holes."""
    dry_run: bool
    """Exchange the plan only."""


def write(manifest: Manifest, send: Callable[[bytes], None]) -> None:
    """Send a manifest in parts."""
    part: list[Any] = []
    weight = 0
    for entry in manifest.entries:
        part.append(entry.as_list())
        weight += NUMBERS_BYTES + ESCAPED * (len(entry.path) + len(entry.extra))
        if weight >= PART_BYTES:
            send(pack_json(FrameKind.MANIFEST, {"entries": part}))
            part, weight = [], 0
    last = {
        "entries": part,
        "last": True,
        "data_bytes": manifest.data_bytes,
        "dry_run": manifest.dry_run,
    }
    send(pack_json(FrameKind.MANIFEST, last))


def read(
    connection: TransferConnection,
    expect: Callable[[FrameKind], Frame],
    files_max: int,
    bytes_max: int | None,
) -> Manifest:
    """Receive all parts, at MANIFEST_BYTES_S_MIN at least.

    Raises:
        ProtocolError: It is malformed.  TransferRefused: It exceeds a limit.
        ConnectionLost: It came too slowly.
    """
    entries: list[Entry] = []
    weight, wide, fields, began = 0, 0, dict[str, Any](), monotonic()
    connection.deadline, connection.awaited = began + connection.stall_s, "its manifest"
    while not field(fields, "last", bool, False):
        frame = expect(FrameKind.MANIFEST)
        fields = frame.json()
        weight += len(frame.payload)
        connection.deadline = began + connection.stall_s + weight / MANIFEST_BYTES_S_MIN
        rows = field(fields, "entries", list, [])
        if len(entries) + len(rows) > files_max:
            message = (
                f"the sender wants to send more than {files_max} file{'s' if files_max > 1 else ''}"
            )
            raise TransferRefused(message, "Allow more with --max-files", ErrorCode.LIMIT)
        if not rows and not field(fields, "last", bool, False):
            raise ProtocolError("an empty part of the manifest")
        part = list(map(from_list, rows))
        wide += sum(WIDE_BYTES * len(entry.path) for entry in part if not entry.path.isascii())
        if weight + wide > MANIFEST_BYTES_MAX:
            message = f"the names in the manifest take more than {MANIFEST_BYTES_MAX} bytes"
            raise TransferRefused(message, "Send it in parts", ErrorCode.LIMIT)
        entries += part
    connection.deadline = None
    total = sum(entry.size for entry in entries)
    if bytes_max is not None and total > bytes_max:
        message = f"the sender wants to send {total} bytes, and {bytes_max} are allowed"
        raise TransferRefused(message, "Allow more with --max-bytes", ErrorCode.LIMIT)
    if not entries:
        raise ProtocolError("an empty manifest")
    return Manifest(
        entries,
        min(total, field(fields, "data_bytes", int, total)),
        field(fields, "dry_run", bool, False),
    )
