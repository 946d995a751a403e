"""Receiver of extents and their digests on one data connection, plain or compressed."""

from __future__ import annotations

from collections.abc import Callable

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.protocol.frames import EXTENT, FrameKind, ProtocolError, unpack_digest
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.write_errors import cannot_write
from fastnet.apps.transfer.target.writers import ExtentWriter, PartWriter

FindWriter = Callable[["ExtentReceiver", int, int], ExtentWriter]
"""Finds the writer for an extent. Arguments: its receiver, entry index, end offset."""


class ExtentReceiver:
    """Receives extents from one data connection and passes them to a writer."""

    def __init__(self, data_connection: DataConnection, find_writer: FindWriter) -> None:
        self.data_connection = data_connection
        self.connection = data_connection.connection
        self.writer: ExtentWriter | None = None
        """Writer of the current file, or None."""
        self.index = -1
        """Entry of the current file, or -1."""
        self._find_writer = find_writer
        self._decompressor: compression.Decompressor | None = None

    def run(self) -> None:
        """Receive every frame of a connection that carries extents only, until its FIN."""
        try:
            while (head := self._next_head()) is not None:
                self._receive_frame(*head)
        finally:
            self.keep_verified()

    def _next_head(self) -> tuple[FrameKind, int] | None:
        """The next frame header.

        Pending digests are verified before waiting for it, because the control connection waits for
        the whole file.
        """
        if not self.connection.is_readable():
            self.verify_pending()
        return self.connection.next_head()

    def _receive_frame(self, kind: FrameKind, length: int) -> None:
        if kind == FrameKind.EXTENT:
            return self.receive_extent(length)
        has_payload = kind in (FrameKind.COMPRESSED, FrameKind.DIGEST)
        payload = bytes(self.connection.read(length)) if has_payload else b""
        if kind == FrameKind.DIGEST:
            return self.receive_digest(payload)
        if kind == FrameKind.COMPRESSED:
            kind, payload = self.decompress(payload)
        if kind != FrameKind.EXTENT:
            raise ProtocolError(f"a frame of kind {chr(kind)} where only extents are due")
        return self.receive_buffer(payload)

    def receive_extent(self, length: int) -> None:
        """Receive an EXTENT payload that is still in the socket."""
        head = self.connection.read(EXTENT.size) if length > EXTENT.size else b""
        index, offset = EXTENT.unpack(head) if head else (-1, 0)
        count = length - EXTENT.size
        writer = self._writer_for(index, offset + count)
        try:
            writer.receive_extent(offset, count)
        except OSError as error:
            raise cannot_write(writer.name, error) from error

    def receive_buffer(self, payload: bytes) -> None:
        """Write an EXTENT payload that is in memory."""
        if len(payload) < EXTENT.size:
            raise ProtocolError("an extent is cut short")
        index, offset = EXTENT.unpack_from(payload)
        data = memoryview(payload)[EXTENT.size :]
        writer = self._writer_for(index, offset + len(data))
        try:
            writer.write_extent(offset, data)
        except OSError as error:
            raise cannot_write(writer.name, error) from error

    def decompress(self, payload: bytes) -> tuple[FrameKind, bytes]:
        """Kind and payload of the frame inside a COMPRESSED frame."""
        if self._decompressor is None:
            if compression.why_not():
                raise ProtocolError("it compresses, which was not agreed on")
            self._decompressor = compression.Decompressor()
        return self._decompressor.frame(payload)

    def receive_digest(self, payload: bytes) -> None:
        """Check a DIGEST payload against the extent received last."""
        index, offset, count, digest = unpack_digest(payload)
        if self.writer is None or index != self.index:
            raise ProtocolError("a digest of a file that is not being received")
        self.writer.add_digest(offset, count, digest)

    def _writer_for(self, index: int, end: int) -> ExtentWriter:
        self.writer, self.index = self._find_writer(self, index, end), index
        return self.writer

    def verify_pending(self) -> None:
        """Compare the digests of the extents received so far. Raises TransferError."""
        if self.writer is not None:
            self.writer.verify_pending()

    def end_file(self) -> None:
        """Forget the writer: the current file is complete or aborted."""
        self.writer, self.index = None, -1

    def keep_verified(self) -> None:
        """Record verified extents in the journal after a failure, to resume from."""
        if isinstance(self.writer, PartWriter):
            self.writer.keep_verified()
