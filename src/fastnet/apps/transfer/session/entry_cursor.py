"""Position in the entries of a plan: the receiver accepts files in exactly this order."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError


class EntryCursor:
    """The entries that the sender must send, and which of them is due.

    Args:
        due: Indices of the entries, in order.
        entries: All entries of the manifest.
        lock: Notified when the cursor moves; the caller holds it to read consistently.
    """

    def __init__(
        self, due: Sequence[int], entries: Sequence[Entry], lock: threading.Condition
    ) -> None:
        self.due = due
        self.entries = entries
        self.position = 0
        """How many of `due` are complete or aborted."""
        self._lock = lock

    @property
    def is_at_end(self) -> bool:
        """Whether every entry is complete or aborted."""
        return self.position == len(self.due)

    def current(self) -> int:
        """Index of the entry that is due. Raises ProtocolError at the end."""
        if self.position >= len(self.due):
            raise ProtocolError("more files than were asked for")
        return self.due[self.position]

    def entry(self, index: int) -> Entry:
        """The entry `index`, which must be the one that is due. Raises ProtocolError."""
        if index != self.current():
            raise ProtocolError("files out of their order")
        return self.entries[index]

    def advance(self, count: int = 1) -> None:
        """Move on by `count` entries and wake the data connections that wait for one."""
        with self._lock:
            self.position += count
            self._lock.notify_all()
