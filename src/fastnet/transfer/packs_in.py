"""The small files of a receiver: many in a frame, each whole.

Decision: the files of a pack are made by one call (small/), up to the first of which something is wrong, or which that call
cannot make here: one that is replaced or synced, or one on a file system where every file has a name (NFS). The rest are made
one by one, under a name of ours until they are whole, by the calls that say what is wrong.
That call is a second thread's, which holds no GIL most of the time, while the next pack comes in; one pack at a time, so that
files stay in their order.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from fastnet.errors import TransferError
from fastnet.limits import MOVER_SLICE_S
from fastnet.transfer.entry import FILE, Entry
from fastnet.transfer.events import ErrorCode
from fastnet.transfer.frames import ProtocolError, files_in, unpack_files
from fastnet.transfer.rooted import Root
from fastnet.transfer.small import choose
from fastnet.transfer.small.contract import Expected, Scattered
from fastnet.transfer.target import came_into_being, cannot_write
from fastnet.transfer.unfinished import Unfinished
from fastnet.transfer.writer import StreamWriter, write_all

if TYPE_CHECKING:
    from fastnet.transfer.receiver import Receiver

NONE_MADE = Scattered(0, 0, b"")


class PacksIn:
    """Of one session."""

    def __init__(self, session: Receiver) -> None:
        self.session = session
        self.module = choose("scatter", session.options.backend)
        self._pack: bytes | bytearray = b""
        self._maker: threading.Thread | None = None
        self._made: Scattered | Exception = NONE_MADE

    def take(self, pack: bytes | bytearray) -> None:
        """Take its files, and return before they are made. Raises TransferError for the pack before, or for this one."""
        self.settle()
        session = self.session
        if session.inbox.root is None or session.file is not None or session.policy.fsync:
            self._take_rest(pack, NONE_MADE)
            return
        expected = Expected(session.inbox.root, session.due, session.placed.entries, session.placed.places)
        self._pack, self._maker = (
            pack,
            threading.Thread(target=self._make_many, args=(pack, expected), name="small files"),
        )
        self._maker.start()

    @property
    def is_made(self) -> bool:
        """Whether `settle` has something to do and need not wait for it."""
        return self._maker is not None and not self._maker.is_alive()

    def settle(self) -> None:
        """Return when all that was taken is made. Raises TransferError."""
        while self._maker is not None and self._maker.is_alive():
            self._maker.join(MOVER_SLICE_S)
            if self._maker.is_alive():
                self.session.look()  # which may find it made meanwhile, and settle
        if self._maker is None:
            return
        self._maker, made = None, self._made
        if isinstance(made, Exception):
            raise made
        self._take_rest(self._pack, made)

    def close(self) -> None:
        """Return when nothing is being made any more."""
        if self._maker is not None:
            self._maker.join()

    def _make_many(self, pack: bytes | bytearray, expected: Expected) -> None:
        """The second thread."""
        session = self.session
        try:
            self._made = self.module.scatter(pack, expected, session.at, session.algorithm.size, session.algorithm.of)
        except Exception as error:
            self._made = error

    def _take_rest(self, pack: bytes | bytearray, made: Scattered) -> None:
        """Count what was made, and make the others one by one."""
        session = self.session
        session.go_on(made.files)
        session.files += made.files
        session.channel.moved(made.size)
        session.confirmed_bytes += made.size
        session.proof.add_rows(made.proof, made.files)
        if not made.files or made.files < files_in(pack):
            for entry, content, digest in unpack_files(pack, session.algorithm.size)[made.files :]:
                self._take_one(entry, content, digest)

    def _take_one(self, index: int, content: memoryview, digest: bytes) -> None:
        session = self.session
        entry = session.due_entry(index)
        if session.file is not None or entry.kind != FILE or len(content) != entry.size:
            raise ProtocolError("a packed file that is not as announced")
        if session.algorithm.of(content) != digest:
            message = f"{entry.path} is not what was sent: the digests differ"
            raise TransferError(message, "Send it again", ErrorCode.MISMATCH)
        session.channel.moved(len(content))
        if session.inbox.root is None:
            StreamWriter(session, session.trunk, entry, "standard output", session.out_fd).write(content)
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
