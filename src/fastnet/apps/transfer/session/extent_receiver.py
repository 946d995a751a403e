"""What comes in one data_connection: extents of large files, as they are or compressed, and their digests."""

from __future__ import annotations

from collections.abc import Callable

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.protocol.frames import EXTENT, FrameKind, ProtocolError, unpack_digest
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.write_errors import cannot_write
from fastnet.apps.transfer.target.writers import ExtentWriter, PartWriter

Find = Callable[["ExtentReceiver", int, int], ExtentWriter]
"""Given who took it, its entry and where it ends, who writes an extent."""


class ExtentReceiver:
    """Takes extents out of one data_connection. writer, index: of the file at hand, or None and -1."""

    def __init__(self, data_connection: DataConnection, find: Find) -> None:
        self.data_connection = data_connection
        self.writer: ExtentWriter | None = None
        self.index = -1
        self._find = find
        self._decompressor: compression.Decompressor | None = None

    def take_all(self) -> None:
        """Whatever comes, in a lane that carries nothing but extents, to its end."""
        try:
            while (head := self._next_head()) is not None:
                self._take_frame(*head)
        finally:
            self.salvage()

    def _next_head(self) -> tuple[FrameKind, int] | None:
        """Whoever waits for the whole file must not wait for digests that nobody looks at."""
        if not self.data_connection.connection.is_readable():
            self.settle()
        return self.data_connection.connection.next_head()

    def _take_frame(self, kind: FrameKind, length: int) -> None:
        if kind == FrameKind.EXTENT:
            return self.take_extent(length)
        payload = (
            bytes(self.data_connection.connection.read(length))
            if kind in (FrameKind.COMPRESSED, FrameKind.DIGEST)
            else b""
        )
        if kind == FrameKind.DIGEST:
            return self.prove(payload)
        if kind == FrameKind.COMPRESSED:
            kind, payload = self.unpack(payload)
        if kind != FrameKind.EXTENT:
            raise ProtocolError(f"a frame of kind {chr(kind)} where only extents are due")
        return self.take_held(payload)

    def take_extent(self, length: int) -> None:
        """The payload of an EXTENT, still in the connection."""
        head = self.data_connection.connection.read(EXTENT.size) if length > EXTENT.size else b""
        index, offset = EXTENT.unpack(head) if head else (-1, 0)
        count = length - EXTENT.size
        writer = self._writer_of(index, offset + count)
        try:
            writer.take(offset, count)
        except OSError as error:
            raise cannot_write(writer.name, error) from error

    def take_held(self, payload: bytes) -> None:
        """The payload of an EXTENT, in memory."""
        if len(payload) < EXTENT.size:
            raise ProtocolError("an extent is cut short")
        index, offset = EXTENT.unpack_from(payload)
        data = memoryview(payload)[EXTENT.size :]
        writer = self._writer_of(index, offset + len(data))
        try:
            writer.take_data(offset, data)
        except OSError as error:
            raise cannot_write(writer.name, error) from error

    def unpack(self, payload: bytes) -> tuple[FrameKind, bytes]:
        """What is in a COMPRESSED."""
        if self._decompressor is None:
            if compression.why_not():
                raise ProtocolError("it compresses, which was not agreed on")
            self._decompressor = compression.Decompressor()
        return self._decompressor.frame(payload)

    def prove(self, payload: bytes) -> None:
        """The payload of a DIGEST."""
        index, offset, count, digest = unpack_digest(payload)
        if self.writer is None or index != self.index:
            raise ProtocolError("a digest of a file that is not under way")
        self.writer.prove(offset, count, digest)

    def _writer_of(self, index: int, ends: int) -> ExtentWriter:
        self.writer, self.index = self._find(self, index, ends), index
        return self.writer

    def settle(self) -> None:
        """Verify what came until now. Raises TransferError."""
        if self.writer is not None:
            self.writer.settle()

    def forget(self) -> None:
        """The file is over."""
        self.writer, self.index = None, -1

    def salvage(self) -> None:
        """The transfer broke: note what came whole before that, for another run."""
        if isinstance(self.writer, PartWriter):
            self.writer.salvage()
