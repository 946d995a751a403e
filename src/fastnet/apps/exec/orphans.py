"""Orphans: processes that outlive the command that started them; found, killed and reaped.

Facts. A process whose parent ends becomes a child of its nearest ancestor that is a child subreaper
(PR_SET_CHILD_SUBREAPER, prctl(2)), so with that no descendant leaves the tree below the server,
whatever sessions and groups it makes. The tree no longer shows which command started it; but the
environment of a program is inherited, and /proc shows it. A process that has been sent SIGKILL
forks no more.
Decision: the environment of each command holds a MARK of its own. When a command has ended, our
children with its mark are killed with all their descendants, again until none is found. A child
without a mark (it cleared its environment, or runs as another user) belongs to no known command, so
it is killed when the last running command has ended; but not when we are process 1, which adopts
foreign orphans too. Children from before the start are left alone.
Cost: one file of /proc a thread for each command, and one waitid(2) a poll. Without
CONFIG_PROC_CHILDREN no orphan is found.
"""

from __future__ import annotations

import ctypes
import logging
import os
import time
from contextlib import suppress
from signal import SIGKILL

from fastnet.limits import EXEC_ORPHANS_RETRY_S, EXEC_ORPHANS_S

log = logging.getLogger("fastnet")

MARK = "FASTNET_EXECUTION"
PR_SET_CHILD_SUBREAPER = 36


def children(pid: int) -> set[int]:
    """Children of all threads of a process; none of a process that has ended."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


def descendants(pid: int) -> set[int]:
    """A process and all its descendants."""
    found, todo = set(), {pid}
    while todo:
        found |= todo
        todo = {child for each in todo for child in children(each)} - found
    return found


def read_mark(pid: int) -> bytes:
    """The MARK=... of a process; empty if it has none, or none that we may read."""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return next(
            (text for text in file.read().split(b"\0") if text.startswith(MARK.encode() + b"=")),
            b"",
        )
    return b""


class Orphans:
    """The orphans of this process."""

    def __init__(self) -> None:
        self.leaders: set[int] = set()
        """Processes of running commands; they have a waiter and are no orphans."""
        self.retry_s: float | None = None
        """When to search again; None when no search is unfinished."""
        self._earlier_children: set[int] = set()
        """Children from before the start."""
        self._is_subreaper = False
        self._unfinished_marks: set[str] = set()
        """Marks of which more processes may be alive."""

    def become_subreaper(self) -> None:
        """Adopt orphans among our descendants from now on. Raises OSError."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._earlier_children = children(os.getpid())
        self._is_subreaper = True

    def kill(self, mark: str) -> None:
        """Kill the orphans of a command.

        Those not killed within EXEC_ORPHANS_S are killed later, by handle_timer.
        """
        if self._is_subreaper and not self._kill_marked(mark):
            log.error(
                "a command left more processes behind than could be killed in %g s; retrying",
                EXEC_ORPHANS_S,
            )
            self._retry_later(mark)

    def handle_timer(self, now_s: float) -> None:
        """Reap ended orphans and continue unfinished searches."""
        self._reap()
        if self.retry_s is not None and now_s >= self.retry_s:
            self.retry_s = None
            marks, self._unfinished_marks = self._unfinished_marks, set()
            for mark in marks:
                if not self._kill_marked(mark):
                    self._retry_later(mark)

    def _retry_later(self, mark: str) -> None:
        self._unfinished_marks.add(mark)
        self.retry_s = time.monotonic() + EXEC_ORPHANS_RETRY_S

    def _kill_marked(self, mark: str) -> bool:
        """Kill until no marked process is found. Returns False when the time is over first."""
        own_mark, killed = f"{MARK}={mark}".encode(), set[int]()
        is_last = not self.leaders and os.getpid() != 1
        end_s = time.monotonic() + EXEC_ORPHANS_S
        while time.monotonic() < end_s:
            found = set[int]()
            self._reap()
            for pid in children(os.getpid()) - self.leaders - self._earlier_children:
                mark_found = read_mark(pid)
                if pid in killed or mark_found == own_mark or (is_last and not mark_found):
                    found |= descendants(pid)
            if not found - killed:
                return True
            for pid in found - killed:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, SIGKILL)
            killed |= found
        return False

    def _reap(self) -> None:
        """Wait for the orphans that have ended."""
        with suppress(ChildProcessError):
            while self._is_subreaper and (
                ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            ):
                if ended.si_pid in self.leaders:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)
                self._earlier_children.discard(ended.si_pid)
