"""A large file that is being received, shared by the data connections of its transfer.

Decision: every data connection writes into one partial file, each extent at its offset, and
verifies its own extents. A connection cannot know what is still in flight on the others, so the
sender's END frame has the number of extents in all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.protocol.frames import ProtocolError
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.journal import ResumableFile
from fastnet.limits import FILE_EXTENTS_MAX, MOVER_SLICE_S


class IncomingFile:
    """One partial file with the counts and digests of its extents. lock: of the session."""

    def __init__(
        self, part: ResumableFile, algorithm: Algorithm, lock: threading.Condition
    ) -> None:
        self.part = part
        self.arrived = 0
        """Extents written in this run."""
        self.verified = 0
        """Extents written in this run whose digest was right."""
        self.is_aborted = False
        """The sender has aborted the file."""
        self._digest = FileDigest(algorithm)
        self._lock = lock
        for held in part.held:
            self._digest.add(held.offset, held.count, held.digest)

    def count_arrived(self) -> None:
        """Count an extent that is in the file."""
        with self._lock:
            self.arrived += 1
            self._lock.notify_all()

    def keep(self, extent: Extent) -> None:
        """Record a verified extent in the journal."""
        with self._lock:
            if len(self._digest) >= FILE_EXTENTS_MAX:
                raise ProtocolError(f"{self.part.name!a} has too many extents")
            self.part.note(extent)
            self._digest.add(extent.offset, extent.count, extent.digest)
            self.verified += 1
            self._lock.notify_all()

    def abort(self) -> None:
        """Remove the file; digests that still arrive for it are ignored."""
        with self._lock:
            self.is_aborted = True
            self.part.remove()

    def wait_for_extents(
        self,
        count: int,
        counter: Callable[[IncomingFile], int],
        data_connection: DataConnection,
        moved_bytes: Callable[[], int],
    ) -> None:
        """Wait until `counter` returns `count`.

        Args:
            count: Extents that the sender announced.
            counter: Returns `arrived` or `verified`.
            data_connection: Its `on_wait` is called meanwhile, its idle timeout applies.
            moved_bytes: A monotonic progress counter; no progress for stall_s is an error.
        Raises:
            ConnectionLost: Nothing moved for stall_s.  ProtocolError: There are more extents.
        """
        connection = data_connection.connection
        last_moved, last_progress = moved_bytes(), monotonic()
        while counter(self) < count:
            moved = moved_bytes()
            if moved != last_moved:
                last_moved, last_progress = moved, monotonic()
            elif monotonic() - last_progress >= connection.stall_s:
                raise connection.timed_out()
            with self._lock:
                self._lock.wait(MOVER_SLICE_S)
            data_connection.on_wait()
        if counter(self) > count:
            raise ProtocolError(f"more extents of {self.part.name!a} than it says")

    def digest_of(self, size: int) -> bytes:
        """The digest of the whole file. Raises ProtocolError when its extents overlap."""
        try:
            return self._digest.of_size(size)
        except ValueError as error:
            raise ProtocolError(f"{self.part.name!a}: {error}") from error
