"""Send by fastnet/1, over one connection: manifest, the receiver's plan, what it wants, and its
word
that it has it.

Decision: no round trip a file. After the plan everything follows in one stream, small files packed
many to a frame, large ones as extents that never pass through this process (sendfile) while a
second thread takes their digests from the page cache. A file that shrinks while it is sent is
padded to the end of its extent and then called off in its END frame, so that the others still
arrive. Exit without an error means: the receiver has said that all of it, with these digests, has
its final name.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from fastnet.apps.transfer.compression import Compressor
from fastnet.apps.transfer.digest import FileDigest
from fastnet.apps.transfer.events import ErrorCode, TransferCancelled
from fastnet.apps.transfer.protocol import manifest
from fastnet.apps.transfer.protocol import plan as plan_frames
from fastnet.apps.transfer.protocol.entry import STREAM, Entry
from fastnet.apps.transfer.protocol.frames import FrameKind, field, pack_json
from fastnet.apps.transfer.protocol.handshake import as_error
from fastnet.apps.transfer.protocol.plan import Wanted
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import ConnectionLost
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.extent_sender import ExtentSender, OutgoingFile, extent_bytes
from fastnet.apps.transfer.session.pack_sender import PackSender
from fastnet.apps.transfer.session.session import TransferSession
from fastnet.apps.transfer.source.open import Unsendable, open_announced
from fastnet.apps.transfer.source.stdin import StreamSource
from fastnet.apps.transfer.target.journal import Extent
from fastnet.errors import FastnetError, TransferError, TransferUnconfirmed, reason
from fastnet.limits import COMPRESSED_EXTENT_BYTES, MOVER_SLICE_S, SECONDS_MAX
from fastnet.ratelimit import ByteRateLimiter

HEARD_AT_ONCE = 16
"""Signs of life taken before something is sent again: one that gives nothing else does not hold us
up.
"""
REASONS_MAX = 100
"""Failed files of which the reason is kept."""


class Sender(TransferSession):
    """The sending side. entries and places as tree.walk made them."""

    role = "send"

    def __init__(
        self,
        *args: Any,
        entries: list[Entry],
        places: list[str],
        pace: ByteRateLimiter,
        compressor: Compressor | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.entries = entries
        self.places = places
        self.is_compressed = compressor is not None
        self.out = ExtentSender(self.control, self.algorithm, pace, compressor, self.look)
        self.file: OutgoingFile | None = None
        self._stream_extents = 0
        self.transcript = Transcript(self.algorithm)
        self.failed: list[tuple[int, Unsendable]] = []
        self.lost = 0
        self._packs = PackSender(self)
        self._hears = self._is_hearing = False

    def run(self) -> TransferReport:
        """Send it all and return with the receiver's word. Raises TransferError and
        TransferUnconfirmed.
        """
        data_bytes = sum(entry.data_bytes for entry in self.entries)
        manifest.write(
            manifest.Manifest(self.entries, data_bytes, self.options.dry_run), self.connection.send
        )
        plan = self.expect(FrameKind.PLAN).json()
        plan_read = plan_frames.read(plan, self.entries, self.algorithm.size)
        self.total_files = len(plan_read.indices)
        self.total_bytes, self.skipped_bytes = plan_read.total_bytes, plan_read.skipped_bytes
        self.start(
            self.entries[0].path if len(self.entries) == 1 else f"{len(self.entries)} entries"
        )
        if self.options.dry_run or field(plan, "dry_run", bool, False):
            self.emit_plan()
            return self._report({})
        self._hears = True
        self._send_all(plan_read)
        self._hears = False
        self.end_data_connections(True)
        self.connection.send(
            pack_json(
                FrameKind.FINISH,
                {"transcript": self.transcript.digest().hex(), "files": self.transcript.files},
            )
        )
        return self._await_word()

    # Files

    def _send_all(self, wanted: Wanted) -> None:
        at = 0
        while at < len(wanted.indices):
            index = wanted.indices[at]
            self.look()
            try:
                if files := self._packs.next(wanted.indices, at):
                    sent = self._packs.send(files)
                    at += sent
                    if sent < len(files):
                        index = files[sent].number
                        self._packs.send_alone(files[sent])
                        at += 1
                else:
                    self._send_entry(index, wanted.held.get(index, []))
                    at += 1
            except Unsendable as fault:
                self.lost += 1
                if len(self.failed) < REASONS_MAX:
                    self.failed.append((index, fault))
                self._send_end({"entry": index, "code": fault.code, "text": fault.text})
                at += 1

    def _send_entry(self, index: int, held: list[Extent]) -> None:
        entry, place = self.entries[index], self.places[index]
        if entry.kind == STREAM:
            self._end(index, *self._send_stream(index))
        else:
            self._end(index, entry.size, self._send_file(index, entry, place, held))

    def _end(self, index: int, size: int, digest: bytes) -> None:
        self._send_end({"entry": index, "size": size, "digest": digest.hex()})
        self.transcript.add(index, size, digest)
        self.files += 1

    def _send_end(self, fields: dict[str, Any]) -> None:
        """With as many extents as were begun: some may still be on their way in other lanes."""
        extents = self.file.frames if self.file is not None else self._stream_extents
        self.file, self._stream_extents = None, 0
        self.connection.send(pack_json(FrameKind.END, fields | {"extents": extents}))

    def _send_file(self, index: int, entry: Entry, place: str, held: list[Extent]) -> bytes:
        """All extents that the receiver does not have. Returns the file's digest."""
        fd = open_announced(entry, place)
        try:
            before = os.fstat(fd)
            most = COMPRESSED_EXTENT_BYTES if self.is_compressed else extent_bytes(entry.size)
            self._share(OutgoingFile(index, place, fd, entry.size, held, self.algorithm, most))
            after = os.fstat(fd)
            if after.st_size <= entry.size and after.st_mtime_ns != before.st_mtime_ns:
                raise Unsendable(ErrorCode.CHANGED, f"{place} was written to while it was sent")
            if after.st_size > entry.size:
                grown = after.st_size - entry.size
                self.emit(
                    "message", text=f"{place} has grown by {grown} bytes since; they were not sent"
                )
            assert self.file is not None
            return self.file.digest.of_size(entry.size)
        finally:
            os.close(fd)

    def _share(self, file: OutgoingFile) -> None:
        """Send all extents of a file with all lanes. Raises Unsendable when it has to be called
        off.
        """
        with self.lock:
            self.file = file
            self.lock.notify_all()
        try:
            with suppress(Unsendable):
                self.out.work(file)
            while not file.is_quiet(MOVER_SLICE_S):
                self.control.look()
            while file.fault is not None:
                if isinstance(file.fault, Unsendable):
                    raise file.fault
                with self.lock:
                    self.lock.wait(MOVER_SLICE_S)
                self.control.look()  # raises what ended a data_connection, or what the peer says about it
        except BaseException as error:
            if not isinstance(error, Unsendable):
                self.end_data_connections(False)
            raise
        finally:
            file.stop()

    def run_data_connection(self, data_connection: DataConnection) -> None:
        compressor = Compressor() if self.is_compressed else None
        out = ExtentSender(
            data_connection, self.algorithm, self.out.pace, compressor, data_connection.look
        )
        file = None
        while (file := self._file_after(file)) is not None:
            with suppress(Unsendable):
                out.work(file)

    def _file_after(self, done: OutgoingFile | None) -> OutgoingFile | None:
        """Wait for another large file; None when there is none any more."""
        with self.lock:
            self.lock.wait_for(lambda: self.is_over or self.file not in (None, done))
            return None if self.is_over else self.file

    def _send_stream(self, index: int) -> tuple[int, bytes]:
        """Standard input as it comes. Returns its size and digest."""
        digest, size = FileDigest(self.algorithm), 0
        with StreamSource() as source:
            while True:
                try:
                    data = source.read(MOVER_SLICE_S)
                except OSError as error:
                    raise Unsendable(
                        ErrorCode.SOURCE, f"cannot read standard input: {reason(error)}"
                    ) from error
                if data is None:
                    self.look()
                    self.beat()
                    continue
                if not data:
                    return size, digest.of_size(size)
                self._stream_extents += 1
                extent = self.out.send_held(index, size, data)
                digest.add(extent.offset, extent.count, extent.digest)
                size += len(data)

    # What the receiver says

    def look(self) -> None:
        super().look()
        if self._hears and not self._is_hearing:
            self._hear()

    def _hear(self) -> None:
        """A receiver that fails says so while we send, also in the middle of an extent. Raises what
        it reports.
        """
        self._is_hearing = True
        try:
            for _ in range(HEARD_AT_ONCE):
                if not self.connection.is_readable():
                    return
                frame = self.connection.read_frame()
                if frame.kind == FrameKind.ERROR:
                    raise as_error(self.connection.peer, frame.json())
        finally:
            self._is_hearing = False

    def _await_word(self) -> TransferReport:
        """The receiver's word that it has everything. Raises TransferUnconfirmed when it does not
        come.
        """
        try:
            done = self.expect(FrameKind.ACK).json()
        except TransferCancelled:
            raise
        except ConnectionLost as error:
            message = f"all was sent, but {error.message}, before it said that it has everything"
            hint = "The same command again sends only what is missing"
            raise TransferUnconfirmed(
                message, hint, ErrorCode.UNCONFIRMED, self.report()
            ) from error
        word = field(done, "transcript", str, "")
        if word != self.transcript.digest().hex():
            message = f"{self.connection.peer} says that it has something else than what was sent"
            raise TransferError(
                message, "Send it again; if it happens again, report it", ErrorCode.MISMATCH
            )
        with suppress(FastnetError):
            self.connection.send(pack_json(FrameKind.FINISH, {}))
        confirmed = field(done, "bytes", int, 0)
        self.emit("ack", bytes=confirmed, files=field(done, "files", int, 0))
        report = self._report(done)
        failure = self._failure(done, report)
        if failure is not None:
            raise failure
        return report

    def _report(self, done: dict[str, Any]) -> TransferReport:
        said = done.get("cpu_seconds")
        cpu = float(said) if isinstance(said, int | float) and 0 <= said <= SECONDS_MAX else None
        return self.report(
            confirmed_bytes=field(done, "bytes", int, None),
            peer_cpu_seconds=cpu,
            peer_mover=field(done, "mover", str, None),
            peer_mover_reason=field(done, "mover_reason", str, None),
            digest=self.transcript.only_digest(self.algorithm.name),
        )

    def _failure(self, done: dict[str, Any], report: TransferReport) -> TransferError | None:
        """One error for all files that did not arrive, or None."""
        refused = field(done, "refused", int, 0)
        if not self.lost and not refused:
            return None
        if self.failed:
            fault = self.failed[0][1]
            more = f", and {self.lost + refused - 1} more" if self.lost + refused > 1 else ""
            hint = "The rest arrived; send these again when nobody writes to them"
            return TransferError(f"{fault.text}{more}", hint, fault.code, report)
        text = field(done, "refused_reason", str, "")
        return TransferError(
            f"{self.connection.peer} did not take {refused}: {text}", "", ErrorCode.REFUSED, report
        )
