"""Writers of large files: opens partial files, shares them, commits or removes them."""

from __future__ import annotations

import threading

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.entry import STREAM, Entry
from fastnet.apps.transfer.session.completion import Completion
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.incoming_file import IncomingFile
from fastnet.apps.transfer.target.journal import ResumableFile
from fastnet.apps.transfer.target.placement import Placement, PlacementPlan
from fastnet.apps.transfer.target.write_errors import came_into_being, cannot_write
from fastnet.apps.transfer.target.writers import ExtentWriter, PartWriter, StreamWriter
from fastnet.errors import TransferRefused


class WriterFactory:
    """Makes a writer per file and data connection; one file is open at a time.

    Args:
        inbox: Where files are placed.
        placed: The destination of each entry.
        parts: Partial files by entry, those of an earlier run included.
        algorithm: Digest of the extents.
        out_fd: Descriptor for the data when the inbox has no root.
        bytes_max: Longest stream to accept; None for no limit.
        lock: Of the session.
    """

    def __init__(
        self,
        inbox: Placement,
        placed: PlacementPlan,
        parts: dict[int, ResumableFile],
        algorithm: Algorithm,
        out_fd: int,
        bytes_max: int | None,
        lock: threading.Condition,
    ) -> None:
        self.root = inbox.root
        self.file: IncomingFile | None = None
        """The large file being received, or None."""
        self._placed = placed
        self._parts = parts
        self._algorithm = algorithm
        self._out_fd = out_fd
        self._bytes_max = bytes_max
        self._lock = lock

    def writer(self, data_connection: DataConnection, index: int, entry: Entry) -> ExtentWriter:
        """A writer for the extents of entry `index` on one data connection.

        Raises:
            TransferError: The partial file cannot be opened.
        """
        if self.root is None:
            return self.stream_writer(data_connection, entry)
        path = self._placed.places[index]
        try:
            with self._lock:
                if index not in self._parts:
                    self._parts[index] = ResumableFile(self.root, path, entry, self._algorithm)
                if self.file is None:
                    self.file = IncomingFile(self._parts[index], self._algorithm, self._lock)
                return PartWriter(self._algorithm, data_connection, entry, self.file)
        except OSError as error:
            raise cannot_write("/".join(path), error) from error

    def stream_writer(self, data_connection: DataConnection, entry: Entry) -> StreamWriter:
        """A writer to standard output, or to the file that is none."""
        return StreamWriter(
            self._algorithm, data_connection, entry, "standard output", self._out_fd
        )

    def check_stream_size(self, entry: Entry, size: int) -> None:
        """Raise TransferRefused for a stream that is longer than allowed."""
        limit = self._bytes_max
        if entry.kind == STREAM and limit is not None and size > limit:
            message = f"the stream is longer than {limit} bytes"
            raise TransferRefused(message, "Allow more with --max-bytes", ErrorCode.LIMIT)

    def commit(self, index: int, entry: Entry, completion: Completion) -> None:
        """Apply the metadata of a verified file and rename it to its final name."""
        path, part = self._placed.places[index], self._parts[index]
        try:
            completion.apply_metadata(part.fd, entry)
            part.commit(path, completion.may_replace)
        except FileExistsError as error:
            raise came_into_being("/".join(path)) from error
        except OSError as error:
            raise cannot_write(part.name, error) from error
        self._parts.pop(index).close()

    def abort(self, index: int) -> None:
        """Remove the partial file of an entry that the sender has aborted."""
        if self.file is not None:
            self.file.abort()
            self._parts.pop(index).close()

    def end_file(self) -> None:
        """Forget the current file: it is complete or aborted."""
        with self._lock:
            self.file = None
