"""The small files of a sender: many to a frame, each whole.

Decision: a pack is filled by one call (small/), up to the first file that cannot be read as it was
announced. That one is then tried alone, by the calls that say what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE
from fastnet.apps.transfer.protocol.frames import pack_head
from fastnet.apps.transfer.smallfiles import choose
from fastnet.apps.transfer.smallfiles.contract import Announced
from fastnet.apps.transfer.source.open import Unsendable, open_announced
from fastnet.errors import reason
from fastnet.limits import PACK_BYTES, PACK_FILES, PACKED_FILE_BYTES

if TYPE_CHECKING:
    from fastnet.apps.transfer.session.sender import Sender


class PackSender:
    """Of one session."""

    def __init__(self, session: Sender) -> None:
        self.session = session
        self.module, self.backend = choose("gather", session.options.backend)
        self._room = bytearray()

    def next(self, indices: Sequence[int], at: int) -> list[Announced]:
        """The small files from there on that fit one pack; none when there is no small one."""
        entries, places = self.session.entries, self.session.places
        files, size = [], 0
        for index in islice(indices, at, at + PACK_FILES):
            entry = entries[index]
            if entry.kind != FILE or entry.size > PACKED_FILE_BYTES or size >= PACK_BYTES:
                break
            files.append(Announced(index, entry, places[index]))
            size += entry.size
        return files

    def send(self, files: list[Announced]) -> int:
        """Send those before the first that cannot be read as announced. Returns how many that
        are.
        """
        session = self.session
        self._room = self._room or bytearray(PACK_BYTES + PACKED_FILE_BYTES)
        pack = self.module.gather(files, self._room, session.algorithm.of)
        sent: int = pack.files
        if sent:
            session.out.pace.wait_all(pack.size, session.look)
            with memoryview(self._room) as room:
                session.out.send_data(pack_head(sent, pack.table, pack.size), room[: pack.size])
            session.connection.moved(pack.size)
            session.transcript.add_rows(pack.proof, sent)
            session.files += sent
            session.packed_by = self.backend
        return sent

    def send_alone(self, file: Announced) -> None:
        """Send one that could not be read before. Raises Unsendable with what is wrong with it,
        unless that is over.
        """
        fd = open_announced(file.entry, file.place)
        try:
            content = os.pread(fd, file.entry.size, 0)
        except OSError as error:
            raise Unsendable(
                ErrorCode.SOURCE, f"cannot read {file.place}: {reason(error)}"
            ) from error
        finally:
            os.close(fd)
        if len(content) < file.entry.size or not self.send([file]):
            raise Unsendable(ErrorCode.SHRANK, f"{file.place} shrank while it was sent")
