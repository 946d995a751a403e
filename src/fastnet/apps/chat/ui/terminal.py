"""Terminal of the chat client: raw mode and alternate screen, always restored.

Facts. A terminal's modes belong to the terminal and outlive the program (termios(3)). The alternate
screen (xterm's mode 1049) saves the contents of the terminal and restores them. Python runs a
signal handler between two instructions and then waits again; only a byte on the wake-up descriptor
ends a select (signal.set_wakeup_fd).
Decision: characters arrive one by one and without echo, and the characters of the terminal's
signals as keys, so that Ctrl-C, Ctrl-Z and Ctrl-D have one handler. The terminal does not wrap
lines: a character that is wider than computed would shift all others. SIGTERM is an interrupt,
SIGHUP the end of input. After a SIGKILL only reset(1) restores the terminal.
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
"""Indices of the flags in the list of termios.tcgetattr."""

CLEARED_FLAGS = {
    INPUT: termios.BRKINT
    | termios.ICRNL
    | termios.INLCR
    | termios.IGNCR
    | termios.ISTRIP
    | termios.IXON,
    LOCAL: termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN,
}


class ChatTerminal:
    """In raw mode and on the alternate screen while entered.

    Args:
        source_fd: Descriptor of the terminal for input.
        target_fd: Descriptor of the terminal for output.
    """

    screen: Screen
    """Set before the terminal is entered."""

    def __init__(self, source_fd: int, target_fd: int) -> None:
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.fd = -1
        """Readable when `handle_signals` is due; -1 while not entered."""

    def __enter__(self) -> ChatTerminal:
        self.modes = termios.tcgetattr(self.source_fd)
        self.fd, self._wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)
        numbers = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
        self._earlier_handlers = {
            number: signal.signal(number, lambda number, frame: None) for number in numbers
        }
        self.set_raw()
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()
        signal.set_wakeup_fd(-1)
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._wake_fd)

    def set_raw(self) -> None:
        """Enter raw mode and the alternate screen."""
        modes = list(self.modes)
        for index, flags in CLEARED_FLAGS.items():
            modes[index] &= ~flags
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.source_fd, termios.TCSADRAIN, modes)
        self.write(ENTER)
        self.measure()

    def restore(self) -> None:
        """Leave the alternate screen and restore the modes."""
        self.write(LEAVE)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.source_fd, termios.TCSADRAIN, self.modes)

    def write(self, data: bytes) -> None:
        """Write all of `data`; a terminal that hung up fails, and its input reports it."""
        with suppress(OSError):
            while data:
                data = data[os.write(self.target_fd, data) :]

    def measure(self) -> None:
        """Lay out the screen for the terminal's current size."""
        try:
            columns, rows = os.get_terminal_size(self.target_fd)
        except OSError:
            return
        self.write(b"\x1b[0m\x1b[2J")
        self.screen.resize(columns or 80, rows or 24)

    def handle_signals(self) -> None:
        """Handle the signals that arrived, each a byte. Raises KeyboardInterrupt on SIGTERM."""
        with suppress(BlockingIOError):
            numbers = os.read(self.fd, READ_BYTES)
            if signal.SIGTERM in numbers:
                raise KeyboardInterrupt
            self.screen.has_input_ended |= signal.SIGHUP in numbers
        self.measure()

    def suspend(self) -> None:
        """Ctrl-Z: stop the process group, so that the shell has the terminal until `fg`."""
        self.restore()
        os.kill(0, signal.SIGTSTP)
        self.set_raw()
