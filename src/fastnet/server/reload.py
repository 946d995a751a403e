"""Reloader: keeps a service in step with the file that it answers from.

Facts. An editor or rsync renames a finished file into place; `cp` and `>` write it while we watch,
and no event tells when they are done. Threads do not survive fork(2), so a worker process needs a
reloader thread of its own.
Decision: stat(2) every RELOAD_CHECK_S; the file is read once it has been unchanged for
RELOAD_SETTLE_S, or immediately on request. A request is a number in shared memory, which worker
processes see as well. A file that is valid replaces the old content in one step; one that is not
changes nothing and is logged, in the parent only.
Cost: four stat(2) a second.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from fastnet.engine.stop import StopSignal
from fastnet.errors import ConfigError
from fastnet.limits import RELOAD_CHECK_S, RELOAD_SETTLE_S
from fastnet.service.contract import Content

log = logging.getLogger("fastnet")

FileVersion = tuple[int, ...] | None
"""Device, inode, size and time of modification; None if there is no such file."""


class Reloader:
    """Loads a file and hands its content to a service, first in `load`, then from a thread.

    Args:
        path: The file to watch.
        load: Reads it; raises ConfigError.
        replace: Gets the value that `load` returned.
    """

    def __init__(
        self, path: str, load: Callable[[], Content], replace: Callable[[Any], None]
    ) -> None:
        self.path = path
        self._load = load
        self._replace = replace
        self._requests = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._handled_request = 0
        self._version: FileVersion = None
        """The file as it was when it was last read, valid or not."""
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Load the file. Raises ConfigError, and then everything stays as it was."""
        self._version = file_version(self.path)
        content = self._load()
        self._replace(content.value)
        log_notes(content)

    def start(self, stop: StopSignal, quiet: bool = False) -> None:
        """Watch the file in a thread. quiet: another process does the logging."""
        self._handled_request = self._requests[0]
        self._thread = threading.Thread(
            target=self._watch, args=(stop, quiet), name="fastnet-reload", daemon=True
        )
        self._thread.start()

    def request(self) -> None:
        """Request a reload, in every process, whether the file has changed or not."""
        self._requests[0] += 1

    def join(self) -> None:
        """Wait for the thread, after the server was stopped."""
        if self._thread is not None:
            self._thread.join()

    def _watch(self, stop: StopSignal, quiet: bool) -> None:
        poll = select.poll()
        poll.register(stop.drain_fd, select.POLLIN)
        seen, since_s = self._version, time.monotonic()
        while not poll.poll(RELOAD_CHECK_S * 1000):
            now, now_s = file_version(self.path), time.monotonic()
            if now != seen:
                seen, since_s = now, now_s
            is_requested = self._requests[0] != self._handled_request
            self._handled_request = self._requests[0]
            if is_requested or (now != self._version and now_s - since_s >= RELOAD_SETTLE_S):
                self._reload(quiet)

    def _reload(self, quiet: bool) -> None:
        self._version = file_version(self.path)
        try:
            content = self._load()
            self._replace(content.value)
            if not quiet:
                log_notes(content)
        except ConfigError as error:
            if not quiet:
                log.error("%s. The content loaded before is kept", str(error).rstrip("."))
        except MemoryError:
            if not quiet:
                log.error("no memory for %s; the content loaded before is kept", self.path)


def file_version(path: str) -> FileVersion:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def log_notes(content: Content) -> None:
    for level, text in content.notes:
        log.log(level, "%s", text)
