"""A large file on its way out: its extents, shared by all lanes of the transfer.

Decision: extents go in the order of the file, one after another in each lane; a lane that is done
with one takes the next. A file that shrinks is padded to the end of the extents that are under way,
because what was promised must follow, and is called off when no lane works on it any more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from fastnet.apps.transfer.compression import Compressor
from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.frames import pack_digest, pack_extent
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.source.identity import BLOCK_BYTES
from fastnet.apps.transfer.source.open import Unsendable
from fastnet.apps.transfer.target.journal import Extent
from fastnet.errors import reason
from fastnet.limits import EXTENT_BYTES, EXTENTS_MAX, FILE_EXTENTS_MAX, MIB
from fastnet.mover.contract import Mover
from fastnet.ratelimit import ByteRateLimiter

ZEROS = bytes(MIB)


def extent_bytes(size: int) -> int:
    """How large the extents of a file are: whole MiB, so that EXTENTS_MAX are enough."""
    return max(EXTENT_BYTES, -(-size // EXTENTS_MAX // MIB) * MIB)


def data_ranges(file_fd: int, size: int, is_sparse: bool) -> Iterator[tuple[int, int]]:
    """Where a file has data: (offset, end); holes are left out (lseek(2), SEEK_DATA)."""
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
    """One open file. index, place: of its entry. held: what the receiver has. frames: extents that
    were begun, for END.
    """

    def __init__(
        self,
        index: int,
        place: str,
        fd: int,
        size: int,
        held: list[Extent],
        algorithm: Algorithm,
        most: int,
    ) -> None:
        self.index = index
        self.place = place
        self.fd = fd
        self.digest = FileDigest(algorithm)
        self.frames = 0
        self.fault: BaseException | None = None
        self._under_way = 0
        self._extents = self._all(size, held, most)
        self._lock = threading.Condition()

    def _all(self, size: int, held: list[Extent], most: int) -> Iterator[tuple[Extent, bool]]:
        """The extents in order, and whether the receiver has them. most: bytes of one."""
        is_sparse = os.fstat(self.fd).st_blocks * BLOCK_BYTES < size
        owned = iter([*held, Extent(size, 0, b"")])
        have = next(owned)
        for start, end in data_ranges(self.fd, size, is_sparse):
            offset = start
            while offset < end:
                while have.offset < offset:
                    have = next(owned)
                if have.count and have.offset == offset:
                    yield have, True
                    offset += have.count
                else:
                    count = min(
                        most, end - offset, max(have.offset - offset, 1) if have.count else end
                    )
                    yield Extent(offset, count, b""), False
                    offset += count

    def take(self) -> Extent | None:
        """The next extent to send, or None when there is none, or no use in it."""
        with self._lock:
            for extent, is_held in self._extents if self.fault is None else ():
                if len(self.digest) >= FILE_EXTENTS_MAX:
                    text = f"{self.place} has more than {FILE_EXTENTS_MAX} pieces between holes"
                    self.fault = Unsendable(ErrorCode.SOURCE, text)
                    return None
                if not is_held:
                    self._under_way += 1
                    return extent
                self.digest.add(extent.offset, extent.count, extent.digest)
            return None

    def begin(self) -> None:
        """An extent's frame is about to be sent."""
        with self._lock:
            self.frames += 1

    def end(self, extent: Extent | None, fault: BaseException | None = None) -> None:
        """An extent that was taken is through, or what became of it."""
        with self._lock:
            self._under_way -= 1
            if extent is not None:
                self.digest.add(extent.offset, extent.count, extent.digest)
            self.fault = self.fault or fault
            self._lock.notify_all()

    def stop(self) -> None:
        """Take no more of it, and return when no lane reads the file."""
        with self._lock:
            self._extents = iter(())
            while self._under_way:
                self._lock.wait()

    def is_quiet(self, wait_s: float) -> bool:
        """Whether no lane works on it; waits that long for it."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._under_way, wait_s)


class ExtentSender:
    """Sends extents over one data_connection. look: may not send anything, for an extent may be under way."""

    def __init__(
        self,
        data_connection: DataConnection,
        algorithm: Algorithm,
        pace: ByteRateLimiter,
        compressor: Compressor | None,
        look: Callable[[], None],
    ) -> None:
        self.data_connection = data_connection
        self.look = look
        self.algorithm = algorithm
        self.pace = pace
        self.compressor = compressor

    def work(self, file: OutgoingFile) -> None:
        """Send extents of a file until there are none. Raises Unsendable when it has to be called
        off.
        """
        while (extent := file.take()) is not None:
            try:
                done = self._send(file, extent.offset, extent.count)
            except BaseException as error:
                file.end(None, error)
                raise
            file.end(done)

    def send_data(self, head: bytes, data: bytes | memoryview) -> None:
        """A whole frame of data, as small as was asked for."""
        if self.compressor:
            self.data_connection.connection.send(self.compressor.frame(b"".join((head, data))))
        else:
            self.data_connection.connection.send(head)
            self.data_connection.connection.send(data)

    def send_held(self, index: int, offset: int, data: bytes) -> Extent:
        """An extent that is in memory."""
        self.pace.wait_all(len(data), self.look)
        extent = Extent(offset, len(data), self.algorithm.of(data))
        self.send_data(pack_extent(index, offset, len(data)), data)
        self.data_connection.connection.send(pack_digest(index, offset, len(data), extent.digest))
        self.data_connection.connection.moved(len(data))
        self.look()
        return extent

    def _send(self, file: OutgoingFile, offset: int, count: int) -> Extent:
        if self.compressor is not None:
            return self._send_read(file, offset, count)
        data_connection, connection, place = (
            self.data_connection,
            self.data_connection.connection,
            file.place,
        )
        before = self._moved(file.fd)
        hasher = data_connection.hash_along(self._mover(file.fd), self.algorithm)
        found = (
            hasher.digest
            if hasher
            else data_connection.pool.submit(
                self.algorithm.of_extent, file.fd, offset, count
            ).result
        )
        file.begin()
        connection.send(pack_extent(file.index, offset, count))
        try:
            sent = self._send_bytes(file.fd, offset, count)
        except OSError as error:
            self._pad(count - (self._moved(file.fd) - before))
            raise Unsendable(ErrorCode.SOURCE, f"cannot read {place}: {reason(error)}") from error
        if sent < count:
            self._pad(count - sent)
            raise Unsendable(
                ErrorCode.SHRANK,
                f"{place} shrank while it was sent: {offset + sent} bytes are left",
            )
        digest = found()
        connection.send(pack_digest(file.index, offset, count, digest))
        self.look()
        return Extent(offset, count, digest)

    def _send_read(self, file: OutgoingFile, offset: int, count: int) -> Extent:
        """An extent that passes through this process."""
        try:
            data = os.pread(file.fd, count, offset)
        except OSError as error:
            raise Unsendable(
                ErrorCode.SOURCE, f"cannot read {file.place}: {reason(error)}"
            ) from error
        if len(data) < count:
            left = offset + len(data)
            raise Unsendable(
                ErrorCode.SHRANK, f"{file.place} shrank while it was sent: {left} bytes are left"
            )
        file.begin()
        return self.send_held(file.index, offset, data)

    def _send_bytes(self, fd: int, offset: int, count: int) -> int:
        mover, sent = self._mover(fd), 0
        while sent < count:
            step = self.pace.wait(count - sent, self.look)
            n = self.data_connection.connection.send_file(mover, fd, offset + sent, step)
            sent += n
            if n < step:
                break
        return sent

    def _moved(self, fd: int) -> int:
        """Bytes of extents that the connection took so far, exact also after an error."""
        return (
            self.data_connection.moved_bytes
            if self.data_connection.connection.is_tls
            else self._mover(fd).moved_bytes
        )

    def _mover(self, fd: int) -> Mover:
        return self.data_connection.mover_for("send", fd, self.algorithm)

    def _pad(self, count: int) -> None:
        """What was promised must follow, or nobody would know where the next frame begins."""
        while count > 0:
            self.data_connection.connection.send(ZEROS[:count])
            count -= min(count, len(ZEROS))
