"""Receive by fastnet/1, over one connection: say what is wanted, put it under temporary names,
verify,
rename, confirm.

Facts. Whatever the sender says may be a lie, or come from a stranger: names, sizes, counts, the
order of things.
Decision: every number is bounded before memory or a file is spent on it, entries come in their
order, one file is open at a time. Links are made when all files are there, modes and times of
folders are set last, and only then the sender hears DONE.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.protocol import manifest
from fastnet.apps.transfer.protocol.entry import FILE, STREAM, Entry
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
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.extent_receiver import ExtentReceiver
from fastnet.apps.transfer.session.listen import reset_on_close
from fastnet.apps.transfer.session.pack_receiver import PackReceiver
from fastnet.apps.transfer.session.session import TransferSession
from fastnet.apps.transfer.target.incoming_file import IncomingFile
from fastnet.apps.transfer.target.journal import Part, discard
from fastnet.apps.transfer.target.paths import part_name
from fastnet.apps.transfer.target.placement import Inbox, Placed, check_space
from fastnet.apps.transfer.target.root import Root
from fastnet.apps.transfer.target.write_errors import came_into_being, cannot_write, umask
from fastnet.apps.transfer.target.writers import ExtentWriter, PartWriter, StreamWriter
from fastnet.errors import TransferError, TransferRefused
from fastnet.limits import MOVER_SLICE_S, PACKED_FILE_BYTES, REASON_CHARACTERS

UNDER_WAY = (
    FrameKind.COMPRESSED,
    FrameKind.DIGEST,
    FrameKind.PACK,
    FrameKind.END,
    FrameKind.FINISH,
    FrameKind.ERROR,
    FrameKind.KEEPALIVE,
)
"""What a sender says between the plan and the end, beside extents."""


class Receiver(TransferSession):
    """The receiving side. out_fd: where a stream goes, when the inbox has no root."""

    role = "recv"

    def __init__(
        self, *args: Any, inbox: Inbox, policy: ReceivePolicy, out_fd: int = 1, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.inbox = inbox
        self.policy = policy
        self.out_fd = out_fd
        self.transcript = Transcript(self.algorithm)
        self.confirmed_bytes = 0
        self.lost = 0
        self._why_lost = ""
        self.placed = Placed([], [])
        self.due: list[int] = []
        self.at = 0
        self.file: IncomingFile | None = None
        self._taker = ExtentReceiver(self.control, self._writer_of)
        self._is_taking = False
        self._parts: dict[int, Part] = {}
        self._packs = PackReceiver(self)

    def look(self) -> None:
        super().look()
        self.beat()

    def run(self) -> TransferReport:
        """Take it all, and return when it is under its final names and the sender was told. Raises
        TransferError.
        """
        try:
            is_whole = self._take_all()
        except OSError as error:
            where = "standard output" if self.inbox.root is None else self.inbox.root.path
            raise cannot_write(where, error) from error
        finally:
            self.end_data_connections(False)
            self._taker.salvage()
            for part in self._parts.values():
                part.leave()
        return self._confirm() if is_whole else self.report(confirmed_bytes=0)

    def _take_all(self) -> bool:
        """Returns False for a dry run."""
        given = manifest.read(
            self.connection, self.expect, self.policy.files_max, self.policy.bytes_max
        )
        entries = given.entries
        self.placed = placed = self.inbox.place(entries)
        if self.policy.ask is not None and not self.policy.ask(
            entries, placed.wanted_bytes, self._look_while_asking
        ):
            raise TransferRefused("who was asked at the receiver said no", "", ErrorCode.REFUSED)
        dry_run = given.dry_run or self.options.dry_run
        self._send_plan(placed, given.data_bytes, dry_run)
        self.start(entries[0].path if len(entries) == 1 else f"{len(entries)} entries")
        if dry_run:
            self.emit_plan()
            return False
        self.inbox.make_folders(placed)
        with self.lock:
            self._is_taking = True
            self.lock.notify_all()
        while self._step():
            pass
        self._settle_tree(placed)
        return True

    def _look_while_asking(self) -> None:
        """The sender waits for the plan meanwhile: it says that it lives, why it gives up, or
        nothing more.
        """
        self.look()
        while self.connection.is_readable():
            frame = self.connection.read_frame()
            if frame.kind == FrameKind.ERROR:
                raise as_error(self.connection.peer, frame.json())

    # The plan

    def _send_plan(self, placed: Placed, data_bytes: int, dry_run: bool) -> None:
        held = []
        if self.inbox.root is not None:
            self._parts = self._left_parts(self.inbox.root, placed, dry_run)
            for index, part in self._parts.items():
                held.append(
                    [index, [[each.offset, each.count, each.digest.hex()] for each in part.held]]
                )
                self.skipped_bytes += sum(each.count for each in part.held)
            check_space(self.inbox.root, min(placed.wanted_bytes, data_bytes) - self.skipped_bytes)
        self.due = sorted(placed.places)
        self.total_files = len(self.due)
        streams = any(placed.entries[index].kind == STREAM for index in self.due)
        self.total_bytes = None if streams else placed.wanted_bytes - self.skipped_bytes
        self.skipped_bytes += sum(placed.entries[index].size for index in placed.skip)
        self.connection.send(
            pack_json(FrameKind.PLAN, {"skip": placed.skip, "held": held, "dry_run": dry_run})
        )

    def _left_parts(self, root: Root, placed: Placed, dry_run: bool) -> dict[int, Part]:
        """Files of which a former run has left something, locked. What nobody goes on with goes: it
        is small now, or here.
        """
        left = {}
        for index in (*placed.places, *placed.skip):
            entry, place = (
                placed.entries[index],
                placed.places.get(index) or self.inbox.named(placed, index),
            )
            if (
                place[:-1] in placed.absent
                or root.lstat((*place[:-1], part_name(place[-1]))) is None
            ):
                continue
            if index in placed.places and entry.size > PACKED_FILE_BYTES:
                left[index] = Part(root, place, entry, self.algorithm)
            elif not dry_run:
                discard(root, place)
        return left

    # Frames

    def _step(self) -> bool:
        """One frame. Returns False when the sender has sent all."""
        kind, length = self.connection.read_head()
        if kind == FrameKind.EXTENT:
            self._taker.take_extent(length)
            return True
        if kind not in UNDER_WAY:
            raise ProtocolError(f"a frame of kind {chr(kind)} in the middle of the transfer")
        payload: bytes | bytearray = self.connection.read(length)
        if kind == FrameKind.COMPRESSED:
            kind, payload = self._taker.unpack(bytes(payload))
            self.is_compressed = True
        if kind == FrameKind.EXTENT:
            self._taker.take_held(bytes(payload))
        elif kind == FrameKind.DIGEST:
            self._taker.prove(bytes(payload))
        elif kind == FrameKind.PACK:
            self._packs.take(payload)
        elif kind == FrameKind.END:
            self._end(unpack_json(payload))
        elif kind == FrameKind.FINISH:
            self._check_finish(unpack_json(payload))
            return False
        elif kind == FrameKind.ERROR:
            raise as_error(self.connection.peer, unpack_json(payload))
        self.look()
        return True

    def at_entry(self) -> int:
        """The entry that is due."""
        if self.at >= len(self.due):
            raise ProtocolError("more files than were asked for")
        return self.due[self.at]

    def due_entry(self, index: int) -> Entry:
        if index != self.at_entry():
            raise ProtocolError("files out of their order")
        return self.placed.entries[index]

    def _writer_of(self, taker: ExtentReceiver, index: int, ends: int) -> ExtentWriter:
        """Who takes an extent of this entry, which ends there, out of the first connection."""
        entry = self.due_entry(index)
        self._check_stream(entry, ends)
        return taker.writer or self._new_writer(taker.data_connection, index, entry)

    def run_data_connection(self, data_connection: DataConnection) -> None:
        # in the end, too: nothing but the sender's bytes ever travels here
        reset_on_close(data_connection.connection.sock, True)
        ExtentReceiver(data_connection, self._writer_in_turn).take_all()

    def _writer_in_turn(self, taker: ExtentReceiver, index: int, ends: int) -> ExtentWriter:
        """Who takes an extent of this entry out of a further connection, as soon as it is its
        turn.
        """
        if taker.index != index:
            taker.settle()
        with self.lock:
            while not self._is_taking or (self.at_entry() < index and index in self.placed.places):
                self._check_data_connection()
                self.lock.wait(MOVER_SLICE_S)
            entry = self.due_entry(index)
            if entry.kind != FILE or self.inbox.root is None:
                raise ProtocolError("an extent of a stream in a further connection")
            if taker.writer is None or taker.index != index:
                return self._new_writer(taker.data_connection, index, entry)
            return taker.writer

    def _check_stream(self, entry: Entry, size: int) -> None:
        most = self.policy.bytes_max
        if entry.kind == STREAM and most is not None and size > most:
            message = f"the stream is longer than {most} bytes"
            raise TransferRefused(message, "Allow more with --max-bytes", ErrorCode.LIMIT)

    def _new_writer(
        self, data_connection: DataConnection, index: int, entry: Entry
    ) -> ExtentWriter:
        if self.inbox.root is None:
            return StreamWriter(self, data_connection, entry, "standard output", self.out_fd)
        place = self.placed.places[index]
        try:
            with self.lock:
                if index not in self._parts:
                    self._parts[index] = Part(self.inbox.root, place, entry, self.algorithm)
                if self.file is None:
                    self.file = IncomingFile(self._parts[index], self.algorithm, self.lock)
                return PartWriter(self, data_connection, entry, self.file)
        except OSError as error:
            raise cannot_write("/".join(place), error) from error

    def _await_extents(self, count: int | None, is_here: Callable[[IncomingFile], int]) -> None:
        """Until so many extents of the file at hand came in all lanes. None: the sender does not
        say.
        """
        if self.file is not None and count is not None:
            self.file.await_all(count, is_here, self.control, lambda: self.moved_bytes)

    def _end(self, fields: dict[str, Any]) -> None:
        """A file is over: whole, or called off."""
        index = field(fields, "entry", int, -1)
        entry = self.due_entry(index)
        code = field(fields, "code", str, "")
        extents = field(fields, "extents", int, None)
        if code:
            self._await_extents(extents, lambda file: file.arrived)
            self._call_off(index, entry, field(fields, "text", str, code))
            return
        size = field(fields, "size", int, -1)
        if size < 0 or (entry.kind == FILE and size != entry.size):
            raise ProtocolError(f"the size of {entry.path!a}")
        writer = self._taker.writer or self._new_writer(self.control, index, entry)
        writer.settle_all(size)
        self._await_extents(extents, lambda file: file.proven)
        try:
            digest = writer.finish(size)
        except OSError as error:
            raise cannot_write(writer.name, error) from error
        if digest.hex() != field(fields, "digest", str, ""):
            message = f"{writer.name} is not what was sent: the digests of the whole differ"
            raise TransferError(message, "Send it again", ErrorCode.MISMATCH)
        if isinstance(writer, PartWriter):
            self._commit(index, entry, writer.part)
        self.whole(index, size, digest)

    def _call_off(self, index: int, entry: Entry, text: str) -> None:
        if self.file is not None:
            self.file.call_off()
            self._parts.pop(index).close()
        self.lost += 1
        self._why_lost = self._why_lost or text[:REASON_CHARACTERS]
        self.emit("message", text=f"not received: {text[:REASON_CHARACTERS]}")
        self.go_on()

    def _commit(self, index: int, entry: Entry, part: Part) -> None:
        place = self.placed.places[index]
        try:
            self.finish_file(part.fd, entry)
            part.commit(place, self.may_replace)
        except FileExistsError as error:
            raise came_into_being("/".join(place)) from error
        except OSError as error:
            raise cannot_write(part.name, error) from error
        self._parts.pop(index).close()

    def whole(self, index: int, size: int, digest: bytes) -> None:
        self.go_on()
        self.files += 1
        self.confirmed_bytes += size
        self.transcript.add(index, size, digest)

    def go_on(self, files: int = 1) -> None:
        """To the next file, or over so many."""
        self._taker.forget()
        with self.lock:
            self.file = None
            self.at += files
            self.lock.notify_all()

    def finish_file(self, fd: int, entry: Entry) -> None:
        """What is left to do before a file gets its name."""
        os.fchmod(fd, entry.mode if entry.kind == FILE else 0o666 & ~umask())
        if entry.kind == FILE:
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        if self.policy.fsync:
            self.await_result(self.pool.submit(os.fsync, fd))

    @property
    def may_replace(self) -> bool:
        return self.inbox.overwrite in ("always", "older")

    def _check_finish(self, fields: dict[str, Any]) -> None:
        if (
            self.at != len(self.due)
            or field(fields, "transcript", str, "") != self.transcript.digest().hex()
        ):
            raise ProtocolError("it ends before all files were sent")

    # Folders and links

    def _settle_tree(self, placed: Placed) -> None:
        """What is made when all files are there."""
        self.inbox.make_links(placed)
        if self.policy.fsync and self.inbox.root is not None:
            for folder in placed.folders_written():
                self.await_result(self.pool.submit(self.inbox.root.sync, folder))
        self.inbox.set_folders(placed)
        for text in placed.refused:
            self.emit("message", text=f"link not made: {text}")

    # The word

    def _confirm(self) -> TransferReport:
        mover, why = self.mover_and_reason()
        refused = self.placed.refused
        self.connection.send(
            pack_json(
                FrameKind.ACK,
                {
                    "files": self.files,
                    "bytes": self.confirmed_bytes,
                    "transcript": self.transcript.digest().hex(),
                    "refused": len(refused),
                    "refused_reason": refused[0] if refused else "",
                    "synced": self.policy.fsync,
                    "cpu_seconds": self.cpu_seconds(),
                    "mover": mover,
                    "mover_reason": why,
                },
            )
        )
        self.connection.deadline = monotonic() + self.options.stall_s
        with suppress(TransferError):
            # that our word arrived; without it we have the files all the same
            self.expect(FrameKind.FINISH)
        report = self.report(
            confirmed_bytes=self.confirmed_bytes,
            digest=self.transcript.only_digest(self.algorithm.name),
        )
        if self.lost or refused:
            count = self.lost + len(refused)
            more = f", and {count - 1} more" if count > 1 else ""
            first = self._why_lost or f"link not made: {refused[0]}"
            raise TransferError(
                f"not everything came: {first}{more}", "The rest is there", ErrorCode.SOURCE, report
            )
        return report
