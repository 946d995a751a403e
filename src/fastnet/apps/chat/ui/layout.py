"""Terminal text layout: character widths, line wrapping, and an edited line.

Facts. A character takes no column, one or two: none if it combines with the one before, two if East
Asian fonts draw it wide (Unicode TR 11). Terminals disagree about some, such as emoji sequences.
Decision: a character and those that combine with it are a cell, and only whole cells are cut or
deleted. In doubt a cell counts as wider, so a row is rather too short than too long.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator

from fastnet.apps.chat.wire import JOINERS
from fastnet.limits import CHAT_INPUT_CHARACTERS_MAX


def width(text: str) -> int:
    """Columns of a text."""
    return sum(map(character_width, text))


@functools.cache
def character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cells(text: str) -> list[str]:
    """The cells of a text: each a character with those that combine with it."""
    if text.isascii():
        return list(text)
    found: list[str] = []
    for character in text:
        if found and character_width(character) == 0:
            found[-1] += character
        else:
            found.append(character)
    return found


def wrap(text: str, columns: int) -> list[str]:
    """Break a text into rows of at most `columns`, at blanks if possible. At least one row."""
    if len(text) <= columns and text.isascii():
        return [text]
    found = cells(text)
    widths = list(map(width, found))
    rows, start, used, blank = [], 0, 0, 0
    for i, cell in enumerate(found):
        while used + widths[i] > columns and i > start:
            end = i if cell == " " or blank <= start else blank
            rows.append("".join(found[start:end]))
            start = end + (cell == " " and end == i)
            used = sum(widths[start:i])
        if start <= i:
            used += widths[i]
        if cell == " ":
            blank = i + 1
    return [*rows, "".join(found[start:])]


class Editor:
    """The input line."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.at = 0
        """Cursor: the next character is inserted before this cell."""

    @property
    def text(self) -> str:
        return "".join(self.cells)

    def insert(self, character: str) -> None:
        if len(self.text) >= CHAT_INPUT_CHARACTERS_MAX:
            return
        if character == "\t":
            character = " "
        if not character.isprintable() and character not in JOINERS:
            return
        if character_width(character) == 0 and self.at:
            self.cells[self.at - 1] += character
            return
        self.cells.insert(self.at, character)
        self.at += 1

    def delete(self, start: int, end: int) -> None:
        """Delete cells from start up to end, counted from the beginning of the line."""
        start, end = max(0, start), min(end, len(self.cells))
        if start < end:
            del self.cells[start:end]
            self.at = start

    def move(self, at: int) -> None:
        self.at = min(max(0, at), len(self.cells))

    def word_start(self) -> int:
        """Where the word before the cursor begins."""
        at = self.at
        while at and self.cells[at - 1] == " ":
            at -= 1
        while at and self.cells[at - 1] != " ":
            at -= 1
        return at

    def take_line(self) -> str:
        """Returns the line and empties it."""
        text = self.text
        self.cells, self.at = [], 0
        return text

    def view(self, columns: int) -> tuple[str, int]:
        """The part around the cursor that fits `columns`, and the cursor's column in it."""
        start, used = self.at, 0
        for cell in reversed(self.cells[: self.at]):
            if used + width(cell) >= columns:
                break
            used += width(cell)
            start -= 1
        shown = "".join(fitting(self.cells[start:], columns))
        return shown, used


def fitting(found: list[str], columns: int) -> Iterator[str]:
    """The first cells, up to `columns`."""
    for cell in found:
        columns -= width(cell)
        if columns < 0:
            return
        yield cell
