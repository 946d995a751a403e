"""Zstandard compression (`--compress zstd`): frames inside frames, each held in memory.

Facts. A Zstandard frame declares its content size, and a decompressor trusts it: a few bytes can
claim a terabyte.
Decision: a whole EXTENT or PACK frame of at most PACK_BYTES_MAX is compressed; the declared size is
checked against our header, and that against the bound, before decompression.
Cost: every byte passes through this process, so no zero-copy; worth it where the network is slower
than a processor compresses.
"""

from __future__ import annotations

import struct
from typing import Any

from fastnet.apps.transfer.protocol.frames import HEAD, FrameKind, ProtocolError
from fastnet.errors import UnsupportedError
from fastnet.limits import PACK_BYTES_MAX

INNER = HEAD
"""FrameKind and length of the frame inside, before its compressed payload."""
NAME = "zstd"
LEVEL = 3
INSIDE = (FrameKind.EXTENT, FrameKind.PACK)


def why_not() -> str:
    """ "" when this side can compress, or why not."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return "the package zstandard is not installed (pip install 'fastnet-io[zstd]')"
    return ""


def check() -> None:
    """Raises UnsupportedError where this side cannot."""
    if why := why_not():
        raise UnsupportedError(f"cannot compress: {why}", "Install it, or leave --compress out")


class Compressor:
    """For all frames of one transfer."""

    def __init__(self) -> None:
        import zstandard

        self._compressor: Any = zstandard.ZstdCompressor(level=LEVEL)

    def frame(self, frame: bytes) -> bytes:
        """A frame around a whole one."""
        kind, length = HEAD.unpack_from(frame)
        packed = INNER.pack(kind, length) + self._compressor.compress(
            memoryview(frame)[HEAD.size :]
        )
        return bytes(HEAD.pack(FrameKind.COMPRESSED, len(packed)) + packed)


class Decompressor:
    """For all frames of one transfer."""

    def __init__(self) -> None:
        import zstandard

        self._zstandard: Any = zstandard
        self._decompressor: Any = zstandard.ZstdDecompressor(
            max_window_size=max(1 << 23, PACK_BYTES_MAX)
        )

    def frame(self, payload: bytes) -> tuple[FrameKind, bytes]:
        """FrameKind and payload of the frame inside. Raises ProtocolError."""
        if len(payload) < INNER.size:
            raise ProtocolError("a compressed frame is cut short")
        number, length = INNER.unpack_from(payload)
        if number not in INSIDE or length > PACK_BYTES_MAX:
            raise ProtocolError("a compressed frame has something else in it than data")
        packed = payload[INNER.size :]
        try:
            if self._zstandard.get_frame_parameters(packed).content_size != length:
                raise ProtocolError("a compressed frame claims another length than it has")
            content: bytes = self._decompressor.decompress(packed)
        except (self._zstandard.ZstdError, struct.error, MemoryError) as error:
            raise ProtocolError("a compressed frame cannot be unpacked") from error
        if len(content) != length:
            raise ProtocolError("a compressed frame is shorter than it claims")
        return FrameKind(number), content
