"""Dictionary file: words and their translations, in one of four formats.

    colon     word:translation       the first colon separates; a translation may have more
    tab       word<TAB>translation
    csv       word,translation       RFC 4180, quoted where needed, one line an entry
    cedict    繁體 简体 [pin1 yin1] /gloss/gloss/
                                     CC-CEDICT: both writings are words; several entries of one word
                                     are joined

UTF-8, with or without a byte order mark; empty lines and those that start with # are skipped.

Facts. A word with two entries is a mistake of the author, except in CC-CEDICT, where each reading
has a line. A textbook server reads from the top and stops at the first match.
Decision: the first entry counts, and each further one is reported with both line numbers. A line
that is no entry is an error with its number, and a file with an error is not used: half a
dictionary answers `unknown` to words that it should have.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastnet.errors import ConfigError, printable, reason
from fastnet.limits import (
    DICTIONARY_FILE_BYTES_MAX,
    DICTIONARY_REPORTED_MAX,
    DICTIONARY_TRANSLATION_BYTES_MAX,
    DICTIONARY_WORD_BYTES_MAX,
)
from fastnet.service.contract import Content

AUTO = "auto"
SAMPLE_LINES = 50
"""Entries from which the format of a file is detected."""

BLANKS = " \t\r"
CEDICT = re.compile(r"(\S+) (\S+) \[([^]]*)\] /(.+)/")

EntryLine = tuple[int, str, str]
"""Line number, word, translation."""

Faults = list[tuple[int, str]]
"""Line numbers, and what is wrong with each line."""


class Duplicate(NamedTuple):
    """A word with more than one entry."""

    word: str
    line: int
    first_line: int


@dataclass(frozen=True)
class DictionaryFile:
    """The content of a file."""

    entries: dict[bytes, bytes]
    """Translations by word, both in UTF-8."""
    format: str
    duplicates: list[Duplicate] = field(default_factory=list)
    """The first of the entries whose word has an earlier one."""
    duplicate_count: int = 0
    """How many there are."""


def separated(by: str) -> Callable[[list[str], Faults], Iterator[EntryLine]]:
    """A reader of the format in which the first such character separates."""

    def rows(lines: list[str], faults: Faults) -> Iterator[EntryLine]:
        for number, line in enumerate(lines, 1):
            word, found, translation = line.partition(by)
            if found:
                yield number, word.strip(BLANKS), translation.strip(BLANKS)
            elif line.strip(BLANKS):
                faults.append((number, f"no {NAMES.get(by, repr(by))} in {shown(line)}"))

    return rows


NAMES = {"\t": "tab", ":": "colon"}


def comma_separated(lines: list[str], faults: Faults) -> Iterator[EntryLine]:
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


def cedict(lines: list[str], faults: Faults) -> Iterator[EntryLine]:
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
class Format:
    """How entries are written."""

    rows: Callable[[list[str], Faults], Iterator[EntryLine]]
    """Parses the lines of a file; appends to the faults."""
    matches: Callable[[str], object]
    """Whether a line may be an entry of this format."""
    joins: bool = False
    """Whether the translations of several entries of one word are joined."""


def before_colon(character: str) -> Callable[[str], bool]:
    """Matches lines that have the character before their first colon."""
    return lambda line: character in line.strip(BLANKS).partition(":")[0]


def looks_like_csv(line: str) -> bool:
    return line.startswith('"') or before_colon(",")(line)


FORMATS = {
    "cedict": Format(cedict, lambda line: CEDICT.fullmatch(line.strip(BLANKS)), joins=True),
    "tab": Format(separated("\t"), before_colon("\t")),
    "csv": Format(comma_separated, looks_like_csv),
    "colon": Format(separated(":"), lambda line: ":" in line),
}
"""In the order in which a file is compared with them: the stricter first."""


def shown(line: str) -> str:
    text = printable(line.strip(BLANKS))
    return repr(text[:40] + "..." if len(text) > 40 else text)


def load_dictionary(settings: Mapping[str, Any]) -> Content:
    """Load the file of a dictionary service, with the lines to log. Raises ConfigError."""
    path = settings["file"]
    found = load(path, settings["format"])
    notes = [(logging.INFO, f"{path}: {len(found.entries)} words ({found.format})")]
    for word, line, first_line in found.duplicates:
        text = f"{path}, line {line}: {word!r} is on line {first_line} already, which counts"
        notes.append((logging.WARNING, text))
    more = found.duplicate_count - len(found.duplicates)
    if more > 0:
        notes.append((logging.WARNING, f"{path}: and {more} more words with an earlier entry"))
    return Content(found.entries, notes)


def load(path: str, format: str = AUTO) -> DictionaryFile:
    """Read and parse a file. Raises ConfigError with the numbers of its invalid lines."""
    text = decode(read(path), path)
    lines = ["" if line.startswith("#") else line for line in text.split("\n")]
    name = detect_format(lines, path) if format == AUTO else format
    form, faults = FORMATS[name], Faults()
    entries, repeated = collect(form, lines, faults)
    if faults:
        raise broken(path, name, faults)
    if not entries:
        raise ConfigError(f"{path} has no words", "Write word:translation, an entry a line")
    return DictionaryFile(
        entries,
        name,
        find_duplicates(form, lines, repeated[:DICTIONARY_REPORTED_MAX]),
        len(repeated),
    )


def read(path: str) -> bytes:
    """The bytes of a file. Raises ConfigError."""
    try:
        # non-blocking, because the path may be a FIFO
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
    """The bytes of an open file. Raises ConfigError if it changed meanwhile or is too large."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file", "Name a text file")
    if found.st_size > DICTIONARY_FILE_BYTES_MAX:
        raise ConfigError(f"{path} is too large", f"At most {DICTIONARY_FILE_BYTES_MAX} bytes")
    with open(fd, "rb", closefd=False) as file:
        data = file.read()
    if version(os.fstat(fd)) != version(found):
        raise ConfigError(
            f"{path} changed while it was read", "Write the new file beside it and rename it"
        )
    return data


def version(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def decode(data: bytes, path: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from after the mark, and the mark is on the first line anyway
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


def detect_format(lines: Iterable[str], path: str) -> str:
    """The first format that at least half of the first entries have. Raises ConfigError."""
    sample = [line for line, _ in zip(filter(str.strip, lines), range(SAMPLE_LINES), strict=False)]
    for name, form in FORMATS.items():
        if sample and sum(1 for line in sample if form.matches(line)) * 2 >= len(sample):
            return name
    if not sample:
        return "colon"
    raise ConfigError(
        f"cannot tell the format of {path}", f"Say --format with one of: {', '.join(FORMATS)}"
    )


def collect(
    form: Format, lines: list[str], faults: Faults
) -> tuple[dict[bytes, bytes], list[tuple[str, int]]]:
    """The entries, and the words of further entries with their lines."""
    entries: dict[bytes, bytes] = {}
    repeated: list[tuple[str, int]] = []
    for number, word, translation in form.rows(lines, faults):
        key, value = word.encode(), translation.encode()
        if key in entries:
            if form.joins:
                value = entries[key] + b" | " + value
                entries[key] = value
            else:
                repeated.append((word, number))
        else:
            entries[key] = value
        if (
            not key
            or not value
            or len(key) > DICTIONARY_WORD_BYTES_MAX
            or len(value) > DICTIONARY_TRANSLATION_BYTES_MAX
        ):
            faults.append((number, unfit(key, value)))
    return entries, repeated


def unfit(word: bytes, translation: bytes) -> str:
    """Why an entry is not valid."""
    if not word:
        return "the word is missing"
    if not translation:
        return f"the translation of {shown(word.decode())} is missing"
    if len(word) > DICTIONARY_WORD_BYTES_MAX:
        return f"a word of {len(word)} bytes, and {DICTIONARY_WORD_BYTES_MAX} are the most"
    most = DICTIONARY_TRANSLATION_BYTES_MAX
    return f"a translation of {len(translation)} bytes, and {most} are the most"


def broken(path: str, format: str, faults: Faults) -> ConfigError:
    faults.sort()
    first = "; ".join(f"line {number}: {why}" for number, why in faults[:DICTIONARY_REPORTED_MAX])
    more = len(faults) - DICTIONARY_REPORTED_MAX
    rest = f"; and {more} more" if more > 0 else ""
    return ConfigError(
        f"{path}, {first}{rest}",
        f"It is read as {format}; --format chooses another: {', '.join(FORMATS)}",
    )


def find_duplicates(
    form: Format, lines: list[str], repeated: list[tuple[str, int]]
) -> list[Duplicate]:
    """Each repeated word with its line and the line of its first entry."""
    words = {word for word, _ in repeated}
    first: dict[str, int] = {}
    if words:
        for number, word, _ in form.rows(lines, []):
            if word in words:
                first.setdefault(word, number)
    return [Duplicate(word, number, first[word]) for word, number in repeated]
