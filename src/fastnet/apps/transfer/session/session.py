"""Session of fastnet/1: what sender and receiver share.

A session has one control connection and any number of further data connections. It counts, emits
events, sends keepalives, checks for cancellation, and makes the report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from fastnet.apps.transfer.session.counters import TransferCounters
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.errors import FastnetError, TransferError
from fastnet.limits import FAREWELL_S, HEARTBEAT_S, MOVER_SLICE_S, STREAMS_MAX

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


@dataclass(frozen=True)
class SessionParameters:
    """What a session is given: its connection and how to report."""

    connection: TransferConnection
    """The control connection, after the handshake."""
    algorithm: Algorithm
    """Digest that the sender's HELLO named."""
    options: TransferOptions
    on_event: OnEvent
    number: int = 1
    """Number of the session in this process, for its events."""
    should_stop: Callable[[], bool] = lambda: False
    """Polled several times a second; True cancels the transfer."""
    congestion: str = ""
    """TCP congestion control of the connection, for the report."""


class TransferSession:
    """One side of one transfer; base of Sender and Receiver."""

    role = ""

    def __init__(self, parameters: SessionParameters) -> None:
        self.connection = connection = parameters.connection
        self.algorithm = parameters.algorithm
        self.options = parameters.options
        self.number = parameters.number
        self.congestion = parameters.congestion
        self.counters = TransferCounters()
        self.name = ""
        self.is_compressed = False
        self._on_event = parameters.on_event
        self._should_stop = parameters.should_stop
        self._started_at, self._cpu_started_at = monotonic(), process_time()
        self._progress_at, self._keepalive_at = inf, 0.0  # no progress before `start`
        self.control = self._data_connection(connection, self._poll_and_keep_alive)
        self.streams = 1
        self.lock = threading.Condition()
        """Guards what the data connections share."""
        self._joined: list[TransferConnection] = []
        self.is_over = False
        self._fault: tuple[Exception, float] | None = None
        """Why a further data connection failed, and when."""
        connection.on_slice = self.poll_control

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The digest thread of the control connection."""
        return self.control.pool

    # Events

    def emit(self, kind: Any, **fields: Any) -> None:
        """Emit an event of this session."""
        self._on_event(TransferEvent(kind, self.number, **fields))

    def start(self, name: str) -> None:
        """Emit `start`: the plan is known, and the clock of the report runs."""
        self.name = name
        self._started_at, self._cpu_started_at = monotonic(), process_time()
        self._progress_at = 0.0
        self.emit(
            "start",
            peer=self.connection.peer,
            name=name,
            total_bytes=self.counters.total_bytes,
            bytes=0,
            total_files=self.counters.total_files,
        )

    def emit_plan(self) -> None:
        """Emit what a dry run would have sent."""
        counters = self.counters
        total = counters.total_bytes
        size = "a stream" if total is None else f"{total} bytes"
        files = f"{counters.total_files} file{'s' if counters.total_files != 1 else ''}"
        skipped = f"{counters.skipped_bytes} bytes are there already"
        self.emit("message", text=f"dry run: {files}, {size} would be sent; {skipped}")

    def poll_control(self) -> None:
        """Between slices: check for cancellation and failed connections, report progress."""
        if self._should_stop():
            raise TransferCancelled
        if self._fault is not None:
            error, since = self._fault
            if not isinstance(error, ConnectionLost) or monotonic() - since >= FAREWELL_S:
                raise error  # a lost connection has a cause, and the peer's ERROR may be under way
        now = monotonic()
        if now - self._progress_at >= MOVER_SLICE_S:
            self._progress_at = now
            self.emit_progress()

    def emit_progress(self) -> None:
        """Emit `progress`."""
        counters = self.counters
        self.emit(
            "progress",
            bytes=counters.moved_bytes,
            total_bytes=counters.total_bytes,
            files=counters.files,
            total_files=counters.total_files,
        )

    def send_keepalive(self) -> None:
        """Send KEEPALIVE if the last one is HEARTBEAT_S old and no frame is being sent."""
        now = monotonic()
        if now - self._keepalive_at >= HEARTBEAT_S and not self.connection.is_sending:
            self._keepalive_at = now
            self.connection.send(
                pack_json(FrameKind.KEEPALIVE, {"bytes": self.counters.moved_bytes})
            )

    def _poll_and_keep_alive(self) -> None:
        self.poll_control()
        self.send_keepalive()

    def await_result(self, work: Future[T]) -> T:
        """Wait for another thread's result; sends keepalives meanwhile."""
        return self.control.await_result(work)

    def receive_frame(self, kind: FrameKind) -> Frame:
        """Receive the next frame, skipping KEEPALIVE. Raises ProtocolError, the peer's ERROR."""
        while True:
            frame = self.connection.read_frame(kind)
            if frame.kind == FrameKind.ERROR:
                raise as_error(self.connection.peer, frame.json())
            if frame.kind == kind:
                return frame
            self.poll_control()

    # Further data connections

    def serve_data_connection(self, connection: TransferConnection, first: bytes = b"") -> None:
        """Run a further data connection until the transfer is over; closes it.

        Args:
            connection: After its handshake, in a thread of its own.
            first: Frame to send first, if the connection is accepted.
        """
        connection.on_slice = self._check_data_connection
        with self.lock:
            if self.is_over or len(self._joined) + 1 >= STREAMS_MAX:
                return connection.close()
            self._joined.append(connection)
            self.streams += 1
        data_connection = self._data_connection(connection, self._check_data_connection)
        try:
            connection.send(first)
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
        self, connection: TransferConnection, on_wait: Callable[[], None]
    ) -> DataConnection:
        options = self.options
        return DataConnection(
            connection, options.mover, options.backend, on_wait, self.counters.add_moved
        )

    def run_data_connection(self, data_connection: DataConnection) -> None:
        """Carry extents over a further connection. Returns when there are no more."""
        raise NotImplementedError

    def _check_data_connection(self) -> None:
        if self.is_over:
            raise TransferCancelled

    def end_data_connections(self, gracefully: bool) -> None:
        """End the further connections and return when their threads have.

        Args:
            gracefully: All extents are sent; False shuts the connections down.
        """
        with self.lock:
            self.is_over = True
            self.lock.notify_all()
            for connection in [] if gracefully else self._joined:
                connection.shut_down()
            while self._joined:
                self.lock.wait()

    # The report

    def mover_and_reason(self) -> tuple[str, str]:
        """Which mover and backend ran, and why."""
        if self.connection.is_tls:
            return "copy-python", "TLS"
        if self.is_compressed:
            return "copy-python", "zstd"
        mover, selected = self.control.mover, self.control.selected
        if mover is None or selected is None:
            backend = self.counters.pack_backend
            return (
                f"copy-{backend or 'python'}",
                "small files" if backend else "nothing large, or a stream",
            )
        return f"{mover.runs}-{selected.backend}", mover.reason or selected.reason

    def run(self) -> TransferReport:
        """Run the whole transfer. Raises TransferError."""
        raise NotImplementedError

    def report(self, **fields: Any) -> TransferReport:
        """The report of this side so far."""
        mover, why = self.mover_and_reason()
        return TransferReport(
            role=self.role,
            mode="fastnet/1",
            peer=self.connection.peer,
            files=self.counters.files,
            moved_bytes=self.counters.moved_bytes,
            seconds=monotonic() - self._started_at,
            cpu_seconds=process_time() - self._cpu_started_at,
            mover=mover,
            mover_reason=why,
            congestion=self.congestion,
            skipped_bytes=self.counters.skipped_bytes,
            streams=self.streams,
            **fields,
        )

    def cpu_seconds(self) -> float:
        """User and system time of this process since `start`."""
        return round(process_time() - self._cpu_started_at, 6)

    def close(self) -> None:
        """End every data connection; the control connection stays open."""
        self.end_data_connections(False)
        self.control.close()


def send_error(connection: TransferConnection, error: FastnetError) -> None:
    """Send ERROR if the connection still works, and wait FAREWELL_S for the peer to read it."""
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
