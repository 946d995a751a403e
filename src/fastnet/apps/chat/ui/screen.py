"""A chat on a whole terminal: what was said above, a line about where one is, and the line that is
being typed.

Keys in, rows out; the terminal itself is terminal.py's. Each row is painted at its own place and
only when it has changed, so a row that a terminal draws wider than we think spoils no other.
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
"""What a key sends (ECMA-48, section 5.4), and the beginning of it."""

INTRODUCED = {
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
"""Keys by what they send after the introducer, parameters but the first left out."""

CONTROLS = {
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
"""Keys that send one control character."""


class Keys:
    """Bytes of a terminal as keys: a name, or the character itself. What a key sends may come in
    pieces.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        text, keys, at = self._rest + self._decoder.decode(data), [], 0
        self._rest = ""
        while at < len(text):
            if text[at] != "\x1b":
                keys.append(CONTROLS.get(text[at], text[at]))
                at += 1
            elif found := SEQUENCE.match(text, at):
                first, final, shifted = found.groups()
                name = (
                    final
                    if final and final.isalpha()
                    else f"{(first or '').partition(';')[0]}{final or ''}"
                )
                keys.append(INTRODUCED.get(shifted or name, ""))
                at = found.end()
            elif UNFINISHED.fullmatch(text, at):
                self._rest = text[at:]
                break
            else:
                at += 1  # the Escape key, or Alt and another one
        return [key for key in keys if key]


class Screen:
    """What is on the terminal. status: the line about where one is. write: takes bytes for the
    terminal.
    """

    def __init__(
        self, status: Callable[[], str], write: Callable[[bytes], None], suspend: Callable[[], None]
    ) -> None:
        self.status = status
        self.write = write
        self.suspend = suspend
        self.has_ended = False
        self.editor = Editor()
        self.keys = Keys()
        self.columns, self.rows = 80, 24
        self.lines: deque[tuple[int, str]] = deque(maxlen=CHAT_SCROLL_LINES)
        """What was said, each with its number."""
        self._wrapped: deque[tuple[int, str]] = deque()
        """The same in rows, each with the number of its line."""
        self._number = 0
        self._below = 0
        """Rows below the lowest one that is shown: 0 but for who has scrolled back."""
        self._painted: list[str] = []

    @property
    def height(self) -> int:
        """Rows for what was said."""
        return max(0, self.rows - 2)

    def add(self, text: str) -> None:
        """A line more. Who has scrolled back goes on seeing what was there."""
        self._number += 1
        self.lines.append((self._number, text))
        new = wrap(text, self.columns)
        self._wrapped.extend((self._number, row) for row in new)
        while self._wrapped[0][0] < self.lines[0][0]:
            self._wrapped.popleft()
        if self._below:
            self.scroll(len(new))

    def resize(self, columns: int, rows: int) -> None:
        """The lowest line that is shown stays the lowest."""
        lowest = self._wrapped[-1 - self._below][0] if self._below else self._number
        self.columns, self.rows = max(1, columns), max(1, rows)
        self._wrapped = deque(
            (number, row) for number, text in self.lines for row in wrap(text, self.columns)
        )
        self._below = 0
        self.scroll(sum(number > lowest for number, _ in self._wrapped))
        self.forget()

    def forget(self) -> None:
        """Nothing is on the terminal any more."""
        self._painted = []

    def scroll(self, rows: int) -> None:
        """Back, if positive, as far as there is something."""
        self._below = min(
            max(0, self._below + rows), max(0, len(self._wrapped) - max(1, self.height))
        )

    # Keys

    def feed(self, data: bytes) -> list[str]:
        """What was typed, as lines that are complete; b"" when the terminal is gone. Raises
        KeyboardInterrupt.
        """
        self.has_ended |= not data
        done = []
        for key in self.keys.feed(data):
            if key == "enter":
                self._below = 0
                done.append(self.editor.take())
            elif action := ACTIONS.get(key):
                action(self)
            elif len(key) == 1:
                self.editor.insert(key)
        return done

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def _end(self) -> None:
        """Ctrl-D ends the input on an empty line, and deletes in another one, as in a shell."""
        if self.editor.cells:
            self.editor.delete(self.editor.at, self.editor.at + 1)
        else:
            self.has_ended = True

    # Painting

    def paint(self) -> None:
        """Bring the terminal up to date."""
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
        """All but the one that is typed in."""
        last = len(self._wrapped) - self._below
        said = [self._wrapped[i][1] for i in range(max(0, last - self.height), last)]
        rows = [*said, *[""] * (self.height - len(said))]
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
