"""Frames of fastnet/1: sans-I/O packing and parsing.

Their meaning is in docs/protocol.md.

Facts. sendfile(2) and splice(2) move bytes between a file and a socket only when nothing is mixed
into them.
Consequence: a frame around each buffer would cost the zero copies.
Decision: everything is a frame, a kind and a length before its payload, but the payload of the one
kind that carries an extent of a file ends with up to EXTENT_BYTES_MAX bytes as they stand in that
file. Control frames are small JSON objects, for people who read captures; the kinds of which there
are thousands are packed. A length that a peer declares is checked against a bound before a byte of
the payload is read.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any, NamedTuple

from fastnet.apps.transfer.events import ErrorCode
from fastnet.errors import TransferError
from fastnet.limits import (
    CONTROL_BYTES_MAX,
    EXTENT_BYTES_MAX,
    HELLO_BYTES_MAX,
    PACK_BYTES_MAX,
    PLAN_BYTES_MAX,
)

MAGIC = b"fastnet/1\n"
VERSION = 1
HELLO_MAGIC = MAGIC + b"H\0\0"
"""The first bytes of each side: MAGIC, and the header of a HELLO of less than 64 KiB."""
HEAD = struct.Struct("!BI")
"""FrameKind and payload length."""
EXTENT = struct.Struct("!IQ")
"""Entry and offset, before the bytes of an extent."""
DIGEST = struct.Struct("!IQI")
"""Entry, offset and length, before the digest of an extent."""
PACKED = struct.Struct("!II")
"""Entry and size, one for each file of a pack."""
COUNT = struct.Struct("!I")


class FrameKind(enum.IntEnum):
    """The first byte of a frame: a letter, so that a capture can be read."""

    HELLO = ord("H")  # both: identification; JSON
    TOKEN = ord("T")  # both: MAC of the token; JSON
    MANIFEST = ord("M")  # sender: a part of the list of entries; JSON
    PLAN = ord("P")  # receiver: what must be sent; JSON
    EXTENT = ord("E")  # sender: entry, offset, and bytes as they are in the file
    COMPRESSED = ord("Z")  # sender: an EXTENT or PACK frame, compressed
    DIGEST = ord("D")  # sender: the digest of the extent just sent
    PACK = ord("K")  # sender: small files, whole, with their digests
    END = ord("C")  # sender: a file is complete or aborted; JSON
    FINISH = ord("F")  # sender: all files sent; later: ACK received; JSON
    KEEPALIVE = ord("L")  # both: no idle timeout, please wait; JSON
    ACK = ord("A")  # receiver: all files have their final names; JSON
    ERROR = ord("X")  # both: the transfer failed, and why; JSON


PAYLOAD_MAX = {
    FrameKind.HELLO: HELLO_BYTES_MAX,
    FrameKind.TOKEN: HELLO_BYTES_MAX,
    FrameKind.PLAN: PLAN_BYTES_MAX,
    FrameKind.EXTENT: EXTENT.size + EXTENT_BYTES_MAX,
    FrameKind.COMPRESSED: HEAD.size + 2 * PACK_BYTES_MAX,
    FrameKind.PACK: PACK_BYTES_MAX,
}
"""Bound of each kind; CONTROL_BYTES_MAX for the rest."""


class Frame(NamedTuple):
    """One whole frame."""

    kind: FrameKind
    payload: bytes

    def json(self) -> dict[str, Any]:
        return unpack_json(self.payload)


class ProtocolError(TransferError):
    """The peer violates fastnet/1."""

    def __init__(self, what: str) -> None:
        hint = "Is the other side a fastnet without --raw, and not older than this one?"
        super().__init__(f"the other side breaks the protocol: {what}", hint, ErrorCode.PROTOCOL)


def pack_json(kind: FrameKind, fields: dict[str, Any]) -> bytes:
    """A control frame."""
    payload = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return HEAD.pack(kind, len(payload)) + payload


def unpack_json(payload: bytes | bytearray) -> dict[str, Any]:
    """The object in a control frame. Raises ProtocolError."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a control frame is no JSON") from error
    if not isinstance(fields, dict):
        raise ProtocolError("a control frame is no JSON object")
    return fields


def unpack_head(head: bytes) -> tuple[FrameKind, int]:
    """FrameKind and payload length, both within bounds. Raises ProtocolError."""
    number, length = HEAD.unpack(head)
    try:
        kind = FrameKind(number)
    except ValueError:
        raise ProtocolError(f"there is no frame of kind {number}") from None
    if length > PAYLOAD_MAX.get(kind, CONTROL_BYTES_MAX):
        raise ProtocolError(f"a frame of kind {chr(kind)} with {length} bytes")
    return kind, length


def pack_extent(entry: int, offset: int, count: int) -> bytes:
    """The frame header before the bytes of an extent."""
    return HEAD.pack(FrameKind.EXTENT, EXTENT.size + count) + EXTENT.pack(entry, offset)


def pack_digest(entry: int, offset: int, count: int, digest: bytes) -> bytes:
    return (
        HEAD.pack(FrameKind.DIGEST, DIGEST.size + len(digest))
        + DIGEST.pack(entry, offset, count)
        + digest
    )


def unpack_digest(payload: bytes) -> tuple[int, int, int, bytes]:
    """Entry, offset, length and digest. Raises ProtocolError."""
    if len(payload) < DIGEST.size:
        raise ProtocolError("a digest is cut short")
    entry, offset, count = DIGEST.unpack_from(payload)
    return entry, offset, count, payload[DIGEST.size :]


def pack_files(files: list[tuple[int, bytes, bytes]]) -> list[bytes]:
    """A pack of (entry, content, digest), as pieces to be sent one after the other."""
    table = b"".join(PACKED.pack(entry, len(content)) + digest for entry, content, digest in files)
    contents = [content for _, content, _ in files]
    return [pack_head(len(files), table, sum(map(len, contents))), *contents]


def pack_head(count: int, table: bytes, content_bytes: int) -> bytes:
    """The frame header and table before the contents of a pack."""
    return (
        HEAD.pack(FrameKind.PACK, COUNT.size + len(table) + content_bytes)
        + COUNT.pack(count)
        + table
    )


def files_in(pack: bytes | bytearray) -> int:
    """The number of files that a pack declares; 0 if it is too short for its count."""
    return int(COUNT.unpack_from(pack)[0]) if len(pack) >= COUNT.size else 0


def unpack_files(
    payload: bytes | bytearray, digest_bytes: int
) -> list[tuple[int, memoryview, bytes]]:
    """(entry, content, digest) of each file in a pack. Raises ProtocolError."""
    if len(payload) < COUNT.size:
        raise ProtocolError("a pack is cut short")
    (count,) = COUNT.unpack_from(payload)
    row = PACKED.size + digest_bytes
    at = COUNT.size + count * row
    if at > len(payload):
        raise ProtocolError("a pack is shorter than its table")
    files, view = [], memoryview(payload)
    for place in range(COUNT.size, at, row):
        entry, size = PACKED.unpack_from(payload, place)
        if size > len(payload) - at:
            raise ProtocolError("a pack is shorter than its files")
        files.append((entry, view[at : at + size], bytes(view[place + PACKED.size : place + row])))
        at += size
    if at != len(payload):
        raise ProtocolError("a pack is longer than its files")
    return files


def field(fields: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A field of a control frame, of the type it must have.

    `default` when it is absent. Raises ProtocolError.
    """
    value = fields.get(name, default)
    if value is default:
        return default
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    if not isinstance(value, kind) or (kind is int and not is_number):
        raise ProtocolError(f"field {name} of a control frame")
    return value
