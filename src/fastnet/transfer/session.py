"""What sending and receiving by fastnet/1 have in common: a connection, a count, a clock, and a listener to events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any, TypeVar

from fastnet.errors import FastnetError, TransferError
from fastnet.limits import FAREWELL_S, HEARTBEAT_S, MOVER_SLICE_S, TRANSFER_STALL_S
from fastnet.mover import MoverChoice, choose
from fastnet.mover.contract import Mover
from fastnet.transfer.channel import Broken, Channel
from fastnet.transfer.digest import Algorithm
from fastnet.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.transfer.frames import Frame, Kind, pack_json
from fastnet.transfer.greet import as_error
from fastnet.transfer.report import TransferReport

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from fastnet.transfer.tls import TlsOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to transfer, on either side. stall_s: seconds of silence that end it. token: the shared secret, b"" for none.

    digest: one of digest.ALGORITHMS, and compress: "" or "zstd"; the sender's count. retry_s: how long to try to connect;
    wait_s: how long to listen.
    tls: None for none.
    """

    stall_s: float = TRANSFER_STALL_S
    congestion: str = "auto"
    mover: str = "auto"
    backend: str = "auto"
    token: bytes = b""
    tls: TlsOptions | None = None
    digest: str = "xxh3-128"
    compress: str = ""
    dry_run: bool = False
    retry_s: float = 0.0
    wait_s: float | None = None


class Cancelled(TransferError):
    """The transfer was stopped from this side."""

    def __init__(self) -> None:
        super().__init__("the transfer was stopped", "", ErrorCode.INTERRUPTED)


class Session:
    """One transfer over one connection, from one side. stopped: asked several times a second whether to give up."""

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
        self.choice: MoverChoice | None = None
        self.mover: Mover | None = None
        self._on_event = on_event
        self._stopped = stopped
        self._since, self._cpu_since = monotonic(), process_time()
        self._told, self._beat = inf, 0.0  # no progress before `start`
        channel.on_slice = self.look
        channel.moved = self._count

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The second thread: digests of extents, and what else may take long. Small files need none."""
        from concurrent.futures import ThreadPoolExecutor  # here, because it loads logging and more

        return ThreadPoolExecutor(1, thread_name_prefix="digest")

    # Events

    def tell(self, kind: Any, **fields: Any) -> None:
        self._on_event(TransferEvent(kind, self.number, **fields))

    def start(self, name: str) -> None:
        """The clock of the report starts when it is known what will travel."""
        self.name = name
        self._since, self._cpu_since = monotonic(), process_time()
        self._told = 0.0
        peer, files = self.channel.peer, self.total_files
        self.tell("start", peer=peer, name=name, total_bytes=self.total_bytes, bytes=0, total_files=files)

    def tell_plan(self) -> None:
        """For a dry run: what would travel."""
        size = "a stream" if self.total_bytes is None else f"{self.total_bytes} bytes"
        files = f"{self.total_files} file{'s' if self.total_files != 1 else ''}"
        self.tell(
            "message", text=f"dry run: {files}, {size} would travel; {self.skipped_bytes} bytes are there already"
        )

    def _count(self, moved_bytes: int) -> None:
        self.moved_bytes += moved_bytes

    def look(self) -> None:
        """Between slices: stop when told to, say that we live, tell how far we are, hear what the peer says."""
        if self._stopped():
            raise Cancelled
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

    def await_result(self, work: Future[T]) -> T:
        """What another thread makes, with signs of life meanwhile."""
        while True:
            try:
                return work.result(MOVER_SLICE_S)
            except TimeoutError:
                if work.done():
                    return work.result()
                self.look()
                self.beat()

    def expect(self, kind: Kind) -> Frame:
        """The next frame that is more than a sign of life. Raises ProtocolError, and what the peer reports."""
        while True:
            frame = self.channel.read_frame(kind)
            if frame.kind == Kind.ERROR:
                raise as_error(self.channel.peer, frame.json())
            if frame.kind == kind:
                return frame
            self.look()

    # Movers

    def mover_for(self, direction: str, file_fd: int) -> Mover:
        """The session's mover, settled by its first large file."""
        if self.mover is None:
            self.choice = choose(direction, file_fd, self.options.mover, self.options.backend)
            self.mover = self.choice.make()
        return self.mover

    def mover_words(self) -> tuple[str, str]:
        """Which mover ran and why, for reports."""
        if self.channel.is_tls:
            return "copy-python", "TLS"
        if self.is_compressed:
            return "copy-python", "zstd"
        if self.mover is None or self.choice is None:
            return "copy-python", "small files or a stream"
        return f"{self.mover.runs}-{self.choice.backend}", self.mover.reason or self.choice.reason

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
            **fields,
        )

    def cpu_seconds(self) -> float:
        return round(process_time() - self._cpu_since, 6)

    def close(self) -> None:
        if "pool" in vars(self):
            self.pool.shutdown(wait=True, cancel_futures=True)
        if self.mover is not None:
            self.mover.close()
            self.mover = None


def say_farewell(channel: Channel, error: FastnetError) -> None:
    """Tell the peer why, as well as that can be done, and leave it the time to hear it."""
    if isinstance(error, Broken):
        return
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    fields = {"code": str(code), "text": error.message, "cure": error.cure}
    channel.on_slice = lambda: None
    channel.deadline = time.monotonic() + FAREWELL_S
    try:
        channel.send(pack_json(Kind.ERROR, fields))
    except (OSError, TransferError):
        return
    channel.discard_until(time.monotonic() + FAREWELL_S)
