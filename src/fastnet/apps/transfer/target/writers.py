"""Writers of one received file: extents arrive, are verified a little later, then named.

Facts. Bytes that splice(2) put into the page cache were never in this process; a second thread
reads them there for the digest while the next extent arrives. A mover that copies hashes them in
its buffer (DataConnection.start_hasher).
Decision: at most UNVERIFIED_EXTENTS_MAX are written and not yet verified. Only a verified extent
enters the journal; only a file whose every extent was verified is renamed.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.protocol.entry import FILE, STREAM, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.incoming_file import IncomingFile
from fastnet.errors import TransferError
from fastnet.limits import MOVER_BUFFER_BYTES, MOVER_SLICE_S, UNVERIFIED_EXTENTS_MAX

if TYPE_CHECKING:
    from concurrent.futures import Future


@dataclass
class PendingDigest:
    """A written extent whose digest is not yet verified."""

    offset: int
    """First byte in the file."""
    count: int
    """Length in bytes."""
    work: Future[bytes] | None = None
    """The digest being computed by the second thread, or None."""
    computed: bytes = b""
    """The digest, when `work` is None."""
    expected: bytes | None = None
    """The sender's digest; None until its DIGEST frame arrives."""


class ExtentWriter:
    """Base of the writers: checks the order of extents and verifies their digests.

    Args:
        algorithm: Digest of the extents.
        data_connection: Where the extents arrive.
        entry: The manifest's entry of the file.
        name: The file's name, for messages.
    """

    def __init__(
        self, algorithm: Algorithm, data_connection: DataConnection, entry: Entry, name: str
    ) -> None:
        self.algorithm = algorithm
        self.data_connection = data_connection
        self.entry = entry
        self.name = name
        self.end = 0
        """Offset after the last byte written."""
        self._pending: deque[PendingDigest] = deque()

    # What a writer implements

    def receive_extent(self, offset: int, count: int) -> None:
        """Receive an extent from the connection. Raises OSError of the file."""
        raise NotImplementedError

    def finish(self, size: int) -> bytes:
        """Complete the file, all extents verified. Returns its digest."""
        raise NotImplementedError

    def _put(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        raise NotImplementedError

    def _keep(self, extent: Extent) -> None:
        """Record a verified extent."""
        raise NotImplementedError

    # What they share

    def write_extent(self, offset: int, data: memoryview) -> None:
        """Write an extent that is in memory. Raises OSError of the file."""
        self._check_order(offset, len(data))
        self._put(offset, data)
        self._pending.append(PendingDigest(offset, len(data), computed=self.algorithm.of(data)))
        self.end = offset + len(data)
        self.data_connection.connection.count_moved(len(data))

    def _check_order(self, offset: int, count: int) -> None:
        beyond = self.entry.kind == FILE and count > self.entry.size - offset
        torn = self.entry.kind == STREAM and offset != self.end
        if offset < self.end or beyond or torn or not count:
            raise ProtocolError(f"an extent of {self.name!a} is out of order")
        self._check_digest_received()

    def _check_digest_received(self) -> None:
        if self._pending and self._pending[-1].expected is None:
            raise ProtocolError(f"an extent of {self.name!a} came without its digest")

    def add_digest(self, offset: int, count: int, digest: bytes) -> None:
        """Accept the sender's digest of the last extent and verify those that are computed."""
        last = self._pending[-1] if self._pending else None
        if (
            last is None
            or last.expected is not None
            or (last.offset, last.count) != (offset, count)
        ):
            raise ProtocolError(f"a digest of {self.name!a} belongs to nothing")
        last.expected = digest
        while len(self._pending) > UNVERIFIED_EXTENTS_MAX or (
            self._pending and self._is_computed(self._pending[0])
        ):
            self._verify_oldest()

    def _is_computed(self, extent: PendingDigest) -> bool:
        return extent.expected is not None and (extent.work is None or extent.work.done())

    def _verify_oldest(self) -> None:
        oldest = self._pending.popleft()
        work = oldest.work
        digest = self.data_connection.await_result(work) if work is not None else oldest.computed
        if digest != oldest.expected:
            where = f"bytes {oldest.offset} to {oldest.offset + oldest.count} of {self.name}"
            hint = (
                "The source was written to meanwhile, or the data was damaged on its way; "
                "send it again"
            )
            raise TransferError(
                f"{where} are not what was sent: their digests differ", hint, ErrorCode.MISMATCH
            )
        self._keep(Extent(oldest.offset, oldest.count, digest))

    def verify_all(self, size: int) -> None:
        """Verify every extent received here, for a file of `size` bytes.

        Raises TransferError.
        """
        if self.end > size or (self.entry.kind == STREAM and self.end != size):
            raise ProtocolError(f"{self.name!a} does not end where its extents do")
        self._check_digest_received()
        self.verify_pending()

    def verify_pending(self) -> None:
        """Verify the extents whose digest has been received."""
        while self._pending and self._pending[0].expected is not None:
            self._verify_oldest()


class PartWriter(ExtentWriter):
    """Writes the extents of one data connection into a partial file."""

    def __init__(
        self,
        algorithm: Algorithm,
        data_connection: DataConnection,
        entry: Entry,
        file: IncomingFile,
    ) -> None:
        super().__init__(algorithm, data_connection, entry, file.part.name)
        self.file = file
        self.part = file.part

    def receive_extent(self, offset: int, count: int) -> None:
        """Receive an extent through the mover.

        Its digest is computed on the way or afterwards.
        """
        self._check_order(offset, count)
        data, fd = self.data_connection, self.part.fd
        mover = data.mover_for("receive", fd, self.algorithm)
        hasher = data.start_hasher(mover, self.algorithm)
        data.connection.receive_extent(mover, fd, offset, count)
        if hasher is not None:
            pending = PendingDigest(offset, count, computed=hasher.digest())
        else:
            work = data.pool.submit(self.algorithm.of_extent, fd, offset, count)
            pending = PendingDigest(offset, count, work)
        self._pending.append(pending)
        self.end = offset + count
        self.file.count_arrived()

    def write_extent(self, offset: int, data: memoryview) -> None:
        """Write an extent that is in memory. Raises OSError of the file."""
        super().write_extent(offset, data)
        self.file.count_arrived()

    def keep_verified(self) -> None:
        """Record what can still be verified after a failure, to resume from."""
        with suppress(TransferError, OSError):
            while self._pending and self._pending[0].expected is not None:
                work = self._pending[0].work
                if work is not None:
                    work.result()
                self._verify_oldest()

    def _put(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self.part.fd, data, offset)
            data, offset = data[written:], offset + written

    def add_digest(self, offset: int, count: int, digest: bytes) -> None:
        """Accept the sender's digest, unless the file is aborted."""
        if not self.file.is_aborted:
            super().add_digest(offset, count, digest)

    def verify_pending(self) -> None:
        """Verify the extents whose digest has been received, unless the file is aborted."""
        if not self.file.is_aborted:
            super().verify_pending()

    def _keep(self, extent: Extent) -> None:
        self.file.keep(extent)

    def finish(self, size: int) -> bytes:
        """Set the size of a file verified on every connection. Returns its digest."""
        os.ftruncate(self.part.fd, size)
        return self.file.digest_of(size)


class StreamWriter(ExtentWriter):
    """Writes to standard output or a special file (FIFO, /dev/null), in order.

    Holes become zeros.

    A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking (pipe(7)), and perhaps
    not one more.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        data_connection: DataConnection,
        entry: Entry,
        name: str,
        fd: int,
    ) -> None:
        super().__init__(algorithm, data_connection, entry, name)
        self.digest = FileDigest(algorithm)
        self.fd = fd
        may_block = os.get_blocking(fd) and not stat.S_ISREG(os.fstat(fd).st_mode)
        self._step_bytes = select.PIPE_BUF if may_block else MOVER_BUFFER_BYTES
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def receive_extent(self, offset: int, count: int) -> None:
        """Receive an extent through a buffer; a hole before it is written as zeros."""
        self._check_order(offset, count)
        hasher, connection = self.algorithm.new(), self.data_connection.connection
        buffer = memoryview(bytearray(min(count, MOVER_BUFFER_BYTES)))
        at, end = offset, offset + count
        while at < end:
            n = connection.read_into(buffer[: end - at])
            if not n:
                raise connection.lost()
            hasher.update(buffer[:n])
            self._put(at, buffer[:n])
            at += n
            connection.on_moved(n)
        self._pending.append(PendingDigest(offset, count, computed=hasher.digest()))

    def _keep(self, extent: Extent) -> None:
        self.digest.add(extent.offset, extent.count, extent.digest)

    def _put(self, offset: int, data: memoryview) -> None:
        self._fill(offset)
        self.write(data)
        self.end = offset + len(data)

    def _fill(self, end: int) -> None:
        zeros = bytes(MOVER_BUFFER_BYTES)
        while self.end < end:
            count = min(len(zeros), end - self.end)
            self.write(memoryview(zeros)[:count])
            self.end += count

    def write(self, view: memoryview) -> None:
        """Write all of `view`.

        The reader may pause for hours: keepalives are sent meanwhile.
        """
        while view:
            if not self._poll.poll(MOVER_SLICE_S * 1000):
                self.data_connection.on_wait()
                continue
            with suppress(BlockingIOError):
                view = view[os.write(self.fd, view[: self._step_bytes]) :]

    def finish(self, size: int) -> bytes:
        """Write a hole at the end. Returns the digest of the whole."""
        self._fill(size)
        return self.digest.of_size(size)


def patient(stack: ExitStack, fd: int) -> int:
    """A descriptor of the same pipe or terminal that never waits.

    `fd` itself for what is neither, or cannot be had twice.

    Setting O_NONBLOCK on `fd` would set it for every process that shares it, and opening it anew
    does not.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):
            fd = os.open(
                f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            )
            stack.callback(os.close, fd)
    return fd


def write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
