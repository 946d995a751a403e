"""A large file on its way in: what all lanes of the transfer know of it together.

Decision: lanes write to one part file wherever their extents belong, and each verifies its own. A lane cannot know what is
still on its way in the others, so the sender's END says how many extents there were in all.
"""

from __future__ import annotations

import threading

from fastnet.limits import FILE_EXTENTS_MAX
from fastnet.transfer.digest import Algorithm, FileDigest
from fastnet.transfer.frames import ProtocolError
from fastnet.transfer.journal import Extent, Part


class Incoming:
    """One part file. arrived, proven: extents of this run, written and verified. lock: of the session.

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

    def digest_of(self, size: int) -> bytes:
        """The digest of the whole file. Raises ProtocolError when its extents cannot all be true."""
        try:
            return self._digest.of_size(size)
        except ValueError as error:
            raise ProtocolError(f"{self.part.name!a}: {error}") from error
