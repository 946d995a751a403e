"""Screen of the chat client: messages, status line, input line; no terminal I/O.

Decision: keys in, rows out; terminal.py owns the terminal. Each row is painted at its own position
and only when it has changed, so a row that a terminal draws wider than computed spoils no other.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable

from fastnet.apps.chat.ui.layout import Editor, cells, fitting, width, wrap
from fastnet.limits import CHAT_SCROLL_LINES

PROMPT = "> "

SEQUENCE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|O(.))")
UNFINISHED = re.compile(r"\x1b(?:\[[0-?]{0,16}[ -/]{0,4}|O)?")
"""The control sequence of a key (ECMA-48, section 5.4), and an incomplete one."""

SEQUENCE_KEYS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "F": "end",
    "H": "home",
    "1~": "home",
    "3~": "delete",
    "4~": "end",
    "5~": "page up",
    "6~": "page down",
    "7~": "home",
    "8~": "end",
}
"""Keys by the end of their sequence, without parameters after the first."""

CONTROL_KEYS = {
    "\r": "enter",
    "\n": "enter",
    "\x01": "home",
    "\x02": "left",
    "\x03": "interrupt",
    "\x04": "end of input",
    "\x05": "end",
    "\x06": "right",
    "\x08": "backspace",
    "\x0b": "delete to end",
    "\x0c": "paint",
    "\x15": "delete to start",
    "\x17": "delete word",
    "\x1a": "suspend",
    "\x7f": "backspace",
}
"""Keys by their control character."""


class KeyDecoder:
    """Decodes a terminal's bytes to keys: a name, or the character itself.

    The sequence of a key may arrive in parts.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._incomplete = ""

    def feed(self, data: bytes) -> list[str]:
        text, keys, at = self._incomplete + self._decoder.decode(data), [], 0
        self._incomplete = ""
        while at < len(text):
            if text[at] != "\x1b":
                keys.append(CONTROL_KEYS.get(text[at], text[at]))
                at += 1
            elif found := SEQUENCE.match(text, at):
                first, final, shifted = found.groups()
                name = (
                    final
                    if final and final.isalpha()
                    else f"{(first or '').partition(';')[0]}{final or ''}"
                )
                keys.append(SEQUENCE_KEYS.get(shifted or name, ""))
                at = found.end()
            elif UNFINISHED.fullmatch(text, at):
                self._incomplete = text[at:]
                break
            else:
                at += 1  # the Escape key, or Alt and another one
        return [key for key in keys if key]


class Screen:
    """Contents of the terminal.

    Args:
        status: Returns the status line.
        write: Writes bytes to the terminal.
        suspend: Stops the process until it is continued (Ctrl-Z).
    """

    def __init__(
        self, status: Callable[[], str], write: Callable[[bytes], None], suspend: Callable[[], None]
    ) -> None:
        self.status = status
        self.write = write
        self.suspend = suspend
        self.has_input_ended = False
        self.editor = Editor()
        self.decoder = KeyDecoder()
        self.columns, self.rows = 80, 24
        self.lines: deque[tuple[int, str]] = deque(maxlen=CHAT_SCROLL_LINES)
        """Messages and notices, each with its number."""
        self._wrapped: deque[tuple[int, str]] = deque()
        """The same, wrapped to rows, each with the number of its line."""
        self._number = 0
        self._below = 0
        """Rows below the lowest visible one; 0 unless scrolled back."""
        self._painted: list[str] = []

    @property
    def height(self) -> int:
        """Rows for messages."""
        return max(0, self.rows - 2)

    def add(self, text: str) -> None:
        """Append a line. When scrolled back, the visible rows stay."""
        self._number += 1
        self.lines.append((self._number, text))
        new = wrap(text, self.columns)
        self._wrapped.extend((self._number, row) for row in new)
        while self._wrapped[0][0] < self.lines[0][0]:
            self._wrapped.popleft()
        if self._below:
            self.scroll(len(new))

    def resize(self, columns: int, rows: int) -> None:
        """Wrap all lines anew; the lowest visible line stays the lowest."""
        lowest = self._wrapped[-1 - self._below][0] if self._below else self._number
        self.columns, self.rows = max(1, columns), max(1, rows)
        self._wrapped = deque(
            (number, row) for number, text in self.lines for row in wrap(text, self.columns)
        )
        self._below = 0
        self.scroll(sum(number > lowest for number, _ in self._wrapped))
        self.forget()

    def forget(self) -> None:
        """Have the next `paint` paint all rows: the terminal was cleared."""
        self._painted = []

    def scroll(self, rows: int) -> None:
        """Scroll back if positive, forward if negative, as far as there are rows."""
        self._below = min(
            max(0, self._below + rows), max(0, len(self._wrapped) - max(1, self.height))
        )

    # Keys

    def feed(self, data: bytes) -> list[str]:
        """Handle keys. Returns completed lines; b"" is the end. Raises KeyboardInterrupt."""
        self.has_input_ended |= not data
        lines = []
        for key in self.decoder.feed(data):
            if key == "enter":
                self._below = 0
                lines.append(self.editor.take_line())
            elif action := ACTIONS.get(key):
                action(self)
            elif len(key) == 1:
                self.editor.insert(key)
        return lines

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def _end(self) -> None:
        """Ctrl-D ends the input on an empty line; in another one it deletes, as in a shell."""
        if self.editor.cells:
            self.editor.delete(self.editor.at, self.editor.at + 1)
        else:
            self.has_input_ended = True

    # Painting

    def paint(self) -> None:
        """Write the rows that have changed to the terminal."""
        typed, column = self.editor.view(max(1, self.columns - len(PROMPT)))
        rows = [*self._rows(), PROMPT[: self.columns - 1] + typed]
        changed = [
            f"\x1b[{i + 1};1H\x1b[0m\x1b[2K{row}"
            for i, row in enumerate(rows)
            if i >= len(self._painted) or self._painted[i] != row
        ]
        self._painted = rows
        at = min(self.columns, len(PROMPT) + column + 1)
        cursor = f"\x1b[{self.rows};{at}H"
        hidden = ["\x1b[?25l", *changed, "\x1b[0m", cursor, "\x1b[?25h"] if changed else [cursor]
        self.write("".join(hidden).encode("utf-8", "replace"))

    def _rows(self) -> list[str]:
        """All rows except the input line."""
        last = len(self._wrapped) - self._below
        messages = [self._wrapped[i][1] for i in range(max(0, last - self.height), last)]
        rows = [*messages, *[""] * (self.height - len(messages))]
        if self.rows > 1:
            rows.append(self._status())
        return rows

    def _status(self) -> str:
        below = f"{self._below} rows below, PageDown | " if self._below else ""
        text = "".join(fitting(cells(f" {below}{self.status()}"), self.columns))
        return f"\x1b[7m{text}{' ' * (self.columns - width(text))}\x1b[0m"


ACTIONS: dict[str, Callable[[Screen], None]] = {
    "up": lambda screen: screen.scroll(1),
    "down": lambda screen: screen.scroll(-1),
    "page up": lambda screen: screen.scroll(max(1, screen.height - 1)),
    "page down": lambda screen: screen.scroll(-max(1, screen.height - 1)),
    "left": lambda screen: screen.editor.move(screen.editor.at - 1),
    "right": lambda screen: screen.editor.move(screen.editor.at + 1),
    "home": lambda screen: screen.editor.move(0),
    "end": lambda screen: screen.editor.move(len(screen.editor.cells)),
    "backspace": lambda screen: screen.editor.delete(screen.editor.at - 1, screen.editor.at),
    "delete": lambda screen: screen.editor.delete(screen.editor.at, screen.editor.at + 1),
    "delete to start": lambda screen: screen.editor.delete(0, screen.editor.at),
    "delete to end": lambda screen: screen.editor.delete(
        screen.editor.at, len(screen.editor.cells)
    ),
    "delete word": lambda screen: screen.editor.delete(
        screen.editor.word_start(), screen.editor.at
    ),
    "interrupt": Screen._interrupt,
    "end of input": Screen._end,
    "suspend": lambda screen: screen.suspend(),
    "paint": Screen.forget,
}
