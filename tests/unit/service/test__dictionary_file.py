"""Every form of a dictionary's file, and what is wrong with one, by line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.errors import ConfigError
from fastnet.limits import (
    DICTIONARY_REPORTED_MAX,
    DICTIONARY_TRANSLATION_BYTES_MAX,
    DICTIONARY_WORD_BYTES_MAX,
)
from fastnet.service._dictionary_file import FORMATS, load


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "words"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def words(path: str, format: str = "auto") -> dict[str, str]:
    return {
        word.decode(): translation.decode()
        for word, translation in load(path, format).entries.items()
    }


FILES = {
    "colon": (
        "# animals\ncat:Katze: das Tier\r\n\n  dog : Hund  \n猫:ねこ",
        {"cat": "Katze: das Tier", "dog": "Hund", "猫": "ねこ"},
    ),
    "tab": (
        "cat\tKatze\tund mehr\n#no\ttab\na b\tc:d,e\n",
        {"cat": "Katze\tund mehr", "a b": "c:d,e"},
    ),
    "csv": (
        'cat,Katze\n"a, b","c ""d"": e"\nx , y\n',
        {"cat": "Katze", "a, b": 'c "d": e', "x": "y"},
    ),
    "cedict": (
        "# CC-CEDICT\n貓 猫 [mao1] /cat/CL:隻|只[zhi1]/\n好 好 [hao3] /good/\n"
        "好 好 [hao4] /to be fond of/\n",
        {
            "貓": "[mao1] cat; CL:隻|只[zhi1]",
            "猫": "[mao1] cat; CL:隻|只[zhi1]",
            "好": "[hao3] good | [hao4] to be fond of",
        },
    ),
}


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_read_in_its_form_asked_for_or_by_its_looks(format, file) -> None:
    text, expected = FILES[format]
    assert words(file(text), format) == expected
    found = load(file(text))
    assert found.format == format
    assert words(file(text)) == expected


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("cat:Katze\tund Kater\n", "colon"),
        ("cat:Katze, Kater\n", "colon"),
        ("a:b\nhello, world:welcome\nc:d\n", "colon"),
        ("cat\tKatze: das Tier, auch Kater\n", "tab"),
        ("cat,Katze: das Tier\n", "csv"),
        ('"12:30","half past twelve"\n', "csv"),
    ],
    ids=range(6),
)
def test_looks_go_by_what_comes_first_in_a_line(file, text, format) -> None:
    assert load(file(text)).format == format


def test_a_byte_order_mark_is_no_part_of_the_first_word(file) -> None:
    assert words(file(b"\xef\xbb\xbfcat:Katze\n")) == {"cat": "Katze"}


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_only_a_newline_ends_a_line(file, mark) -> None:
    assert words(file(f"cat:Katze{mark}und Kater\ndog:Hund\n")) == {
        "cat": f"Katze{mark}und Kater",
        "dog": "Hund",
    }


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        (
            "cat:Katze\ndog\n\nbird\n",
            "colon",
            "line 2: no colon in 'dog'; line 4: no colon in 'bird'",
        ),
        ("cat:Katze\n:Hund\n", "auto", "line 2: the word is missing"),
        ("cat:Katze\ndog: \n", "auto", "line 2: the translation of 'dog' is missing"),
        ("cat\tKatze\ndog Hund\n", "tab", "line 2: no tab in 'dog Hund'"),
        ('cat,Katze\n"dog,Hund\n', "csv", "line 2: unexpected end of data in"),
        ("cat,Katze\na,b,c\n", "auto", "line 2: 3 columns instead of 2 in 'a,b,c'"),
        (
            "貓 猫 [mao1] /cat/\n狗 [gou3] /dog/\n",
            "cedict",
            "line 2: no CC-CEDICT entry: '狗 [gou3] /dog/'",
        ),
        (b"cat:Katze\ndog:H\xfcnd\n", "auto", "line 2: not UTF-8. iconv"),
        ("cat:Katze\ndog:Hu\0nd\n", "auto", "line 2: a NUL character"),
        (
            "x" * (DICTIONARY_WORD_BYTES_MAX + 1) + ":y",
            "auto",
            "line 1: a word of 1025 bytes, and 1024 are the most",
        ),
        (
            "x:" + "y" * (DICTIONARY_TRANSLATION_BYTES_MAX + 1),
            "auto",
            "line 1: a translation of 32769 bytes",
        ),
        ("", "auto", "has no words"),
        ("# nothing\n\n", "auto", "has no words"),
        ("just\nsome\ntext\n", "auto", "cannot tell the format"),
        ("a:\x1b[2J", "tab", r"no tab in 'a:\x1b[2J'"),
    ],
    ids=range(15),
)
def test_what_is_wrong_is_said_with_its_line_and_nothing_is_used(
    file, text, format, message
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(file(text), format)
    assert message in str(raised.value).replace("\\\\", "\\")


def test_many_broken_lines_are_counted_not_listed(file) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"line {DICTIONARY_REPORTED_MAX}: .*; and 990 more\. It is read as colon",
    ):
        load(file("broken\n" * 1000 + "cat:Katze\n"), "colon")


def test_first_entry_of_a_word_counts_and_later_ones_are_reported(file) -> None:
    found = load(file("cat:one\n# \ncat:two\ndog:three\ncat:four\n"))
    assert found.entries == {b"cat": b"one", b"dog": b"three"}
    assert found.duplicates == [("cat", 3, 1), ("cat", 5, 1)]
    found = load(file("cat:x\n" * 100))
    assert (len(found.duplicates), found.duplicate_count) == (DICTIONARY_REPORTED_MAX, 99)


def test_a_fifo_a_folder_and_a_missing_file_are_errors_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, message in (
        ("fifo", "not a regular file"),
        (".", "not a regular file"),
        ("none", "no such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(str(tmp_path / name))


TEXTS = st.text(
    st.characters(exclude_characters=":\t\r\n\0", exclude_categories=["Cs"]), min_size=1
).map(lambda text: text.lstrip("# \ufeff").rstrip(" "))


@given(entries=st.dictionaries(TEXTS.filter(bool), TEXTS.filter(bool), min_size=1, max_size=20))
def test_whatever_is_written_is_read_again(entries, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("words") / "file"
    for by, format in ((":", "colon"), ("\t", "tab")):
        path.write_text(
            "".join(f"{word}{by}{translation}\n" for word, translation in entries.items()),
            newline="",
        )
        assert words(str(path), format) == entries


def test_a_hundred_thousand_entries_are_read(file) -> None:
    found = load(file("".join(f"word{i}:translation {i}\n" for i in range(100_000))))
    assert len(found.entries) == 100_000
    assert found.entries[b"word99999"] == b"translation 99999"
