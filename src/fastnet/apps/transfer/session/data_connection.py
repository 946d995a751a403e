"""One connection of a transfer, as extents see it: a connection, a mover for its direction, and who
takes
digests.

Facts. One TCP connection carries at most its window a round trip, halves it with each loss, and is
one flow to everything on the way that limits flows; a receiver's or a sender's TLS and zstd are one
thread's work a connection.
Decision: `--streams N` is N connections. The first carries the conversation, small files, and what
comes in a row; all of them carry extents of large files, and whoever is free takes the next one.
The further ones know nothing else: they come with the session_id that the listener gave to the first,
and one that breaks ends the transfer, which can be resumed.
Cost: N movers and N threads on each side, 2 N with a slow digest. On one host one stream is as fast
(docs/benchmarks.md).
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
    """look: what whoever waits in this lane does in between; may raise. moved: told of bytes of
    files
    that crossed it.

    mover, backend: as in TransferOptions.
    """

    def __init__(
        self,
        connection: TransferConnection,
        mover: str,
        backend: str,
        look: Callable[[], None],
        moved: Callable[[int], None],
    ) -> None:
        self.connection = connection
        self.look = look
        self.moved_bytes = 0
        self._moved = moved
        connection.moved = self._count
        self.choice: MoverChoice | None = None
        self.mover: Mover | None = None
        self._wanted = (mover, backend)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The second thread: digests of extents, and what else may take long. Small files need
        none.
        """
        from concurrent.futures import ThreadPoolExecutor  # here, because it loads logging and more

        return ThreadPoolExecutor(1, thread_name_prefix="digest")

    def _count(self, moved_bytes: int) -> None:
        self.moved_bytes += moved_bytes
        self._moved(moved_bytes)

    def mover_for(self, direction: str, file_fd: int, algorithm: Algorithm) -> Mover:
        """The lane's mover, settled by its first large file and how that is hashed."""
        if self.mover is None:
            self.choice = choose(direction, file_fd, *self._wanted, is_tapped=algorithm.is_quick)
            self.mover = self.choice.make()
        return self.mover

    def hash_along(self, mover: Mover, algorithm: Algorithm) -> Hasher | None:
        """A hasher of what `mover` moves from now on, or None where the bytes do not come by."""
        if not algorithm.size:
            return algorithm.new()
        if mover.runs != "copy" or self.connection.is_tls:
            return None
        hasher = algorithm.new()
        mover.tap = hasher.update
        return hasher

    def await_result(self, work: Future[T]) -> T:
        """What another thread makes."""
        while True:
            try:
                return work.result(MOVER_SLICE_S)
            except TimeoutError:
                if work.done():
                    return work.result()
                self.look()

    def close(self) -> None:
        if "pool" in vars(self):
            self.pool.shutdown(wait=True, cancel_futures=True)
        if self.mover is not None:
            self.mover.close()
            self.mover = None
