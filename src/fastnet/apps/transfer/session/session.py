"""What sending and receiving by fastnet/1 have in common: a connection, a count, a clock, and a
listener to events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any, TypeVar

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferCancelled, TransferEvent
from fastnet.apps.transfer.options import TransferOptions
from fastnet.apps.transfer.protocol.frames import Frame, FrameKind, pack_json
from fastnet.apps.transfer.protocol.handshake import as_error
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import ConnectionLost, TransferConnection
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.errors import FastnetError, TransferError
from fastnet.limits import FAREWELL_S, HEARTBEAT_S, MOVER_SLICE_S, STREAMS_MAX

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


class TransferSession:
    """One transfer over one connection, from one side. stopped: asked several times a second
    whether to give up.
    """

    role = ""

    def __init__(
        self,
        connection: TransferConnection,
        algorithm: Algorithm,
        options: TransferOptions,
        on_event: OnEvent,
        number: int = 1,
        stopped: Callable[[], bool] = lambda: False,
        congestion: str = "",
    ) -> None:
        self.connection = connection
        self.algorithm = algorithm
        self.options = options
        self.number = number
        self.congestion = congestion
        self.moved_bytes = self.skipped_bytes = self.files = 0
        self.total_bytes: int | None = None
        self.total_files = 0
        self.name = ""
        self.is_compressed = False
        self.packed_by = ""
        """The backend that read or made small files in batches, if any."""
        self._on_event = on_event
        self._stopped = stopped
        self._since, self._cpu_since = monotonic(), process_time()
        self._told, self._beat = inf, 0.0  # no progress before `start`
        self.control = self._data_connection(connection, self._look_and_beat)
        self.streams = 1
        self.lock = threading.Condition()
        """Guards what the lanes share."""
        self._joined: list[TransferConnection] = []
        self.is_over = False
        self._fault: tuple[Exception, float] | None = None
        connection.on_slice = self.look

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The second thread of the first connection."""
        return self.control.pool

    # Events

    def emit(self, kind: Any, **fields: Any) -> None:
        self._on_event(TransferEvent(kind, self.number, **fields))

    def start(self, name: str) -> None:
        """The clock of the report starts when it is known what will travel."""
        self.name = name
        self._since, self._cpu_since = monotonic(), process_time()
        self._told = 0.0
        peer, files = self.connection.peer, self.total_files
        self.emit(
            "start", peer=peer, name=name, total_bytes=self.total_bytes, bytes=0, total_files=files
        )

    def emit_plan(self) -> None:
        """For a dry run: what would travel."""
        size = "a stream" if self.total_bytes is None else f"{self.total_bytes} bytes"
        files = f"{self.total_files} file{'s' if self.total_files != 1 else ''}"
        self.emit(
            "message",
            text=f"dry run: {files}, {size} would travel; {self.skipped_bytes} bytes are there already",
        )

    def _count(self, moved_bytes: int) -> None:
        with self.lock:
            self.moved_bytes += moved_bytes

    def look(self) -> None:
        """Between slices: stop when told to, say that we live, tell how far we are, hear what the
        peer says.
        """
        if self._stopped():
            raise TransferCancelled
        if self._fault is not None:
            error, since = self._fault
            if not isinstance(error, ConnectionLost) or monotonic() - since >= FAREWELL_S:
                raise error  # a broken lane has its reason, and the peer may be about to say it
        now = monotonic()
        if now - self._told >= MOVER_SLICE_S:
            self._told = now
            self.progress()

    def progress(self) -> None:
        self.emit(
            "progress",
            bytes=self.moved_bytes,
            total_bytes=self.total_bytes,
            files=self.files,
            total_files=self.total_files,
        )

    def beat(self) -> None:
        """Say that we live, once every HEARTBEAT_S."""
        now = monotonic()
        if now - self._beat >= HEARTBEAT_S and not self.connection.is_sending:
            self._beat = now
            self.connection.send(pack_json(FrameKind.KEEPALIVE, {"bytes": self.moved_bytes}))

    def _look_and_beat(self) -> None:
        self.look()
        self.beat()

    def await_result(self, work: Future[T]) -> T:
        """What another thread makes, with signs of life meanwhile."""
        return self.control.await_result(work)

    def expect(self, kind: FrameKind) -> Frame:
        """The next frame that is more than a sign of life. Raises ProtocolError, and what the peer
        reports.
        """
        while True:
            frame = self.connection.read_frame(kind)
            if frame.kind == FrameKind.ERROR:
                raise as_error(self.connection.peer, frame.json())
            if frame.kind == kind:
                return frame
            self.look()

    # Further connections

    def serve_data_connection(self, connection: TransferConnection, welcome: bytes = b"") -> None:
        """Let a further connection carry extents until the transfer is over; closes it. Runs in a
        thread of its own.

        welcome: what to say to it first, if it may.
        """
        connection.on_slice = self._check_data_connection
        with self.lock:
            if self.is_over or len(self._joined) + 1 >= STREAMS_MAX:
                return connection.close()
            self._joined.append(connection)
            self.streams += 1
        data_connection = self._data_connection(connection, self._check_data_connection)
        try:
            connection.send(welcome)
            self.run_data_connection(data_connection)
        except TransferCancelled:
            pass
        except Exception as error:
            with self.lock:
                self._fault = self._fault or (error, monotonic())
        finally:
            data_connection.close()
            connection.close()
            with self.lock:
                self._joined.remove(connection)
                self.lock.notify_all()

    def _data_connection(
        self, connection: TransferConnection, look: Callable[[], None]
    ) -> DataConnection:
        return DataConnection(
            connection, self.options.mover, self.options.backend, look, self._count
        )

    def run_data_connection(self, data_connection: DataConnection) -> None:
        """What a further connection does. Returns when the transfer needs it no more."""
        raise NotImplementedError

    def _check_data_connection(self) -> None:
        if self.is_over:
            raise TransferCancelled

    def end_data_connections(self, kindly: bool) -> None:
        """Return when no further connection is at work. kindly: they have nothing to do any
        more.
        """
        with self.lock:
            self.is_over = True
            self.lock.notify_all()
            for connection in [] if kindly else self._joined:
                connection.shut_down()
            while self._joined:
                self.lock.wait()

    # Movers

    def mover_and_reason(self) -> tuple[str, str]:
        """Which mover ran and why, for reports."""
        if self.connection.is_tls:
            return "copy-python", "TLS"
        if self.is_compressed:
            return "copy-python", "zstd"
        mover, choice = self.control.mover, self.control.choice
        if mover is None or choice is None:
            return (
                f"copy-{self.packed_by or 'python'}",
                "small files" if self.packed_by else "nothing large, or a stream",
            )
        return f"{mover.runs}-{choice.backend}", mover.reason or choice.reason

    # The end

    def run(self) -> TransferReport:
        """The whole transfer. Raises TransferError."""
        raise NotImplementedError

    def report(self, **fields: Any) -> TransferReport:
        mover, why = self.mover_and_reason()
        return TransferReport(
            role=self.role,
            mode="fastnet/1",
            peer=self.connection.peer,
            files=self.files,
            moved_bytes=self.moved_bytes,
            seconds=monotonic() - self._since,
            cpu_seconds=process_time() - self._cpu_since,
            mover=mover,
            mover_reason=why,
            congestion=self.congestion,
            skipped_bytes=self.skipped_bytes,
            streams=self.streams,
            **fields,
        )

    def cpu_seconds(self) -> float:
        return round(process_time() - self._cpu_since, 6)

    def close(self) -> None:
        self.end_data_connections(False)
        self.control.close()


def send_error(connection: TransferConnection, error: FastnetError) -> None:
    """Tell the peer why, as well as that can be done, and leave it the time to hear it."""
    if isinstance(error, ConnectionLost):
        return
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    fields = {"code": str(code), "text": error.message, "hint": error.hint}
    connection.on_slice = lambda: None
    connection.deadline = time.monotonic() + FAREWELL_S
    try:
        connection.send(pack_json(FrameKind.ERROR, fields))
    except (OSError, TransferError):
        return
    connection.discard_until(time.monotonic() + FAREWELL_S)
