"""Processes that left the command that started them: adopted, found by their mark, killed and
waited
for.

Facts. A process whose parent ends becomes a child of the nearest ancestor that asked for them
(PR_SET_CHILD_SUBREAPER, prctl(2)), so with that nothing a command starts leaves the tree below the
server, whatever sessions and groups it makes. The tree no longer says whose it was; but the
environment a program was started with passes on to what it starts, and /proc shows it. A process
that has been sent SIGKILL makes no children any more.
Decision: each command's environment holds a MARK of its own. When a command has ended, those of our
children that have its mark are killed with all below them, again until none is found. One without a
mark (it cleared its environment, or it is another user's) is anybody's, so it is killed when the
last command that runs has ended; but not when we are process 1, to whom strangers are given too.
Children that were there before us are left alone.
Cost: a file of /proc a thread for each command, and one waitid(2) a turn. Without
CONFIG_PROC_CHILDREN nothing is found.
"""

from __future__ import annotations

import ctypes
import logging
import os
import time
from contextlib import suppress
from signal import SIGKILL

from fastnet.limits import EXEC_HUNT_REST_S, EXEC_HUNT_S

log = logging.getLogger("fastnet")

MARK = "FASTNET_EXECUTION"
PR_SET_CHILD_SUBREAPER = 36


def children(pid: int) -> set[int]:
    """Of all threads of a process; of one that is gone none."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


def below(pid: int) -> set[int]:
    """A process and everything below it."""
    found, todo = set(), {pid}
    while todo:
        found |= todo
        todo = {child for each in todo for child in children(each)} - found
    return found


def read_mark(pid: int) -> bytes:
    """MARK=... of a process; nothing if it has none, or none that we may see."""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return next(
            (text for text in file.read().split(b"\0") if text.startswith(MARK.encode() + b"=")),
            b"",
        )
    return b""


class Orphans:
    """Those of this process. leaders: commands that run and are waited for by others; they are no
    orphans.
    """

    def __init__(self) -> None:
        self.leaders: set[int] = set()
        self._others: set[int] = set()
        self._are_ours = False
        self._unfinished: set[str] = set()
        """Marks of which there may be more."""
        self.again_s: float | None = None
        """When to look for them."""

    def adopt(self) -> None:
        """From now on orphans among our descendants are ours, to kill and to wait for. Raises
        OSError if they cannot be.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._others = children(os.getpid())
        self._are_ours = True

    def kill(self, mark: str) -> None:
        """End those of a command that has ended; if they are too many for EXEC_HUNT_S, the rest in
        later turns.
        """
        if self._are_ours and not self._hunt(mark):
            log.error(
                "a command left more processes behind than could be killed in %g s; going on",
                EXEC_HUNT_S,
            )
            self._later(mark)

    def turn(self, now_s: float) -> None:
        """Wait for those that have ended, and go on with what was too much."""
        self._reap()
        if self.again_s is not None and now_s >= self.again_s:
            self.again_s = None
            marks, self._unfinished = self._unfinished, set()
            for mark in marks:
                if not self._hunt(mark):
                    self._later(mark)

    def _later(self, mark: str) -> None:
        self._unfinished.add(mark)
        self.again_s = time.monotonic() + EXEC_HUNT_REST_S

    def _hunt(self, mark: str) -> bool:
        """False if there was no end of them."""
        wanted, hunted = f"{MARK}={mark}".encode(), set[int]()
        is_last = not self.leaders and os.getpid() != 1
        end_s = time.monotonic() + EXEC_HUNT_S
        while time.monotonic() < end_s:
            found = set[int]()
            self._reap()
            for pid in children(os.getpid()) - self.leaders - self._others:
                mark_of_it = read_mark(pid)
                if pid in hunted or mark_of_it == wanted or (is_last and not mark_of_it):
                    found |= below(pid)
            if not found - hunted:
                return True
            for pid in found - hunted:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, SIGKILL)
            hunted |= found
        return False

    def _reap(self) -> None:
        """Wait for those that have ended."""
        with suppress(ChildProcessError):
            while self._are_ours and (
                ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            ):
                if ended.si_pid in self.leaders:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)
                self._others.discard(ended.si_pid)
