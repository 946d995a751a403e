"""Sender of fastnet/1: manifest, plan, data, acknowledgement.

Decision: no round trip per file. After the plan everything follows in one stream: small files
packed many to a frame, large ones as extents that bypass this process (sendfile) while a second
thread computes their digests from the page cache. A file that shrinks while it is sent is padded to
the end of its extent and aborted in its END frame, so that the others still arrive. No error means:
the receiver has acknowledged that all of it, with these digests, has its final name.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from fastnet.apps.transfer.compression import Compressor
from fastnet.apps.transfer.digest import FileDigest
from fastnet.apps.transfer.events import ErrorCode, TransferCancelled
from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.protocol import manifest
from fastnet.apps.transfer.protocol import plan as plan_frames
from fastnet.apps.transfer.protocol.entry import STREAM, Entry
from fastnet.apps.transfer.protocol.frames import FrameKind, field, pack_json
from fastnet.apps.transfer.protocol.handshake import as_error
from fastnet.apps.transfer.protocol.plan import Plan
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import ConnectionLost
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.extent_sender import ExtentSender, OutgoingFile, extent_bytes
from fastnet.apps.transfer.session.pack_sender import PackSender
from fastnet.apps.transfer.session.session import SessionParameters, TransferSession
from fastnet.apps.transfer.source.open import Unsendable, open_announced
from fastnet.apps.transfer.source.stdin import StdinSource
from fastnet.errors import FastnetError, TransferError, TransferUnconfirmed, reason
from fastnet.limits import COMPRESSED_EXTENT_BYTES, MOVER_SLICE_S, SECONDS_MAX
from fastnet.ratelimit import ByteRateLimiter

FRAMES_PER_POLL_MAX = 16
"""Frames read between two slices: a receiver that sends only keepalives must not stop us sending.
"""
REASONS_MAX = 100
"""Failed files of which the reason is kept."""


class Sender(TransferSession):
    """The sending side.

    Args:
        parameters: Connection, digest, options and events.
        entries: Entries of the manifest, as walk made them.
        source_paths: Where each of them is read from.
        rate_limiter: Of all data connections.
        compressor: None to send bytes as they are in the files.
    """

    role = "send"

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        entries: list[Entry],
        source_paths: list[str],
        rate_limiter: ByteRateLimiter,
        compressor: Compressor | None = None,
    ) -> None:
        super().__init__(parameters)
        self.entries = entries
        self.source_paths = source_paths
        self.is_compressed = compressor is not None
        self.transcript = Transcript(self.algorithm)
        self.extents = ExtentSender(
            self.control, self.algorithm, rate_limiter, compressor, self.poll_control
        )
        self._packs = PackSender(
            entries,
            source_paths,
            self.extents,
            self.transcript,
            self.counters,
            self.options.backend,
        )
        self.file: OutgoingFile | None = None
        """The large file being sent by all data connections."""
        self._stdin_extents = 0
        self.failed: list[tuple[int, Unsendable]] = []
        """Index and cause of the first REASONS_MAX aborted files."""
        self.aborted_files = 0
        self._reads_control = self._is_reading_control = False

    def run(self) -> TransferReport:
        """Send everything and return after the receiver's ACK.

        Raises:
            TransferUnconfirmed: All was sent, no ACK came.  TransferError.
        """
        data_bytes = sum(entry.data_bytes for entry in self.entries)
        manifest.write(
            manifest.Manifest(self.entries, data_bytes, self.options.dry_run), self.connection.send
        )
        fields = self.receive_frame(FrameKind.PLAN).json()
        plan = plan_frames.read(fields, self.entries, self.algorithm.size)
        self.counters.total_files = len(plan.indices)
        self.counters.total_bytes = plan.total_bytes
        self.counters.skipped_bytes = plan.skipped_bytes
        self.start(
            self.entries[0].path if len(self.entries) == 1 else f"{len(self.entries)} entries"
        )
        if self.options.dry_run or field(fields, "dry_run", bool, False):
            self.emit_plan()
            return self._report({})
        self._reads_control = True
        self._send_plan(plan)
        self._reads_control = False
        self.end_data_connections(True)
        finish = {"transcript": self.transcript.digest().hex(), "files": self.transcript.files}
        self.connection.send(pack_json(FrameKind.FINISH, finish))
        return self._await_ack()

    # Files

    def _send_plan(self, plan: Plan) -> None:
        """Send every file of the plan, in order."""
        at = 0
        while at < len(plan.indices):
            index = plan.indices[at]
            self.poll_control()
            try:
                if files := self._packs.next_files(plan.indices, at):
                    sent = self._packs.send(files)
                    at += sent
                    if sent < len(files):
                        index = files[sent].number
                        self._packs.send_alone(files[sent])
                        at += 1
                else:
                    self._send_entry(index, plan.held.get(index, []))
                    at += 1
            except Unsendable as fault:
                self.aborted_files += 1
                if len(self.failed) < REASONS_MAX:
                    self.failed.append((index, fault))
                self._send_end({"entry": index, "code": fault.code, "text": fault.text})
                at += 1

    def _send_entry(self, index: int, held: list[Extent]) -> None:
        entry = self.entries[index]
        if entry.kind == STREAM:
            size, digest = self._send_stdin(index)
        else:
            size, digest = entry.size, self._send_file(index, entry, held)
        self._send_end({"entry": index, "size": size, "digest": digest.hex()})
        self.transcript.add(index, size, digest)
        self.counters.files += 1

    def _send_end(self, fields: dict[str, Any]) -> None:
        """Send END with the number of extents begun: some may be in flight on other connections."""
        extents = self.file.frames if self.file is not None else self._stdin_extents
        self.file, self._stdin_extents = None, 0
        self.connection.send(pack_json(FrameKind.END, fields | {"extents": extents}))

    def _send_file(self, index: int, entry: Entry, held: list[Extent]) -> bytes:
        """Send the extents of a large file that the receiver does not hold; returns its digest."""
        path = self.source_paths[index]
        fd = open_announced(entry, path)
        try:
            before = os.fstat(fd)
            size_max = COMPRESSED_EXTENT_BYTES if self.is_compressed else extent_bytes(entry.size)
            file = OutgoingFile(index, path, fd, entry.size, held, self.algorithm, size_max)
            self._send_extents(file)
            after = os.fstat(fd)
            if after.st_size <= entry.size and after.st_mtime_ns != before.st_mtime_ns:
                raise Unsendable(ErrorCode.CHANGED, f"{path} was written to while it was sent")
            if after.st_size > entry.size:
                grown = after.st_size - entry.size
                self.emit(
                    "message", text=f"{path} has grown by {grown} bytes since; they were not sent"
                )
            return file.digest.of_size(entry.size)
        finally:
            os.close(fd)

    def _send_extents(self, file: OutgoingFile) -> None:
        """Send a file over all data connections. Raises Unsendable when it has to be aborted."""
        with self.lock:
            self.file = file
            self.lock.notify_all()
        try:
            with suppress(Unsendable):
                self.extents.send_file(file)
            while not file.wait_idle(MOVER_SLICE_S):
                self.control.on_wait()
            while file.fault is not None:
                if isinstance(file.fault, Unsendable):
                    raise file.fault
                with self.lock:
                    self.lock.wait(MOVER_SLICE_S)
                self.control.on_wait()  # raises what ended a data connection, or the peer's ERROR
        except BaseException as error:
            if not isinstance(error, Unsendable):
                self.end_data_connections(False)
            raise
        finally:
            file.stop()

    def run_data_connection(self, data_connection: DataConnection) -> None:
        """Send extents of every large file over a further connection."""
        extents = ExtentSender(
            data_connection,
            self.algorithm,
            self.extents.rate_limiter,
            Compressor() if self.is_compressed else None,
            data_connection.on_wait,
        )
        file = None
        while (file := self._next_file(file)) is not None:
            with suppress(Unsendable):
                extents.send_file(file)

    def _next_file(self, previous: OutgoingFile | None) -> OutgoingFile | None:
        """Wait for another large file than `previous`; None when the transfer is over."""
        with self.lock:
            self.lock.wait_for(lambda: self.is_over or self.file not in (None, previous))
            return None if self.is_over else self.file

    def _send_stdin(self, index: int) -> tuple[int, bytes]:
        """Send standard input to its end. Returns its size and digest."""
        digest, size = FileDigest(self.algorithm), 0
        with StdinSource() as source:
            while True:
                try:
                    data = source.read(MOVER_SLICE_S)
                except OSError as error:
                    text = f"cannot read standard input: {reason(error)}"
                    raise Unsendable(ErrorCode.SOURCE, text) from error
                if data is None:
                    self.poll_control()
                    self.send_keepalive()
                    continue
                if not data:
                    return size, digest.of_size(size)
                self._stdin_extents += 1
                extent = self.extents.send_buffer(index, size, data)
                digest.add(extent.offset, extent.count, extent.digest)
                size += len(data)

    # What the receiver sends

    def poll_control(self) -> None:
        """Also read the receiver's frames: a failing one sends ERROR in the middle of an extent."""
        super().poll_control()
        if self._reads_control and not self._is_reading_control:
            self._read_control()

    def _read_control(self) -> None:
        self._is_reading_control = True
        try:
            for _ in range(FRAMES_PER_POLL_MAX):
                if not self.connection.is_readable():
                    return
                frame = self.connection.read_frame()
                if frame.kind == FrameKind.ERROR:
                    raise as_error(self.connection.peer, frame.json())
        finally:
            self._is_reading_control = False

    def _await_ack(self) -> TransferReport:
        """Wait for ACK. Raises TransferUnconfirmed when it does not come."""
        try:
            ack = self.receive_frame(FrameKind.ACK).json()
        except TransferCancelled:
            raise
        except ConnectionLost as error:
            message = f"all was sent, but {error.message}, before it acknowledged everything"
            hint = "The same command again sends only what is missing"
            raise TransferUnconfirmed(
                message, hint, ErrorCode.UNCONFIRMED, self.report()
            ) from error
        if field(ack, "transcript", str, "") != self.transcript.digest().hex():
            message = f"{self.connection.peer} acknowledged something else than what was sent"
            raise TransferError(
                message, "Send it again; if it happens again, report it", ErrorCode.MISMATCH
            )
        with suppress(FastnetError):
            self.connection.send(pack_json(FrameKind.FINISH, {}))
        confirmed = field(ack, "bytes", int, 0)
        self.emit("ack", bytes=confirmed, files=field(ack, "files", int, 0))
        report = self._report(ack)
        failure = self._failure(ack, report)
        if failure is not None:
            raise failure
        return report

    def _report(self, ack: dict[str, Any]) -> TransferReport:
        value = ack.get("cpu_seconds")
        is_plausible = isinstance(value, int | float) and 0 <= value <= SECONDS_MAX
        return self.report(
            confirmed_bytes=field(ack, "bytes", int, None),
            peer_cpu_seconds=float(value) if value is not None and is_plausible else None,
            peer_mover=field(ack, "mover", str, None),
            peer_mover_reason=field(ack, "mover_reason", str, None),
            digest=self.transcript.only_digest(self.algorithm.name),
        )

    def _failure(self, ack: dict[str, Any], report: TransferReport) -> TransferError | None:
        """One error for all files that did not arrive, or None."""
        refused = field(ack, "refused", int, 0)
        if not self.aborted_files and not refused:
            return None
        if self.failed:
            fault, count = self.failed[0][1], self.aborted_files + refused
            more = f", and {count - 1} more" if count > 1 else ""
            hint = "The rest arrived; send these again when no process writes to them"
            return TransferError(f"{fault.text}{more}", hint, fault.code, report)
        text = field(ack, "refused_reason", str, "")
        message = f"{self.connection.peer} did not accept {refused}: {text}"
        return TransferError(message, "", ErrorCode.REFUSED, report)
