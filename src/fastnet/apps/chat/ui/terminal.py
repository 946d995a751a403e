"""The terminal of a chat: taken over, and given back as it was however the chat ends.

Facts. A terminal's modes belong to the terminal and outlive the program (termios(3)). The alternate
screen (xterm's mode 1049) keeps what was there before and brings it back. Python runs a signal
handler between two instructions and then waits again; only a byte on the wake-up descriptor ends a
select (signal.set_wakeup_fd).
Decision: characters come one by one and without echo, the terminal's own signals as keys, so
Ctrl-C, Ctrl-Z and Ctrl-D pass through one door. Lines are not broken by the terminal, or a
character that is wider than we think would shift all others. SIGTERM is an interrupt, SIGHUP the
end of input. After a SIGKILL only `reset` helps.
"""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress

from fastnet.apps.chat.ui.screen import Screen
from fastnet.limits import READ_BYTES

ENTER = b"\x1b[?1049h\x1b[?7l\x1b[2J"
LEAVE = b"\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1049l"

INPUT, OUTPUT, CONTROL, LOCAL = range(4)
"""What the first numbers of termios.tcgetattr are."""

WITHOUT = {
    INPUT: termios.BRKINT
    | termios.ICRNL
    | termios.INLCR
    | termios.IGNCR
    | termios.ISTRIP
    | termios.IXON,
    LOCAL: termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN,
}


class Terminal:
    """Taken over while entered. fd: readable when `woken` should be called. It has a screen from
    before it is entered.
    """

    screen: Screen

    def __init__(self, source_fd: int, target_fd: int) -> None:
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.fd = -1

    def __enter__(self) -> Terminal:
        self.modes = termios.tcgetattr(self.source_fd)
        self.fd, self._wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)
        numbers = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
        self._before = {
            number: signal.signal(number, lambda number, frame: None) for number in numbers
        }
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._wake_fd)

    def take(self) -> None:
        modes = list(self.modes)
        for index, flags in WITHOUT.items():
            modes[index] &= ~flags
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.source_fd, termios.TCSADRAIN, modes)
        self.write(ENTER)
        self.measure()

    def give_back(self) -> None:
        self.write(LEAVE)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.source_fd, termios.TCSADRAIN, self.modes)

    def write(self, data: bytes) -> None:
        """A terminal that hung up takes nothing, and its input will say so."""
        with suppress(OSError):
            while data:
                data = data[os.write(self.target_fd, data) :]

    def measure(self) -> None:
        """Lay out anew for the size that the terminal has now."""
        try:
            columns, rows = os.get_terminal_size(self.target_fd)
        except OSError:
            return
        self.write(b"\x1b[0m\x1b[2J")
        self.screen.resize(columns or 80, rows or 24)

    def woken(self) -> None:
        """Signals came, each as a byte. Raises KeyboardInterrupt."""
        with suppress(BlockingIOError):
            numbers = os.read(self.fd, READ_BYTES)
            if signal.SIGTERM in numbers:
                raise KeyboardInterrupt
            self.screen.has_ended |= signal.SIGHUP in numbers
        self.measure()

    def suspend(self) -> None:
        """Ctrl-Z: back to the shell, which lets us go on when it likes."""
        self.give_back()
        os.kill(0, signal.SIGTSTP)
        self.take()
