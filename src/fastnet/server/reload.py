"""Keep a service in step with the file it is made from.

Facts. An editor or rsync renames a finished file into place; `cp` and `>` write it under our eyes,
and nobody tells when they are done. Threads do not survive fork(2), so a worker process has to look
for itself.
Decision: the file is looked at every RELOAD_CHECK_S and read once it has stood still for
RELOAD_SETTLE_S, or at once on request. A request is a number in shared memory, which worker
processes see as well. What is read whole replaces the old in one step; what cannot be read changes
nothing and is logged, in the parent only.
Cost: a stat(2) four times a second.
"""

from __future__ import annotations

import logging
import mmap
import select
import threading
import time
from collections.abc import Callable

from fastnet.apps.dictionary.file import Dictionary, Stamp, load, stamp
from fastnet.engine.stop import StopSignal
from fastnet.errors import ConfigError
from fastnet.limits import RELOAD_CHECK_S, RELOAD_SETTLE_S

log = logging.getLogger("fastnet")


class Reloader:
    """Reads `path` and hands its entries to `replace`; first in `load`, then from a thread until
    the server stops.
    """

    def __init__(
        self, path: str, format: str, replace: Callable[[dict[bytes, bytes]], None]
    ) -> None:
        self.path = path
        self._format = format
        self._replace = replace
        self._requests = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._heard = 0
        self._read: Stamp = None
        """The file as it was when it was last read, well or not."""
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Read the file. Raises ConfigError, and then everything stays as it was."""
        self._read = stamp(self.path)
        found = load(self.path, self._format)
        self._replace(found.entries)
        tell(self.path, found)

    def start(self, stop: StopSignal, quiet: bool = False) -> None:
        """Watch the file in a thread. quiet: another process logs what there is to say."""
        self._heard = self._requests[0]
        self._thread = threading.Thread(
            target=self._watch, args=(stop, quiet), name="fastnet-reload", daemon=True
        )
        self._thread.start()

    def ask(self) -> None:
        """Read the file again soon, changed or not; in every process."""
        self._requests[0] += 1

    def join(self) -> None:
        """Wait for the thread, once the server has been told to stop."""
        if self._thread is not None:
            self._thread.join()

    def _watch(self, stop: StopSignal, quiet: bool) -> None:
        poll = select.poll()
        poll.register(stop.drain_fd, select.POLLIN)
        seen, since_s = self._read, time.monotonic()
        while not poll.poll(RELOAD_CHECK_S * 1000):
            now, now_s = stamp(self.path), time.monotonic()
            if now != seen:
                seen, since_s = now, now_s
            asked, self._heard = self._requests[0] != self._heard, self._requests[0]
            if asked or (now != self._read and now_s - since_s >= RELOAD_SETTLE_S):
                self._reload(quiet)

    def _reload(self, quiet: bool) -> None:
        self._read = stamp(self.path)
        try:
            found = load(self.path, self._format)
            self._replace(found.entries)
            if not quiet:
                tell(self.path, found)
        except ConfigError as error:
            if not quiet:
                log.error("%s. The words read before are kept", str(error).rstrip("."))
        except MemoryError:
            if not quiet:
                log.error("no memory for the words of %s; those read before are kept", self.path)


def tell(path: str, found: Dictionary) -> None:
    """What was read, and which words stand twice."""
    log.info("%s: %d words (%s)", path, len(found.entries), found.format)
    for word, again, first in found.twice:
        log.warning(
            "%s, line %d: %s is on line %d already, which counts", path, again, repr(word), first
        )
    more = found.twice_count - len(found.twice)
    if more > 0:
        log.warning("%s: and %d more words that stand twice", path, more)
