"""The file of a dictionary: words and their translations, in one of the forms in which people have
them.

    colon     word:translation          the first colon separates; a translation may have more of them
    tab       word<TAB>translation
    csv       word,translation          RFC 4180, quotes where they are needed, one line an entry
    cedict    繁體 简体 [pin1 yin1] /gloss/gloss/    CC-CEDICT: both writings are words; several entries of one are joined

UTF-8, with or without a byte order mark; empty lines and those that start with # are passed over.

Facts. A word that stands twice is a mistake of whoever wrote the file, except in CC-CEDICT, where
readings have a line each. A textbook server reads from the top and stops at the first match.
Decision: the first one counts, and each further one is reported with both line numbers. Anything
that is no entry is an error with its line, and a file with an error is not used at all: half a
dictionary answers `unknown` to what it should know.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fastnet.errors import ConfigError, printable, reason
from fastnet.limits import (
    DICTIONARY_FILE_BYTES_MAX,
    DICTIONARY_REPORTED_MAX,
    DICTIONARY_TRANSLATION_BYTES_MAX,
    DICTIONARY_WORD_BYTES_MAX,
)

AUTO = "auto"
SAMPLE_LINES = 50
"""Entries that are looked at to tell the form of a file."""

BLANKS = " \t\r"
CEDICT = re.compile(r"(\S+) (\S+) \[([^]]*)\] /(.+)/")

Row = tuple[int, str, str]
"""Line number, word, translation."""

Faults = list[tuple[int, str]]
"""Line numbers, and what is wrong there."""

Stamp = tuple[int, ...] | None
"""What changes when a file does; None when there is none."""


@dataclass(frozen=True)
class Dictionary:
    """What a file says, as the bytes of UTF-8. twice: words that stood there before, the line of
    each and of its first.
    """

    entries: dict[bytes, bytes]
    format: str
    twice: list[tuple[str, int, int]] = field(default_factory=list)
    twice_count: int = 0


def separated(by: str) -> Callable[[list[str], Faults], Iterator[Row]]:
    """The rows of a form in which the first such character separates."""

    def rows(lines: list[str], faults: Faults) -> Iterator[Row]:
        for number, line in enumerate(lines, 1):
            word, found, translation = line.partition(by)
            if found:
                yield number, word.strip(BLANKS), translation.strip(BLANKS)
            elif line.strip(BLANKS):
                faults.append((number, f"no {NAMES.get(by, repr(by))} in {shown(line)}"))

    return rows


NAMES = {"\t": "tab", ":": "colon"}


def comma_separated(lines: list[str], faults: Faults) -> Iterator[Row]:
    # An entry is one line, so lines are read one by one: a quote that is never closed is an error
    # there and not at the end.
    for number, line in enumerate(lines, 1):
        if not line.strip(BLANKS):
            continue
        try:
            (cells,) = csv.reader([line.strip(BLANKS)], strict=True, skipinitialspace=True)
        except csv.Error as error:
            faults.append((number, f"{error} in {shown(line)}"))
            continue
        if len(cells) == 2:
            yield number, cells[0].strip(BLANKS), cells[1].strip(BLANKS)
        else:
            faults.append((number, f"{len(cells)} columns instead of 2 in {shown(line)}"))


def cedict(lines: list[str], faults: Faults) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        match = CEDICT.fullmatch(line.strip(BLANKS))
        if match:
            traditional, simplified, reading, glosses = match.groups()
            translation = f"[{reading}] {glosses.replace('/', '; ')}"
            yield number, traditional, translation
            if simplified != traditional:
                yield number, simplified, translation
        elif line.strip(BLANKS):
            faults.append((number, f"no CC-CEDICT entry: {shown(line)}"))


@dataclass(frozen=True)
class Form:
    """rows: the entries of a file's lines. looks: whether a line may be one. joins: a word may have
    several entries.
    """

    rows: Callable[[list[str], Faults], Iterator[Row]]
    looks: Callable[[str], object]
    joins: bool = False


def before_colon(character: str) -> Callable[[str], bool]:
    """Whether a character is there, and no colon before it: translations have all of them."""
    return lambda line: character in line.strip(BLANKS).partition(":")[0]


def looks_like_csv(line: str) -> bool:
    return line.startswith('"') or before_colon(",")(line)


FORMATS = {
    "cedict": Form(cedict, lambda line: CEDICT.fullmatch(line.strip(BLANKS)), joins=True),
    "tab": Form(separated("\t"), before_colon("\t")),
    "csv": Form(comma_separated, looks_like_csv),
    "colon": Form(separated(":"), lambda line: ":" in line),
}
"""In the order in which a file is compared with them: the pickier first."""


def shown(line: str) -> str:
    text = printable(line.strip(BLANKS))
    return repr(text[:40] + "..." if len(text) > 40 else text)


def stamp(path: str) -> Stamp:
    """What changes when the file does."""
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def load(path: str, format: str = AUTO) -> Dictionary:
    """Read a file. Raises ConfigError, which says in which lines it is broken."""
    text = decode(read(path), path)
    lines = ["" if line.startswith("#") else line for line in text.split("\n")]
    name = look(lines, path) if format == AUTO else format
    form, faults = FORMATS[name], Faults()
    entries, twice = collect(form, lines, faults)
    if faults:
        raise broken(path, name, faults)
    if not entries:
        raise ConfigError(f"{path} has no words", "Write word:translation, an entry a line")
    return Dictionary(
        entries, name, first_lines(form, lines, twice[:DICTIONARY_REPORTED_MAX]), len(twice)
    )


def read(path: str) -> bytes:
    """All of a file. Raises ConfigError."""
    try:
        # a FIFO must not make us wait
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return read_all(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {reason(error)}", "Name a text file that this user may read"
        ) from error


def read_all(fd: int, path: str) -> bytes:
    """One that changes meanwhile would be half the old and half the new."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file", "Name a text file")
    if found.st_size > DICTIONARY_FILE_BYTES_MAX:
        raise ConfigError(f"{path} is too large", f"At most {DICTIONARY_FILE_BYTES_MAX} bytes")
    with open(fd, "rb", closefd=False) as file:
        data = file.read()
    if stamp_of(os.fstat(fd)) != stamp_of(found):
        raise ConfigError(
            f"{path} changed while it was read", "Write the new file beside it and rename it"
        )
    return data


def decode(data: bytes, path: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark, and the mark is on the first line anyway.
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8", f"iconv -t UTF-8 {path} makes it so"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(
            f"{path}, line {line}: a NUL character", "A text on the wire ends at the first one"
        )
    return text


def look(lines: Iterable[str], path: str) -> str:
    """The form that half of the first entries have, or more. Raises ConfigError."""
    sample = [line for line, _ in zip(filter(str.strip, lines), range(SAMPLE_LINES), strict=False)]
    for name, form in FORMATS.items():
        if sample and sum(1 for line in sample if form.looks(line)) * 2 >= len(sample):
            return name
    if not sample:
        return "colon"
    raise ConfigError(
        f"cannot tell the format of {path}", f"Say --format with one of: {', '.join(FORMATS)}"
    )


def collect(
    form: Form, lines: list[str], faults: Faults
) -> tuple[dict[bytes, bytes], list[tuple[str, int]]]:
    """The entries, and those that stood there before, with their lines."""
    entries: dict[bytes, bytes] = {}
    twice: list[tuple[str, int]] = []
    for number, word, translation in form.rows(lines, faults):
        key, value = word.encode(), translation.encode()
        if key in entries:
            if form.joins:
                value = entries[key] + b" | " + value
                entries[key] = value
            else:
                twice.append((word, number))
        else:
            entries[key] = value
        if (
            not key
            or not value
            or len(key) > DICTIONARY_WORD_BYTES_MAX
            or len(value) > DICTIONARY_TRANSLATION_BYTES_MAX
        ):
            faults.append((number, unfit(key, value)))
    return entries, twice


def unfit(word: bytes, translation: bytes) -> str:
    """Why an entry is none."""
    if not word:
        return "the word is missing"
    if not translation:
        return f"the translation of {shown(word.decode())} is missing"
    if len(word) > DICTIONARY_WORD_BYTES_MAX:
        return f"a word of {len(word)} bytes, and {DICTIONARY_WORD_BYTES_MAX} are the most"
    return f"a translation of {len(translation)} bytes, and {DICTIONARY_TRANSLATION_BYTES_MAX} are the most"


def broken(path: str, format: str, faults: Faults) -> ConfigError:
    faults.sort()
    first = "; ".join(f"line {number}: {why}" for number, why in faults[:DICTIONARY_REPORTED_MAX])
    more = len(faults) - DICTIONARY_REPORTED_MAX
    rest = f"; and {more} more" if more > 0 else ""
    return ConfigError(
        f"{path}, {first}{rest}",
        f"It is read as {format}; --format chooses another: {', '.join(FORMATS)}",
    )


def first_lines(
    form: Form, lines: list[str], twice: list[tuple[str, int]]
) -> list[tuple[str, int, int]]:
    """With each word that stands twice, the line of its first."""
    wanted = {word for word, _ in twice}
    first: dict[str, int] = {}
    if wanted:
        for number, word, _ in form.rows(lines, []):
            if word in wanted:
                first.setdefault(word, number)
    return [(word, number, first[word]) for word, number in twice]
