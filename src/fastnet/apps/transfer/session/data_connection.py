"""Data connection: a transport connection, a mover for its direction, and a digest thread.

Facts. One TCP connection carries at most one window per round trip, halves it after each loss, and
is one flow to everything on the path that limits flows; TLS and zstd cost one thread's work per
connection.
Decision: `--streams N` opens N connections (as GridFTP's parallel data connections). The first is
the control connection: it carries the protocol, small files, and standard input; all of them carry
extents of large files, and a free one sends the next. Further ones join with the session id that
the listener sent in the first HELLO; when one fails, the transfer ends and can be resumed.
Cost: N movers and N threads on each side, 2 N with a slow digest. On one host one connection is as
fast (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from fastnet.apps.transfer.digest import Algorithm, Hasher
from fastnet.apps.transfer.session.connection import TransferConnection
from fastnet.limits import MOVER_SLICE_S
from fastnet.mover import MoverChoice, choose
from fastnet.mover.contract import Mover

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


class DataConnection:
    """A connection that carries extents, with its mover and its digest thread.

    Args:
        connection: The transport connection.
        mover: Name of a mover, or "auto".
        backend: "native", "python" or "auto".
        on_wait: Called every MOVER_SLICE_S while a call blocks; may raise to cancel.
        count_moved: Called with the file bytes that crossed this connection.
    """

    def __init__(
        self,
        connection: TransferConnection,
        mover: str,
        backend: str,
        on_wait: Callable[[], None],
        count_moved: Callable[[int], None],
    ) -> None:
        self.connection = connection
        self.on_wait = on_wait
        self.mover: Mover | None = None
        self.selected: MoverChoice | None = None
        """Why this mover runs; None before the first extent, and with TLS."""
        connection.count_moved = count_moved
        self._requested = (mover, backend)
        self._has_digest_thread = False

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The digest thread, started on first use: small files need none."""
        from concurrent.futures import ThreadPoolExecutor  # here, because it loads logging and more

        return ThreadPoolExecutor(1, thread_name_prefix="digest")

    def mover_for(self, direction: str, file_fd: int, algorithm: Algorithm) -> Mover:
        """The mover of this connection, selected for its first extent.

        Args:
            direction: "send" or "receive".
            file_fd: The open file.
            algorithm: How extents are hashed; a fast digest favours the copy mover.
        """
        if self.mover is None:
            if self.connection.is_tls:
                from fastnet.apps.transfer.session.tls_mover import TlsMover

                self.mover = TlsMover(self.connection)
                # encryption and digest share two processors when the digest has its own thread
                self._has_digest_thread = direction == "send"
            else:
                self.selected = choose(
                    direction, file_fd, *self._requested, is_tapped=algorithm.is_quick
                )
                self.mover = self.selected.make()
        return self.mover

    def start_hasher(self, mover: Mover, algorithm: Algorithm) -> Hasher | None:
        """A hasher over what `mover` moves next; None if the bytes bypass this process."""
        if not algorithm.size:
            return algorithm.new()
        if mover.runs != "copy" or self._has_digest_thread:
            return None
        hasher = algorithm.new()
        mover.tap = hasher.update
        return hasher

    def await_result(self, work: Future[T]) -> T:
        """Wait for another thread's result; calls `on_wait` meanwhile."""
        while True:
            try:
                return work.result(MOVER_SLICE_S)
            except TimeoutError:
                if work.done():
                    return work.result()
                self.on_wait()

    def close(self) -> None:
        """Stop the digest thread and close the mover; the connection stays open."""
        if "pool" in vars(self):
            self.pool.shutdown(wait=True, cancel_futures=True)
        if self.mover is not None:
            self.mover.close()
            self.mover = None
