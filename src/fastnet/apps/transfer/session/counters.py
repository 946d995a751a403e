"""Counters of one transfer, shared by its data connections."""

from __future__ import annotations

import threading


class TransferCounters:
    """What a transfer has moved so far, for progress events and the report."""

    def __init__(self) -> None:
        self.moved_bytes = 0
        """File bytes that crossed the connections."""
        self.skipped_bytes = 0
        """File bytes that did not have to be sent."""
        self.confirmed_bytes = 0
        """File bytes under their final names (receiver)."""
        self.files = 0
        """Files complete."""
        self.total_files = 0
        """Files that the plan asks for."""
        self.total_bytes: int | None = None
        """File bytes that the plan asks for; None when the size of one is not known."""
        self.pack_backend = ""
        """The backend that read or wrote small files in batches, if any."""
        self._lock = threading.Lock()

    def add_moved(self, byte_count: int) -> None:
        """Count file bytes; called by every data connection."""
        with self._lock:
            self.moved_bytes += byte_count
