"""Completion of received files and trees: modes, times, links, fsync.

Decision: links are made when every file is complete, modes and times of folders are set last, so
that nothing is written below a link or into a folder that has become read-only.
"""

from __future__ import annotations

import os

from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.session.data_connection import DataConnection
from fastnet.apps.transfer.target.placement import Placement, PlacementPlan
from fastnet.apps.transfer.target.write_errors import umask


class Completion:
    """Gives files, links and folders their final metadata.

    Args:
        inbox: Where files are placed.
        placed: The destination of each entry.
        fsync: Sync files and folders before they are acknowledged.
        control: Keeps the connection alive while the disk works.
    """

    def __init__(
        self, inbox: Placement, placed: PlacementPlan, fsync: bool, control: DataConnection
    ) -> None:
        self.fsync = fsync
        self.may_replace = inbox.overwrite in ("always", "older")
        """Whether a file may replace another one."""
        self._inbox = inbox
        self._placed = placed
        self._control = control

    def apply_metadata(self, fd: int, entry: Entry) -> None:
        """Set mode and times of a complete file, and sync it, before it gets its name."""
        os.fchmod(fd, entry.mode if entry.kind == FILE else 0o666 & ~umask())
        if entry.kind == FILE:
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        if self.fsync:
            self._control.await_result(self._control.pool.submit(os.fsync, fd))

    def finish_tree(self) -> list[str]:
        """Make links, sync folders, set their modes and times. Returns the links not made."""
        inbox, placed = self._inbox, self._placed
        inbox.make_links(placed)
        if self.fsync and inbox.root is not None:
            for folder in placed.folders_written():
                self._control.await_result(self._control.pool.submit(inbox.root.sync, folder))
        inbox.set_folders(placed)
        return placed.refused
