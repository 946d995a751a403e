"""The small files of a receiver: many in a frame, each whole.

Decision: the files of a pack are made by one call (small/), up to the first of which something is
wrong, or which that call cannot make here: one that is replaced or synced, or one on a file system
where every file has a name (NFS). The rest are made one by one, under a name of ours until they are
whole, by the calls that say what is wrong.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError, files_in, unpack_files
from fastnet.apps.transfer.smallfiles import choose
from fastnet.apps.transfer.smallfiles.contract import Expected
from fastnet.apps.transfer.target.partial_file import Unfinished
from fastnet.apps.transfer.target.root import Root
from fastnet.apps.transfer.target.write_errors import came_into_being, cannot_write
from fastnet.apps.transfer.target.writers import StreamWriter, write_all
from fastnet.errors import TransferError

if TYPE_CHECKING:
    from fastnet.apps.transfer.session.receiver import Receiver


class PackReceiver:
    """Of one session."""

    def __init__(self, session: Receiver) -> None:
        self.session = session
        self.module, self.backend = choose("scatter", session.options.backend)

    def take(self, pack: bytes | bytearray) -> None:
        """Take all of its files. Raises TransferError."""
        made = self._make_many(pack)
        if not made or made < files_in(pack):
            for entry, content, digest in unpack_files(pack, self.session.algorithm.size)[made:]:
                self._take_one(entry, content, digest)

    def _make_many(self, pack: bytes | bytearray) -> int:
        """Those that go well at once. Returns how many."""
        session = self.session
        root, placed, algorithm = session.inbox.root, session.placed, session.algorithm
        if root is None or session.file is not None or session.policy.fsync:
            return 0
        expected = Expected(root, session.due, placed.entries, placed.places)
        made = self.module.scatter(pack, expected, session.at, algorithm.size, algorithm.of)
        files: int = made.files
        session.packed_by = self.backend if files else session.packed_by
        session.go_on(files)
        session.files += files
        session.connection.moved(made.size)
        session.confirmed_bytes += made.size
        session.transcript.add_rows(made.proof, files)
        return files

    def _take_one(self, index: int, content: memoryview, digest: bytes) -> None:
        session = self.session
        entry = session.due_entry(index)
        if session.file is not None or entry.kind != FILE or len(content) != entry.size:
            raise ProtocolError("a packed file that is not as announced")
        if session.algorithm.of(content) != digest:
            message = f"{entry.path} is not what was sent: the digests differ"
            raise TransferError(message, "Send it again", ErrorCode.MISMATCH)
        session.connection.moved(len(content))
        if session.inbox.root is None:
            StreamWriter(session, session.control, entry, "standard output", session.out_fd).write(
                content
            )
        else:
            self._make(session.inbox.root, index, entry, content)
        session.whole(index, len(content), digest)

    def _make(self, root: Root, index: int, entry: Entry, content: memoryview) -> None:
        place = self.session.placed.places[index]
        try:
            with closing(Unfinished(root, place)) as file:
                try:
                    os.ftruncate(file.fd, 0)
                    write_all(file.fd, content)
                    self.session.finish_file(file.fd, entry)
                    file.commit(place, self.session.may_replace)
                except BaseException:
                    file.remove()
                    raise
        except FileExistsError as error:
            raise came_into_being("/".join(place)) from error
        except OSError as error:
            raise cannot_write("/".join(place), error) from error
