"""What sending and receiving by fastnet/1 have in common: a connection, a count, a clock, and a
listener to events.
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
from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.apps.transfer.protocol.frames import Frame, Kind, pack_json
from fastnet.apps.transfer.protocol.handshake import as_error
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import Broken, Channel
from fastnet.apps.transfer.session.data_connection import Lane
from fastnet.errors import FastnetError, TransferError
from fastnet.limits import FAREWELL_S, HEARTBEAT_S, MOVER_SLICE_S, STREAMS_MAX, TRANSFER_STALL_S

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from fastnet.transport.tls import TlsOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to transfer, on either side. stall_s: seconds of silence that end it. token: the shared
    secret, b"" for none.

    digest: one of digest.ALGORITHMS, compress: "" or "zstd", and streams: connections to share
    large files; the sender's count. retry_s: how long to try to connect; wait_s: how long to
    listen. tls: None for none.
    """

    stall_s: float = TRANSFER_STALL_S
    congestion: str = "auto"
    mover: str = "auto"
    backend: str = "auto"
    token: bytes = b""
    tls: TlsOptions | None = None
    digest: str = "xxh3-128"
    compress: str = ""
    streams: int = 1
    dry_run: bool = False
    retry_s: float = 0.0
    wait_s: float | None = None


class Cancelled(TransferError):
    """The transfer was stopped from this side."""

    def __init__(self) -> None:
        super().__init__("the transfer was stopped", "", ErrorCode.INTERRUPTED)


class Session:
    """One transfer over one connection, from one side. stopped: asked several times a second
    whether to give up.
    """

    role = ""

    def __init__(
        self,
        channel: Channel,
        algorithm: Algorithm,
        options: Options,
        on_event: OnEvent,
        number: int = 1,
        stopped: Callable[[], bool] = lambda: False,
        congestion: str = "",
    ) -> None:
        self.channel = channel
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
        self.trunk = self._lane(channel, self._look_and_beat)
        self.lanes = 1
        self.lock = threading.Condition()
        """Guards what the lanes share."""
        self._joined: list[Channel] = []
        self.is_over = False
        self._fault: tuple[Exception, float] | None = None
        channel.on_slice = self.look

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The second thread of the first connection."""
        return self.trunk.pool

    # Events

    def tell(self, kind: Any, **fields: Any) -> None:
        self._on_event(TransferEvent(kind, self.number, **fields))

    def start(self, name: str) -> None:
        """The clock of the report starts when it is known what will travel."""
        self.name = name
        self._since, self._cpu_since = monotonic(), process_time()
        self._told = 0.0
        peer, files = self.channel.peer, self.total_files
        self.tell(
            "start", peer=peer, name=name, total_bytes=self.total_bytes, bytes=0, total_files=files
        )

    def tell_plan(self) -> None:
        """For a dry run: what would travel."""
        size = "a stream" if self.total_bytes is None else f"{self.total_bytes} bytes"
        files = f"{self.total_files} file{'s' if self.total_files != 1 else ''}"
        self.tell(
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
            raise Cancelled
        if self._fault is not None:
            error, since = self._fault
            if not isinstance(error, Broken) or monotonic() - since >= FAREWELL_S:
                raise error  # a broken lane has its reason, and the peer may be about to say it
        now = monotonic()
        if now - self._told >= MOVER_SLICE_S:
            self._told = now
            self.progress()

    def progress(self) -> None:
        self.tell(
            "progress",
            bytes=self.moved_bytes,
            total_bytes=self.total_bytes,
            files=self.files,
            total_files=self.total_files,
        )

    def beat(self) -> None:
        """Say that we live, once every HEARTBEAT_S."""
        now = monotonic()
        if now - self._beat >= HEARTBEAT_S and not self.channel.is_sending:
            self._beat = now
            self.channel.send(pack_json(Kind.ALIVE, {"bytes": self.moved_bytes}))

    def _look_and_beat(self) -> None:
        self.look()
        self.beat()

    def await_result(self, work: Future[T]) -> T:
        """What another thread makes, with signs of life meanwhile."""
        return self.trunk.await_result(work)

    def expect(self, kind: Kind) -> Frame:
        """The next frame that is more than a sign of life. Raises ProtocolError, and what the peer
        reports.
        """
        while True:
            frame = self.channel.read_frame(kind)
            if frame.kind == Kind.ERROR:
                raise as_error(self.channel.peer, frame.json())
            if frame.kind == kind:
                return frame
            self.look()

    # Further connections

    def serve_lane(self, channel: Channel, welcome: bytes = b"") -> None:
        """Let a further connection carry extents until the transfer is over; closes it. Runs in a
        thread of its own.

        welcome: what to say to it first, if it may.
        """
        channel.on_slice = self._look_from_lane
        with self.lock:
            if self.is_over or len(self._joined) + 1 >= STREAMS_MAX:
                return channel.close()
            self._joined.append(channel)
            self.lanes += 1
        lane = self._lane(channel, self._look_from_lane)
        try:
            channel.send(welcome)
            self.work_lane(lane)
        except Cancelled:
            pass
        except Exception as error:
            with self.lock:
                self._fault = self._fault or (error, monotonic())
        finally:
            lane.close()
            channel.close()
            with self.lock:
                self._joined.remove(channel)
                self.lock.notify_all()

    def _lane(self, channel: Channel, look: Callable[[], None]) -> Lane:
        return Lane(channel, self.options.mover, self.options.backend, look, self._count)

    def work_lane(self, lane: Lane) -> None:
        """What a further connection does. Returns when the transfer needs it no more."""
        raise NotImplementedError

    def _look_from_lane(self) -> None:
        if self.is_over:
            raise Cancelled

    def end_lanes(self, kindly: bool) -> None:
        """Return when no further connection is at work. kindly: they have nothing to do any
        more.
        """
        with self.lock:
            self.is_over = True
            self.lock.notify_all()
            for channel in [] if kindly else self._joined:
                channel.hang_up()
            while self._joined:
                self.lock.wait()

    # Movers

    def mover_words(self) -> tuple[str, str]:
        """Which mover ran and why, for reports."""
        if self.channel.is_tls:
            return "copy-python", "TLS"
        if self.is_compressed:
            return "copy-python", "zstd"
        mover, choice = self.trunk.mover, self.trunk.choice
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
        mover, why = self.mover_words()
        return TransferReport(
            role=self.role,
            mode="fastnet/1",
            peer=self.channel.peer,
            files=self.files,
            moved_bytes=self.moved_bytes,
            seconds=monotonic() - self._since,
            cpu_seconds=process_time() - self._cpu_since,
            mover=mover,
            mover_reason=why,
            congestion=self.congestion,
            skipped_bytes=self.skipped_bytes,
            streams=self.lanes,
            **fields,
        )

    def cpu_seconds(self) -> float:
        return round(process_time() - self._cpu_since, 6)

    def close(self) -> None:
        self.end_lanes(False)
        self.trunk.close()


def say_farewell(channel: Channel, error: FastnetError) -> None:
    """Tell the peer why, as well as that can be done, and leave it the time to hear it."""
    if isinstance(error, Broken):
        return
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    fields = {"code": str(code), "text": error.message, "hint": error.hint}
    channel.on_slice = lambda: None
    channel.deadline = time.monotonic() + FAREWELL_S
    try:
        channel.send(pack_json(Kind.ERROR, fields))
    except (OSError, TransferError):
        return
    channel.discard_until(time.monotonic() + FAREWELL_S)
