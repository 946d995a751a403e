"""Sender of small files: many to a PACK frame, each whole.

Decision: a pack is filled by one call (smallfiles/), up to the first file that cannot be read as it
was announced. That one is then read alone, by calls that report what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.protocol.frames import pack_head
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.session.counters import TransferCounters
from fastnet.apps.transfer.session.extent_sender import ExtentSender, unreadable
from fastnet.apps.transfer.smallfiles import choose
from fastnet.apps.transfer.smallfiles.contract import Announced
from fastnet.apps.transfer.source.open import Unsendable, open_announced
from fastnet.limits import PACK_BYTES, PACK_FILES, PACKED_FILE_BYTES


class PackSender:
    """Sends the small files of one transfer.

    Args:
        entries: Entries of the manifest.
        source_paths: Where each of them is read from.
        extent_sender: Sends the frames, compressed if that was agreed on.
        transcript: Grows by each file sent.
        counters: Of the transfer.
        backend: "native", "python" or "auto".
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        source_paths: Sequence[str],
        extent_sender: ExtentSender,
        transcript: Transcript,
        counters: TransferCounters,
        backend: str,
    ) -> None:
        self._entries = entries
        self._source_paths = source_paths
        self._extents = extent_sender
        self._transcript = transcript
        self._counters = counters
        self._module, self._backend = choose("gather", backend)
        self._buffer = bytearray()

    def next_files(self, indices: Sequence[int], at: int) -> list[Announced]:
        """The small files from indices[at] on that fit into one pack; empty when it is large."""
        files, size = [], 0
        for index in islice(indices, at, at + PACK_FILES):
            entry = self._entries[index]
            if entry.kind != FILE or entry.size > PACKED_FILE_BYTES or size >= PACK_BYTES:
                break
            files.append(Announced(index, entry, self._source_paths[index]))
            size += entry.size
        return files

    def send(self, files: list[Announced]) -> int:
        """Send the files before the first that cannot be read as announced; returns how many."""
        extents, counters = self._extents, self._counters
        self._buffer = self._buffer or bytearray(PACK_BYTES + PACKED_FILE_BYTES)
        pack = self._module.gather(files, self._buffer, extents.algorithm.of)
        sent: int = pack.files
        if sent:
            extents.rate_limiter.wait_all(pack.size, extents.poll_control)
            with memoryview(self._buffer) as buffer:
                extents.send_data(pack_head(sent, pack.table, pack.size), buffer[: pack.size])
            extents.connection.count_moved(pack.size)
            self._transcript.add_rows(pack.proof, sent)
            counters.files += sent
            counters.pack_backend = self._backend
        return sent

    def send_alone(self, file: Announced) -> None:
        """Send a file that `send` could not read. Raises Unsendable if the cause remains."""
        fd = open_announced(file.entry, file.place)
        try:
            content = os.pread(fd, file.entry.size, 0)
        except OSError as error:
            raise unreadable(file.place, error) from error
        finally:
            os.close(fd)
        if len(content) < file.entry.size or not self.send([file]):
            raise Unsendable(ErrorCode.SHRANK, f"{file.place} shrank while it was sent")
