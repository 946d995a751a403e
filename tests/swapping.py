"""A local process that is up to something: a folder that is a link to another one every other moment."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2


class Swapping:
    """A thread that exchanges a folder and a link to another one, at one instant each time, as long as the block lasts.

    renameat2(2) with RENAME_EXCHANGE, so that one of them is always there; at the end it is the folder.
    """

    def __init__(self, folder: Path, other: Path) -> None:
        self._folder, self._link = os.fsencode(folder), os.fsencode(f"{folder}.link")
        os.symlink(other, self._link)
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._renameat2 = ctypes.CDLL(None, use_errno=True).renameat2

    def _exchange(self) -> None:
        if self._renameat2(AT_FDCWD, self._folder, AT_FDCWD, self._link, RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    def _run(self) -> None:
        while not self._stopped:
            self._exchange()
            self._exchange()

    def __enter__(self) -> Swapping:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
