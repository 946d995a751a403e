"""Receiver of small files: many in a PACK frame, each whole.

Decision: the files of a pack are made by one call (smallfiles/), up to the first that is wrong or
that this call cannot make: one that is replaced or synced, or one on a file system without unnamed
files (NFS). The rest are made one by one, under a temporary name, by calls that report the error.
"""

from __future__ import annotations

import os
from contextlib import closing

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError, files_in, unpack_files
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.session.completion import Completion
from fastnet.apps.transfer.session.counters import TransferCounters
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.session.entry_cursor import EntryCursor
from fastnet.apps.transfer.session.writer_factory import WriterFactory
from fastnet.apps.transfer.smallfiles import choose
from fastnet.apps.transfer.smallfiles.contract import Expected
from fastnet.apps.transfer.target.partial_file import PartialFile
from fastnet.apps.transfer.target.root import Parts, Root
from fastnet.apps.transfer.target.write_errors import came_into_being, cannot_write
from fastnet.apps.transfer.target.writers import write_all
from fastnet.errors import TransferError


class PackReceiver:
    """Receives the small files of one transfer.

    Args:
        algorithm: Digest of the files.
        backend: "native", "python" or "auto".
        control: The control connection.
        paths: Destination of each entry.
        cursor: Which entry is due.
        writers: Knows the large file being received, and standard output.
        completion: Sets modes and times.
        transcript: Grows by each file received.
        counters: Of the transfer.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        backend: str,
        *,
        control: DataConnection,
        paths: dict[int, Parts],
        cursor: EntryCursor,
        writers: WriterFactory,
        completion: Completion,
        transcript: Transcript,
        counters: TransferCounters,
    ) -> None:
        self._algorithm = algorithm
        self._module, self._backend = choose("scatter", backend)
        self._control = control
        self._paths = paths
        self._cursor = cursor
        self._writers = writers
        self._completion = completion
        self._transcript = transcript
        self._counters = counters

    def receive(self, pack: bytes | bytearray) -> None:
        """Make all files of a pack. Raises TransferError."""
        made = self._make_many(pack)
        if not made or made < files_in(pack):
            for entry, content, digest in unpack_files(pack, self._algorithm.size)[made:]:
                self._receive_one(entry, content, digest)

    def _make_many(self, pack: bytes | bytearray) -> int:
        """Make files by the batch call, up to the first it cannot make. Returns how many."""
        root, cursor, algorithm = self._writers.root, self._cursor, self._algorithm
        if root is None or self._writers.file is not None or self._completion.fsync:
            return 0
        expected = Expected(root, cursor.due, cursor.entries, self._paths)
        made = self._module.scatter(pack, expected, cursor.position, algorithm.size, algorithm.of)
        files: int = made.files
        if files:
            self._counters.pack_backend = self._backend
        cursor.advance(files)
        self._counters.files += files
        self._counters.confirmed_bytes += made.size
        self._control.connection.count_moved(made.size)
        self._transcript.add_rows(made.proof, files)
        return files

    def _receive_one(self, index: int, content: memoryview, digest: bytes) -> None:
        entry = self._cursor.entry(index)
        is_expected = self._writers.file is None and entry.kind == FILE
        if not is_expected or len(content) != entry.size:
            raise ProtocolError("a packed file that is not as announced")
        if self._algorithm.of(content) != digest:
            message = f"{entry.path} is not what was sent: the digests differ"
            raise TransferError(message, "Send it again", ErrorCode.MISMATCH)
        self._control.connection.count_moved(len(content))
        if self._writers.root is None:
            self._writers.stream_writer(self._control, entry).write(content)
        else:
            self._make(self._writers.root, self._paths[index], entry, content)
        self._cursor.advance()
        self._counters.files += 1
        self._counters.confirmed_bytes += len(content)
        self._transcript.add(index, len(content), digest)

    def _make(self, root: Root, path: Parts, entry: Entry, content: memoryview) -> None:
        try:
            with closing(PartialFile(root, path)) as file:
                try:
                    os.ftruncate(file.fd, 0)
                    write_all(file.fd, content)
                    self._completion.apply_metadata(file.fd, entry)
                    file.commit(path, self._completion.may_replace)
                except BaseException:
                    file.remove()
                    raise
        except FileExistsError as error:
            raise came_into_being("/".join(path)) from error
        except OSError as error:
            raise cannot_write("/".join(path), error) from error
