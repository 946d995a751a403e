"""Transcript of a transfer: one digest over all files, compared by both sides."""

from __future__ import annotations

import struct

from fastnet.apps.transfer.digest import Algorithm

ROW = struct.Struct("!IQ")
"""Entry and size, before the file's digest."""


class Transcript:
    """Running digest over one row per file: entry, size, digest of the file."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._rows = algorithm.new()
        self.files = 0
        self._last = b""

    def add(self, entry: int, size: int, digest: bytes) -> None:
        self.files += 1
        self._last = digest
        self._rows.update(ROW.pack(entry, size) + digest)

    def add_rows(self, rows: bytes, files: int) -> None:
        """Several rows in one call, as `add` would make them."""
        if files:
            self.files += files
            self._last = rows[len(rows) - len(rows) // files + ROW.size :]
            self._rows.update(rows)

    def digest(self) -> bytes:
        return self._rows.digest()

    def only_digest(self, algorithm: str) -> str | None:
        """For a report: algorithm and digest of the only file.

        None for none, or several.
        """
        return f"{algorithm}:{self._last.hex()}" if self.files == 1 and self._last else None
