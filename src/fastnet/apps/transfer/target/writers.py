"""One file on its way in: extents arrive, are verified a little later, and at the end it gets its
name.

Facts. Bytes that splice(2) put into the page cache were never seen by this process; a second thread
reads them there for the digest while the next extent arrives, unless the mover copies: then it
reads along (data_connection.hash_along).
Decision: at most UNPROVEN_EXTENTS are written and not yet verified. Only a verified extent enters
the journal; only a file whose every extent was right is renamed. What comes through TLS, and what
goes to a stream, is hashed in a buffer, too.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastnet.apps.transfer.digest import FileDigest
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE, STREAM, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.session import TransferSession
from fastnet.apps.transfer.target.incoming_file import IncomingFile
from fastnet.apps.transfer.target.journal import Extent
from fastnet.errors import TransferError
from fastnet.limits import MOVER_BUFFER_BYTES, MOVER_SLICE_S, UNPROVEN_EXTENTS

if TYPE_CHECKING:
    from concurrent.futures import Future


@dataclass
class DigestPending:
    """An extent that is in the file: what its digest is, and what the sender says that it is."""

    offset: int
    count: int
    work: Future[bytes] | None
    found: bytes = b""
    said: bytes | None = None


class ExtentWriter:
    """What writing to a part file and to a stream have in common: extents in order, and their
    proofs.
    """

    def take(self, offset: int, count: int) -> None:
        """The next bytes of the connection are this extent. Raises OSError of the file."""
        raise NotImplementedError

    def _put(self, offset: int, data: memoryview) -> None:
        """Write it there."""
        raise NotImplementedError

    def take_data(self, offset: int, data: memoryview) -> None:
        """These bytes, which came in another form, are this extent. Raises OSError of the file."""
        self._check(offset, len(data))
        self._put(offset, data)
        self._pending.append(
            DigestPending(offset, len(data), None, self.session.algorithm.of(data))
        )
        self.ends = offset + len(data)
        self.data_connection.connection.moved(len(data))

    def _copy(self, offset: int, count: int) -> bytes:
        """The next bytes of the connection through a buffer. Returns their digest."""
        hasher, connection = self.session.algorithm.new(), self.data_connection.connection
        buffer = memoryview(bytearray(min(count, MOVER_BUFFER_BYTES)))
        ends = offset + count
        while offset < ends:
            n = connection.read_into(buffer[: ends - offset])
            if not n:
                raise connection.broken()
            hasher.update(buffer[:n])
            self._put(offset, buffer[:n])
            offset += n
            connection.moved(n)
            connection.on_slice()
        return hasher.digest()

    def finish(self, size: int) -> bytes:
        """All of it is here. Returns the digest of the whole. Raises TransferError when a part is
        not what was sent.
        """
        raise NotImplementedError

    def __init__(
        self, session: TransferSession, data_connection: DataConnection, entry: Entry, name: str
    ) -> None:
        self.session = session
        self.data_connection = data_connection
        self.entry = entry
        self.name = name
        self.ends = 0
        self._pending: deque[DigestPending] = deque()

    def _check(self, offset: int, count: int) -> None:
        beyond = self.entry.kind == FILE and count > self.entry.size - offset
        torn = self.entry.kind == STREAM and offset != self.ends
        if offset < self.ends or beyond or torn or not count:
            raise ProtocolError(f"an extent of {self.name!a} is out of order")
        if self._pending and self._pending[-1].said is None:
            raise ProtocolError(f"an extent of {self.name!a} came without its digest")

    def prove(self, offset: int, count: int, digest: bytes) -> None:
        """The sender's word about the extent that came last."""
        last = self._pending[-1] if self._pending else None
        if last is None or last.said is not None or (last.offset, last.count) != (offset, count):
            raise ProtocolError(f"a digest of {self.name!a} belongs to nothing")
        last.said = digest
        while len(self._pending) > UNPROVEN_EXTENTS or (
            self._pending and self._is_known(self._pending[0])
        ):
            self._settle()

    def _is_known(self, extent: DigestPending) -> bool:
        return extent.said is not None and (extent.work is None or extent.work.done())

    def _settle(self) -> Extent:
        """Compare the oldest one."""
        oldest = self._pending.popleft()
        found = (
            oldest.found if oldest.work is None else self.data_connection.await_result(oldest.work)
        )
        if found != oldest.said:
            where = f"bytes {oldest.offset} to {oldest.offset + oldest.count} of {self.name}"
            hint = "The source was written to meanwhile, or the data was damaged on its way; send it again"
            raise TransferError(
                f"{where} are not what was sent: their digests differ", hint, ErrorCode.MISMATCH
            )
        extent = Extent(oldest.offset, oldest.count, found)
        self._keep(extent)
        return extent

    def _keep(self, extent: Extent) -> None:
        """It is there, and right."""
        raise NotImplementedError

    def settle_all(self, size: int) -> None:
        """What came in this lane is right, for a file of `size` bytes. Raises TransferError."""
        if self.ends > size or (self.entry.kind == STREAM and self.ends != size):
            raise ProtocolError(f"{self.name!a} does not end where its extents do")
        if self._pending and self._pending[-1].said is None:
            raise ProtocolError(f"an extent of {self.name!a} came without its digest")
        self.settle()

    def settle(self) -> None:
        """Verify all whose digest was said."""
        while self._pending and self._pending[0].said is not None:
            self._settle()


class PartWriter(ExtentWriter):
    """Into a part file, what comes in one lane of it."""

    def __init__(
        self,
        session: TransferSession,
        data_connection: DataConnection,
        entry: Entry,
        file: IncomingFile,
    ) -> None:
        super().__init__(session, data_connection, entry, file.part.name)
        self.file = file
        self.part = file.part

    def take(self, offset: int, count: int) -> None:
        """The next bytes of the connection."""
        self._check(offset, count)
        connection, algorithm = self.data_connection.connection, self.session.algorithm
        mover = self.data_connection.mover_for("receive", self.part.fd, algorithm)
        if connection.is_tls:
            self._pending.append(DigestPending(offset, count, None, self._copy(offset, count)))
        else:
            hasher = self.data_connection.hash_along(mover, algorithm)
            connection.receive_file(mover, self.part.fd, offset, count)
            if hasher:
                self._pending.append(DigestPending(offset, count, None, hasher.digest()))
            else:
                work = self.data_connection.pool.submit(
                    algorithm.of_extent, self.part.fd, offset, count
                )
                self._pending.append(DigestPending(offset, count, work))
        self.ends = offset + count
        self.file.arrive()

    def take_data(self, offset: int, data: memoryview) -> None:
        super().take_data(offset, data)
        self.file.arrive()

    def salvage(self) -> None:
        """The transfer broke: note what came whole before that, for another run."""
        with suppress(TransferError, OSError):
            while self._pending and self._pending[0].said is not None:
                work = self._pending[0].work
                if work is not None:
                    work.result()
                self._settle()

    def _put(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self.part.fd, data, offset)
            data, offset = data[written:], offset + written

    def prove(self, offset: int, count: int, digest: bytes) -> None:
        if not self.file.is_over:
            super().prove(offset, count, digest)

    def settle(self) -> None:
        if not self.file.is_over:
            super().settle()

    def _keep(self, extent: Extent) -> None:
        self.file.keep(extent)

    def finish(self, size: int) -> bytes:
        """All of it is here, and was settled in every data_connection. Returns the file's digest."""
        os.ftruncate(self.part.fd, size)
        return self.file.digest_of(size)


class StreamWriter(ExtentWriter):
    """To standard output, or to a file that is none (a FIFO, /dev/null): as it comes, holes as
    zeros.

    A pipe that poll(2) calls writable takes PIPE_BUF bytes without waiting (pipe(7)), and perhaps
    not one more.
    """

    def __init__(
        self,
        session: TransferSession,
        data_connection: DataConnection,
        entry: Entry,
        name: str,
        fd: int,
    ) -> None:
        super().__init__(session, data_connection, entry, name)
        self.digest = FileDigest(session.algorithm)
        self.fd = fd
        may_wait = os.get_blocking(fd) and not stat.S_ISREG(os.fstat(fd).st_mode)
        self._step = select.PIPE_BUF if may_wait else MOVER_BUFFER_BYTES
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def take(self, offset: int, count: int) -> None:
        """The next bytes of the connection, and the hole before them."""
        self._check(offset, count)
        self._pending.append(DigestPending(offset, count, None, self._copy(offset, count)))

    def _keep(self, extent: Extent) -> None:
        self.digest.add(extent.offset, extent.count, extent.digest)

    def _put(self, offset: int, data: memoryview) -> None:
        self._fill(offset)
        self.write(data)
        self.ends = offset + len(data)

    def _fill(self, until: int) -> None:
        zeros = bytes(MOVER_BUFFER_BYTES)
        while self.ends < until:
            count = min(len(zeros), until - self.ends)
            self.write(memoryview(zeros)[:count])
            self.ends += count

    def write(self, view: memoryview) -> None:
        """Whoever reads this may take hours: meanwhile the sender hears that we live, and we hear
        that it does not.
        """
        while view:
            if not self._poll.poll(MOVER_SLICE_S * 1000):
                self.data_connection.look()
                continue
            with suppress(BlockingIOError):
                view = view[os.write(self.fd, view[: self._step]) :]

    def finish(self, size: int) -> bytes:
        """All of it was written, and settled. Returns the digest."""
        self._fill(size)
        return self.digest.of_size(size)


def patient(stack: ExitStack, fd: int) -> int:
    """A descriptor of the same pipe or terminal that never waits; `fd` itself for what is neither,
    or
    cannot be had twice.

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
