"""Receiver of fastnet/1: plan, partial files, verification, final names, acknowledgement.

Facts. Everything that the sender announces may be forged: names, sizes, counts, the order of
frames.
Decision: every number is bounded before memory or a file is spent on it, entries arrive in their
order (EntryCursor), one large file is open at a time (WriterFactory). Links are made when all files
are complete, modes and times of folders are set last (Completion), and only then ACK is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.protocol import manifest
from fastnet.apps.transfer.protocol.entry import FILE, STREAM
from fastnet.apps.transfer.protocol.frames import (
    FrameKind,
    ProtocolError,
    field,
    pack_json,
    unpack_json,
)
from fastnet.apps.transfer.protocol.handshake import as_error
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.completion import Completion
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.entry_cursor import EntryCursor
from fastnet.apps.transfer.session.extent_receiver import ExtentReceiver
from fastnet.apps.transfer.session.listen import reset_on_close
from fastnet.apps.transfer.session.pack_receiver import PackReceiver
from fastnet.apps.transfer.session.session import SessionParameters, TransferSession
from fastnet.apps.transfer.session.writer_factory import WriterFactory
from fastnet.apps.transfer.target.incoming_file import IncomingFile
from fastnet.apps.transfer.target.journal import ResumableFile, discard
from fastnet.apps.transfer.target.paths import part_name
from fastnet.apps.transfer.target.placement import Placement, PlacementPlan, check_space
from fastnet.apps.transfer.target.root import Root
from fastnet.apps.transfer.target.write_errors import cannot_write
from fastnet.apps.transfer.target.writers import ExtentWriter, PartWriter
from fastnet.errors import TransferError, TransferRefused
from fastnet.limits import MOVER_SLICE_S, PACKED_FILE_BYTES, REASON_CHARACTERS

DATA_KINDS = (
    FrameKind.COMPRESSED,
    FrameKind.DIGEST,
    FrameKind.PACK,
    FrameKind.END,
    FrameKind.FINISH,
    FrameKind.ERROR,
    FrameKind.KEEPALIVE,
)
"""Frames between PLAN and ACK, besides EXTENT, whose payload is not read into memory."""


class Receiver(TransferSession):
    """The receiving side.

    Args:
        parameters: Connection, digest, options and events.
        inbox: Where files are placed.
        policy: What is accepted.
        out_fd: Descriptor for the data when the inbox has no root.
    """

    role = "recv"

    def __init__(
        self,
        parameters: SessionParameters,
        *,
        inbox: Placement,
        policy: ReceivePolicy,
        out_fd: int = 1,
    ) -> None:
        super().__init__(parameters)
        self.inbox = inbox
        self.policy = policy
        self.out_fd = out_fd
        self.transcript = Transcript(self.algorithm)
        self.aborted_files = 0
        self._abort_reason = ""
        self._parts: dict[int, ResumableFile] = {}
        self._extents = ExtentReceiver(self.control, self._find_writer)
        self._accepts_extents = False
        self._prepare(PlacementPlan([], []))

    def _prepare(self, placed: PlacementPlan) -> None:
        """Set up what depends on where the entries are placed."""
        self.placed = placed
        self.cursor = EntryCursor(sorted(placed.places), placed.entries, self.lock)
        self.completion = Completion(self.inbox, placed, self.policy.fsync, self.control)
        self.writers = WriterFactory(
            self.inbox,
            placed,
            self._parts,
            self.algorithm,
            self.out_fd,
            self.policy.bytes_max,
            self.lock,
        )
        self._packs = PackReceiver(
            self.algorithm,
            self.options.backend,
            control=self.control,
            paths=placed.places,
            cursor=self.cursor,
            writers=self.writers,
            completion=self.completion,
            transcript=self.transcript,
            counters=self.counters,
        )

    def poll_control(self) -> None:
        """Also send keepalives: the receiver never sends a frame in parts between slices."""
        super().poll_control()
        self.send_keepalive()

    def run(self) -> TransferReport:
        """Receive everything.

        Return after ACK is sent and all files have their final names.

        Raises:
            TransferError: With what is left of partial files kept, to resume from.
        """
        try:
            is_complete = self._receive_all()
        except OSError as error:
            where = "standard output" if self.inbox.root is None else self.inbox.root.path
            raise cannot_write(where, error) from error
        finally:
            self.end_data_connections(False)
            self._extents.keep_verified()
            for part in self._parts.values():
                part.leave()
        return self._acknowledge() if is_complete else self.report(confirmed_bytes=0)

    def _receive_all(self) -> bool:
        """Receive manifest and data. Returns False for a dry run."""
        offered = manifest.read(
            self.connection, self.receive_frame, self.policy.files_max, self.policy.bytes_max
        )
        entries = offered.entries
        placed = self.inbox.place(entries)
        if self.policy.ask is not None and not self.policy.ask(
            entries, placed.wanted_bytes, self._poll_while_asking
        ):
            raise TransferRefused("the person asked at the receiver said no", "", ErrorCode.REFUSED)
        dry_run = offered.dry_run or self.options.dry_run
        self._prepare(placed)
        self._send_plan(placed, offered.data_bytes, dry_run)
        self.start(entries[0].path if len(entries) == 1 else f"{len(entries)} entries")
        if dry_run:
            self.emit_plan()
            return False
        self.inbox.make_folders(placed)
        with self.lock:
            self._accepts_extents = True
            self.lock.notify_all()
        while self._receive_next():
            pass
        for text in self.completion.finish_tree():
            self.emit("message", text=f"link not made: {text}")
        return True

    def _poll_while_asking(self) -> None:
        """Read the sender's frames, KEEPALIVE or ERROR, while a person decides."""
        self.poll_control()
        while self.connection.is_readable():
            frame = self.connection.read_frame()
            if frame.kind == FrameKind.ERROR:
                raise as_error(self.connection.peer, frame.json())

    # The plan

    def _send_plan(self, placed: PlacementPlan, data_bytes: int, dry_run: bool) -> None:
        held, counters = [], self.counters
        if self.inbox.root is not None:
            self._parts |= self._resumable_parts(self.inbox.root, placed, dry_run)
            for index, part in self._parts.items():
                rows = [[each.offset, each.count, each.digest.hex()] for each in part.held]
                held.append([index, rows])
                counters.skipped_bytes += sum(each.count for each in part.held)
            missing_bytes = min(placed.wanted_bytes, data_bytes) - counters.skipped_bytes
            check_space(self.inbox.root, missing_bytes)
        due = self.cursor.due
        counters.total_files = len(due)
        has_stream = any(placed.entries[index].kind == STREAM for index in due)
        counters.total_bytes = None if has_stream else placed.wanted_bytes - counters.skipped_bytes
        counters.skipped_bytes += sum(placed.entries[index].size for index in placed.skip)
        fields = {"skip": placed.skip, "held": held, "dry_run": dry_run}
        self.connection.send(pack_json(FrameKind.PLAN, fields))

    def _resumable_parts(
        self, root: Root, placed: PlacementPlan, dry_run: bool
    ) -> dict[int, ResumableFile]:
        """Partial files of an earlier run, opened and locked.

        Those that cannot be resumed, because the file is small or complete now, are removed.
        """
        found = {}
        for index in (*placed.places, *placed.skip):
            entry = placed.entries[index]
            path = placed.places.get(index) or self.inbox.named(placed, index)
            part_path = (*path[:-1], part_name(path[-1]))
            if path[:-1] in placed.absent or root.lstat(part_path) is None:
                continue
            if index in placed.places and entry.size > PACKED_FILE_BYTES:
                found[index] = ResumableFile(root, path, entry, self.algorithm)
            elif not dry_run:
                discard(root, path)
        return found

    # Frames

    def _receive_next(self) -> bool:
        """Receive one frame. Returns False after FINISH."""
        kind, length = self.connection.read_head()
        if kind == FrameKind.EXTENT:
            self._extents.receive_extent(length)
            return True
        if kind not in DATA_KINDS:
            raise ProtocolError(f"a frame of kind {chr(kind)} in the middle of the transfer")
        payload: bytes | bytearray = self.connection.read(length)
        if kind == FrameKind.COMPRESSED:
            kind, payload = self._extents.decompress(bytes(payload))
            self.is_compressed = True
        if kind == FrameKind.EXTENT:
            self._extents.receive_buffer(bytes(payload))
        elif kind == FrameKind.DIGEST:
            self._extents.receive_digest(bytes(payload))
        elif kind == FrameKind.PACK:
            self._packs.receive(payload)
        elif kind == FrameKind.END:
            self._end_file(unpack_json(payload))
        elif kind == FrameKind.FINISH:
            self._check_finish(unpack_json(payload))
            return False
        elif kind == FrameKind.ERROR:
            raise as_error(self.connection.peer, unpack_json(payload))
        self.poll_control()
        return True

    def _check_finish(self, fields: dict[str, Any]) -> None:
        transcript = self.transcript.digest().hex()
        if not self.cursor.is_at_end or field(fields, "transcript", str, "") != transcript:
            raise ProtocolError("it ends before all files were sent")

    # Writers

    def _find_writer(self, receiver: ExtentReceiver, index: int, end: int) -> ExtentWriter:
        """The writer for an extent on the control connection."""
        entry = self.cursor.entry(index)
        self.writers.check_stream_size(entry, end)
        return receiver.writer or self.writers.writer(receiver.data_connection, index, entry)

    def run_data_connection(self, data_connection: DataConnection) -> None:
        """Receive extents from a further connection until its FIN."""
        # reset, also after success: only the sender's bytes ever cross this connection
        reset_on_close(data_connection.connection.sock, True)
        ExtentReceiver(data_connection, self._await_writer).run()

    def _await_writer(self, receiver: ExtentReceiver, index: int, end: int) -> ExtentWriter:
        """The writer for an extent on a further connection.

        Waits until its file is due.
        """
        if receiver.index != index:
            receiver.verify_pending()
        with self.lock:
            while not self._accepts_extents or (
                self.cursor.current() < index and index in self.placed.places
            ):
                self._check_data_connection()
                self.lock.wait(MOVER_SLICE_S)
            entry = self.cursor.entry(index)
            if entry.kind != FILE or self.inbox.root is None:
                raise ProtocolError("an extent of a stream in a further connection")
            if receiver.writer is None or receiver.index != index:
                return self.writers.writer(receiver.data_connection, index, entry)
            return receiver.writer

    def _wait_for_extents(self, count: int | None, counter: Callable[[IncomingFile], int]) -> None:
        """Wait for `count` extents on all connections.

        None: the sender does not report it.
        """
        file = self.writers.file
        if file is not None and count is not None:
            file.wait_for_extents(count, counter, self.control, lambda: self.counters.moved_bytes)

    # The end of a file

    def _end_file(self, fields: dict[str, Any]) -> None:
        """Complete a file, or abort it as END asks."""
        index = field(fields, "entry", int, -1)
        entry = self.cursor.entry(index)
        code = field(fields, "code", str, "")
        extents = field(fields, "extents", int, None)
        if code:
            self._wait_for_extents(extents, lambda file: file.arrived)
            self._abort_file(index, field(fields, "text", str, code))
            return
        size = field(fields, "size", int, -1)
        if size < 0 or (entry.kind == FILE and size != entry.size):
            raise ProtocolError(f"the size of {entry.path!a}")
        writer = self._extents.writer or self.writers.writer(self.control, index, entry)
        writer.verify_all(size)
        self._wait_for_extents(extents, lambda file: file.verified)
        try:
            digest = writer.finish(size)
        except OSError as error:
            raise cannot_write(writer.name, error) from error
        if digest.hex() != field(fields, "digest", str, ""):
            message = f"{writer.name} is not what was sent: the digests of the whole differ"
            raise TransferError(message, "Send it again", ErrorCode.MISMATCH)
        if isinstance(writer, PartWriter):
            self.writers.commit(index, entry, self.completion)
        self._next_entry()
        self.counters.files += 1
        self.counters.confirmed_bytes += size
        self.transcript.add(index, size, digest)

    def _abort_file(self, index: int, text: str) -> None:
        self.writers.abort(index)
        self.aborted_files += 1
        self._abort_reason = self._abort_reason or text[:REASON_CHARACTERS]
        self.emit("message", text=f"not received: {text[:REASON_CHARACTERS]}")
        self._next_entry()

    def _next_entry(self) -> None:
        self._extents.end_file()
        with self.lock:
            self.writers.end_file()
            self.cursor.advance()

    # The acknowledgement

    def _acknowledge(self) -> TransferReport:
        """Send ACK and wait for the sender's FINISH.

        Raises TransferError for aborted files.
        """
        mover, why = self.mover_and_reason()
        refused = self.placed.refused
        fields = {
            "files": self.counters.files,
            "bytes": self.counters.confirmed_bytes,
            "transcript": self.transcript.digest().hex(),
            "refused": len(refused),
            "refused_reason": refused[0] if refused else "",
            "synced": self.policy.fsync,
            "cpu_seconds": self.cpu_seconds(),
            "mover": mover,
            "mover_reason": why,
        }
        self.connection.send(pack_json(FrameKind.ACK, fields))
        self.connection.deadline = monotonic() + self.options.stall_s
        with suppress(TransferError):
            # the sender's receipt of ACK; without it the files are complete all the same
            self.receive_frame(FrameKind.FINISH)
        report = self.report(
            confirmed_bytes=self.counters.confirmed_bytes,
            digest=self.transcript.only_digest(self.algorithm.name),
        )
        if self.aborted_files or refused:
            count = self.aborted_files + len(refused)
            more = f", and {count - 1} more" if count > 1 else ""
            first = self._abort_reason or f"link not made: {refused[0]}"
            raise TransferError(
                f"not everything came: {first}{more}", "The rest is there", ErrorCode.SOURCE, report
            )
        return report
