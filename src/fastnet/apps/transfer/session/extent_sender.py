"""Sender of one large file's extents, over all data connections of a transfer.

Decision: extents are sent in file order, one after another on each connection; a connection that
has sent one takes the next. When a file shrinks, the extents in progress are padded to their
announced length, because the frame header promised it, and the file is aborted when no connection
works on it any more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from fastnet.apps.transfer.compression import Compressor
from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.extent import Extent, subtract
from fastnet.apps.transfer.protocol.frames import pack_digest, pack_extent
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.source.identity import BLOCK_BYTES
from fastnet.apps.transfer.source.open import Unsendable
from fastnet.errors import reason
from fastnet.limits import EXTENT_BYTES, EXTENTS_MAX, FILE_EXTENTS_MAX, MIB
from fastnet.ratelimit import ByteRateLimiter

ZEROS = bytes(MIB)


def extent_bytes(size: int) -> int:
    """Extent length for a file of `size` bytes: whole MiB, at most EXTENTS_MAX extents."""
    return max(EXTENT_BYTES, -(-size // EXTENTS_MAX // MIB) * MIB)


def data_ranges(file_fd: int, size: int, is_sparse: bool) -> Iterator[tuple[int, int]]:
    """The ranges (offset, end) of a file that are not holes (lseek(2), SEEK_DATA)."""
    offset = 0
    while is_sparse and offset < size:
        try:
            offset = os.lseek(file_fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole to the end
            return
        end = min(size, os.lseek(file_fd, offset, os.SEEK_HOLE))
        yield offset, end
        offset = end
    if not is_sparse and size:
        yield 0, size


class OutgoingFile:
    """A file being sent: its extents, shared by the data connections.

    Args:
        index: Its entry in the manifest.
        path: Its path, for messages.
        fd: The open file.
        size: Its announced size.
        held: Verified extents that the receiver already has.
        algorithm: Digest of the extents.
        extent_bytes_max: Longest extent.
    """

    def __init__(
        self,
        index: int,
        path: str,
        fd: int,
        size: int,
        held: list[Extent],
        algorithm: Algorithm,
        extent_bytes_max: int,
    ) -> None:
        self.index = index
        self.path = path
        self.fd = fd
        self.digest = FileDigest(algorithm)
        self.frames = 0
        """EXTENT frames begun, for the END frame."""
        self.fault: BaseException | None = None
        """Why no further extent is sent."""
        self._in_progress = 0
        is_sparse = os.fstat(fd).st_blocks * BLOCK_BYTES < size
        self._extents = subtract(data_ranges(fd, size, is_sparse), held, extent_bytes_max)
        self._lock = threading.Condition()

    def next_extent(self) -> Extent | None:
        """The next extent to send, or None when there is none or the file has failed."""
        with self._lock:
            for extent, is_held in self._extents if self.fault is None else ():
                if len(self.digest) >= FILE_EXTENTS_MAX:
                    text = f"{self.path} has more than {FILE_EXTENTS_MAX} pieces between holes"
                    self.fault = Unsendable(ErrorCode.SOURCE, text)
                    return None
                if not is_held:
                    self._in_progress += 1
                    return extent
                self.digest.add(extent.offset, extent.count, extent.digest)
            return None

    def count_frame(self) -> None:
        """Count an EXTENT frame that is about to be sent."""
        with self._lock:
            self.frames += 1

    def finish_extent(self, extent: Extent | None, fault: BaseException | None = None) -> None:
        """Record an extent that was sent, or None and the reason that it was not."""
        with self._lock:
            self._in_progress -= 1
            if extent is not None:
                self.digest.add(extent.offset, extent.count, extent.digest)
            self.fault = self.fault or fault
            self._lock.notify_all()

    def stop(self) -> None:
        """Hand out no further extent; return when no connection reads the file."""
        with self._lock:
            self._extents = iter(())
            while self._in_progress:
                self._lock.wait()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no extent is in progress. Returns False after `timeout_s`."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._in_progress, timeout_s)


class ExtentSender:
    """Sends extents over one data connection.

    Args:
        data_connection: Where to.
        algorithm: Digest of the extents.
        rate_limiter: Shared by all data connections.
        compressor: None to send bytes as they are in the file.
        poll_control: Called between slices; must not send, because an extent may be in progress.
    """

    def __init__(
        self,
        data_connection: DataConnection,
        algorithm: Algorithm,
        rate_limiter: ByteRateLimiter,
        compressor: Compressor | None,
        poll_control: Callable[[], None],
    ) -> None:
        self.data_connection = data_connection
        self.connection = data_connection.connection
        self.algorithm = algorithm
        self.rate_limiter = rate_limiter
        self.compressor = compressor
        self.poll_control = poll_control

    def send_file(self, file: OutgoingFile) -> None:
        """Send extents of a file until there are none. Raises Unsendable to abort the file."""
        send = self._send_extent if self.compressor is None else self._send_compressed
        while (extent := file.next_extent()) is not None:
            try:
                sent = send(file, extent.offset, extent.count)
            except BaseException as error:
                file.finish_extent(None, error)
                raise
            file.finish_extent(sent)

    def send_data(self, head: bytes, data: bytes | memoryview) -> None:
        """Send a whole frame of data, compressed if that was agreed on."""
        if self.compressor:
            self.connection.send(self.compressor.frame(b"".join((head, data))))
        else:
            self.connection.send(head)
            self.connection.send(data)

    def send_buffer(self, index: int, offset: int, data: bytes) -> Extent:
        """Send an extent whose bytes are in memory."""
        self.rate_limiter.wait_all(len(data), self.poll_control)
        extent = Extent(offset, len(data), self.algorithm.of(data))
        self.send_data(pack_extent(index, offset, len(data)), data)
        self.connection.send(pack_digest(index, offset, len(data), extent.digest))
        self.connection.count_moved(len(data))
        self.poll_control()
        return extent

    def _send_extent(self, file: OutgoingFile, offset: int, count: int) -> Extent:
        """Send an extent through the mover, its digest taken on the way or by the other thread."""
        data, connection = self.data_connection, self.connection
        mover = data.mover_for("send", file.fd, self.algorithm)
        moved_before = mover.moved_bytes
        hasher = data.start_hasher(mover, self.algorithm)
        wait_for_digest: Callable[[], bytes] = (
            data.pool.submit(self.algorithm.of_extent, file.fd, offset, count).result
            if hasher is None
            else hasher.digest
        )
        file.count_frame()
        connection.send(pack_extent(file.index, offset, count))
        try:
            sent = connection.send_extent(mover, file.fd, offset, count, self._allowance)
        except OSError as error:
            self._pad(count - (mover.moved_bytes - moved_before))
            raise unreadable(file.path, error) from error
        if sent < count:
            self._pad(count - sent)
            raise shrunk(file.path, offset + sent)
        digest = wait_for_digest()
        connection.send(pack_digest(file.index, offset, count, digest))
        self.poll_control()
        return Extent(offset, count, digest)

    def _send_compressed(self, file: OutgoingFile, offset: int, count: int) -> Extent:
        """Read an extent into memory and send it compressed."""
        try:
            data = os.pread(file.fd, count, offset)
        except OSError as error:
            raise unreadable(file.path, error) from error
        if len(data) < count:
            raise shrunk(file.path, offset + len(data))
        file.count_frame()
        return self.send_buffer(file.index, offset, data)

    def _allowance(self, byte_count: int) -> int:
        return self.rate_limiter.wait(byte_count, self.poll_control)

    def _pad(self, count: int) -> None:
        """Send zeros for announced bytes that do not exist, to reach the end of the frame."""
        while count > 0:
            self.connection.send(ZEROS[:count])
            count -= min(count, len(ZEROS))


def unreadable(path: str, error: OSError) -> Unsendable:
    """The error of a file whose read(2) failed."""
    return Unsendable(ErrorCode.SOURCE, f"cannot read {path}: {reason(error)}")


def shrunk(path: str, size: int) -> Unsendable:
    """The error of a file that became shorter than announced."""
    text = f"{path} shrank while it was sent: {size} bytes are left"
    return Unsendable(ErrorCode.SHRANK, text)
