"""A forked child: its signals, objects, descriptors, and its exit status.

The native twin is csrc/fn_child.h.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterable

PARENTS_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Sent to a whole process group by a terminal or a service manager.

The parent decides what they mean.
"""


def become_child() -> None:
    """Leave the parent's signals and objects to the parent."""
    gc.freeze()
    signal.set_wakeup_fd(-1)
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def keep_only(fds: Iterable[int]) -> None:
    """Close every descriptor above standard error but these."""
    start = 3
    for fd in sorted(fd for fd in fds if fd >= 3):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def reap(pid: int) -> bool:
    """Wait for a child that has exited or is about to. True if its exit was not clean.

    If its status was collected elsewhere (SIGCHLD ignored, or a waitpid(-1) in this process), it
    counts as a clean exit.
    """
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return False
    return os.waitstatus_to_exitcode(status) != 0
