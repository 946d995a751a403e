"""A large file on its way in: what all lanes of the transfer know of it together.

Decision: lanes write to one part file wherever their extents belong, and each verifies its own. A
lane cannot know what is still on its way in the others, so the sender's END says how many extents
there were in all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.journal import Extent, Part
from fastnet.limits import FILE_EXTENTS_MAX, MOVER_SLICE_S


class IncomingFile:
    """One part file. arrived, proven: extents of this run, written and verified. lock: of the
    session.

    is_over: it was called off.
    """

    def __init__(self, part: Part, algorithm: Algorithm, lock: threading.Condition) -> None:
        self.part = part
        self.arrived = self.proven = 0
        self.is_over = False
        self._digest = FileDigest(algorithm)
        self._lock = lock
        for held in part.held:
            self._digest.add(held.offset, held.count, held.digest)

    def arrive(self) -> None:
        """An extent is in the file."""
        with self._lock:
            self.arrived += 1
            self._lock.notify_all()

    def keep(self, extent: Extent) -> None:
        """And it is what was sent."""
        with self._lock:
            if len(self._digest) >= FILE_EXTENTS_MAX:
                raise ProtocolError(f"{self.part.name!a} has too many extents")
            self.part.note(extent)
            self._digest.add(extent.offset, extent.count, extent.digest)
            self.proven += 1
            self._lock.notify_all()

    def call_off(self) -> None:
        """Nobody wants it any more; what lanes still say of it is not heard."""
        with self._lock:
            self.is_over = True
            self.part.remove()

    def await_all(
        self,
        count: int,
        is_here: Callable[[IncomingFile], int],
        data_connection: DataConnection,
        moved_bytes: Callable[[], int],
    ) -> None:
        """Return when is_here says `count`; looks around in `lane` meanwhile. moved_bytes: grows as
        long as there is hope.

        Raises what the lane raises, ConnectionLost when nothing moved for its time-out, ProtocolError when
        there are more.
        """
        moved, since = moved_bytes(), monotonic()
        while is_here(self) < count:
            if moved != (moved := moved_bytes()):
                since = monotonic()
            elif monotonic() - since >= data_connection.connection.stall_s:
                raise data_connection.connection.stalled()
            with self._lock:
                self._lock.wait(MOVER_SLICE_S)
            data_connection.look()
        if is_here(self) > count:
            raise ProtocolError(f"more extents of {self.part.name!a} than it says")

    def digest_of(self, size: int) -> bytes:
        """The digest of the whole file. Raises ProtocolError when its extents cannot all be
        true.
        """
        try:
            return self._digest.of_size(size)
        except ValueError as error:
            raise ProtocolError(f"{self.part.name!a}: {error}") from error
