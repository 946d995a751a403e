"""Signals as bytes in a pipe, so that one poll(2) waits for them and for everything else.

Facts. Python runs signal handlers in the main thread between bytecodes, so a handler alone does not
end a poll without a timeout. set_wakeup_fd makes the C handler, in any thread, write the signal's
number to a descriptor. A pipe keeps signals in order and loses none: two SIGTERM are two bytes.
Python ignores SIGPIPE from its start, so a closed connection is an error of one call, never the end
of the process. SIGHUP has two meanings: from a user or logrotate, "reload"; from the kernel, "the
terminal was closed" (credentials(7)). In the second case the process has lost its controlling
terminal when it checks; under nohup it ignores SIGHUP.
Decision: SIGINT and SIGTERM stop, SIGHUP reloads unless the terminal was closed, SIGUSR1 reports.
Other signals keep their default.
"""

from __future__ import annotations

import os
import signal
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM)
RELOAD = signal.SIGHUP
REPORT = signal.SIGUSR1


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Signals:
    """Handles signals while it is open; in the main thread only. fd: readable after a signal."""

    def __init__(self) -> None:
        self.fd, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup_before = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        self._before: dict[int, Any] = {}
        self._had_terminal = has_terminal() and signal.getsignal(RELOAD) != signal.SIG_IGN
        for number in (*STOP, RELOAD, REPORT):
            self._before[number] = signal.signal(number, lambda number, frame: None)

    def read(self) -> list[int]:
        """The signals since the last call, in order."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []

    def hung_up(self) -> bool:
        """Whether the controlling terminal was closed, so that the user cannot press Ctrl-C."""
        return self._had_terminal and not has_terminal()

    def let_kill(self) -> None:
        """Restore the default action of stop signals: they terminate the process."""
        for number in STOP:
            signal.signal(number, signal.SIG_DFL)

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self.fd)
        os.close(self._in)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
