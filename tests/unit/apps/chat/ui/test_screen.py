"""The screen of a chat, painted on a terminal in memory (pyte): layout, keys, scrolling and
sizes.
"""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat.ui.layout import Editor, cells, width, wrap
from fastnet.apps.chat.ui.screen import ACTIONS, CONTROLS, INTRODUCED, Keys, Screen
from fastnet.apps.chat.wire import neutral
from fastnet.limits import CHAT_INPUT_CHARACTERS_MAX, CHAT_SCROLL_LINES, CHAT_TEXT_BYTES_MAX

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=120).map(neutral)


class Glass:
    """A screen, and what somebody in front of it sees."""

    def __init__(self, columns: int = 40, rows: int = 8) -> None:
        self.glass = pyte.Screen(columns, rows)
        self.glass.reset_mode(pyte.modes.DECAWM >> 5, private=True)
        self.stream = pyte.ByteStream(self.glass)
        self.suspended = 0
        self.screen = Screen(lambda: "status", self.stream.feed, self.suspend)
        self.screen.resize(columns, rows)

    def suspend(self) -> None:
        self.suspended += 1

    def resize(self, columns: int, rows: int) -> None:
        self.glass.resize(rows, columns)
        self.glass.erase_in_display(2)
        self.screen.resize(columns, rows)

    @property
    def rows(self) -> list[str]:
        self.screen.paint()
        return [row.rstrip() for row in self.glass.display]

    def said(self) -> list[str]:
        return self.rows[:-2]


@pytest.fixture
def glass() -> Glass:
    return Glass()


def test_what_is_said_is_above_and_what_is_typed_below(glass: Glass) -> None:
    glass.screen.feed(b"hel")
    glass.screen.add("bob: one")
    assert glass.rows == ["bob: one", "", "", "", "", "", " status", "> hel"]
    glass.screen.add("bob: two")
    assert glass.screen.feed(b"lo\r") == ["hello"]
    assert glass.rows == ["bob: one", "bob: two", "", "", "", "", " status", ">"]


def test_the_cursor_is_where_the_next_character_goes(glass: Glass) -> None:
    glass.screen.feed("a日é".encode())
    glass.screen.add("x" * 200)
    assert glass.rows[-1] == "> a日é"
    assert (glass.glass.cursor.y, glass.glass.cursor.x) == (7, len("> ") + 4)
    glass.screen.feed(b"\x1b[D\x1b[D")
    glass.screen.paint()
    assert glass.glass.cursor.x == len("> ") + 1


def test_a_long_line_is_broken_at_blanks_and_none_of_it_is_lost(glass: Glass) -> None:
    text = "bob: " + "word " * 15
    glass.screen.add(text)
    assert "".join(f"{row} " for row in glass.said() if row).split() == text.split()
    assert all(row.endswith("word") for row in glass.said() if row)


def test_page_up_and_down_scroll_and_news_do_not_move_what_is_read(glass: Glass) -> None:
    for i in range(30):
        glass.screen.add(f"{i}")
    assert glass.said() == [f"{i}" for i in range(24, 30)]
    glass.screen.feed(b"\x1b[5~")
    assert glass.said() == [f"{i}" for i in range(19, 25)]
    glass.screen.add("news")
    assert glass.said() == [f"{i}" for i in range(19, 25)]
    assert glass.rows[-2] == " 6 rows below, PageDown | status"
    glass.screen.feed(b"\x1b[A\x1b[B\x1b[6~\x1b[6~")
    assert glass.said()[-1] == "news"
    for _ in range(20):
        glass.screen.feed(b"\x1b[5;5~")
    assert glass.said()[0] == "0"
    assert glass.screen.feed(b"back\r") == ["back"]
    assert glass.said()[-1] == "news"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(glass: Glass) -> None:
    for i in range(CHAT_SCROLL_LINES + 500):
        glass.screen.add(f"{i} " + "x" * 50)
    assert len(glass.screen.lines) == CHAT_SCROLL_LINES
    assert len(glass.screen._wrapped) == 3 * CHAT_SCROLL_LINES
    for _ in range(CHAT_SCROLL_LINES):
        glass.screen.feed(b"\x1b[5~")
    assert glass.said()[0] == "500"


def test_another_size_lays_out_anew_and_keeps_what_is_read_and_typed(glass: Glass) -> None:
    for i in range(40):
        glass.screen.add(f"line {i} " + "y" * 60)
    glass.screen.feed(b"typed\x1b[5~\x1b[5~")
    lowest = glass.screen._wrapped[-1 - glass.screen._below][0]
    for columns, rows in ((20, 12), (100, 30), (40, 8)):
        glass.resize(columns, rows)
        assert glass.screen._wrapped[-1 - glass.screen._below][0] == lowest
        assert glass.rows[-1] == "> typed"
    glass.screen.feed(b"\r")
    glass.resize(30, 5)
    assert "y" in glass.said()[-1]


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_no_terminal_is_too_small(columns: int, rows: int) -> None:
    glass = Glass(columns, rows)
    for i in range(5):
        glass.screen.add(f"bob: {i} 日本語")
        glass.screen.feed("typed 日本\x1b[5~".encode())
        assert len(glass.rows) == rows
    glass.resize(80, 24)
    assert glass.rows[-1].startswith("> typed")


def test_a_full_row_keeps_its_last_character() -> None:
    glass = Glass(10, 4)
    glass.screen.add("0123456789")
    assert glass.rows[0] == "0123456789"


def test_only_rows_that_changed_are_painted(glass: Glass) -> None:
    for i in range(6):
        glass.screen.add(f"{i}")
    glass.screen.paint()
    written: list[bytes] = []
    glass.screen.write = written.append
    glass.screen.paint()
    glass.screen.feed(b"x")
    glass.screen.paint()
    assert [data.count(b"\x1b[2K") for data in written] == [0, 1]
    glass.screen.feed(b"\x0c")
    glass.screen.paint()
    assert written[-1].count(b"\x1b[2K") == 8


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), TEXT),
            st.tuples(st.just("feed"), st.binary(max_size=20) | TEXT.map(str.encode)),
            st.tuples(
                st.just("key"), st.sampled_from(["5~", "6~", "A", "B", "C", "D", "H", "F", "3~"])
            ),
            st.tuples(st.just("size"), st.tuples(st.integers(1, 90), st.integers(1, 30))),
        ),
        max_size=30,
    )
)
@settings(max_examples=150)
def test_whatever_is_said_typed_and_resized_the_screen_holds_together(
    steps: list[tuple[str, object]],
) -> None:
    glass = Glass()
    for kind, value in steps:
        try:
            if kind == "add":
                glass.screen.add(str(value))
            elif kind == "feed":
                glass.screen.feed(bytes(value))  # type: ignore[call-overload]
            elif kind == "key":
                glass.screen.feed(f"\x1b[{value}".encode())
            else:
                glass.resize(*value)  # type: ignore[misc]
        except KeyboardInterrupt:
            pass
        rows = glass.rows
        if glass.screen.columns > 12 and glass.screen.rows > 2:
            assert rows[-1].startswith(">")
            assert "status" in rows[-2] or "rows below" in rows[-2]
        assert glass.glass.cursor.y == glass.screen.rows - 1


# Layout


@given(TEXT, st.integers(2, 50))
def test_no_row_is_wider_than_the_screen_and_no_word_is_lost(text: str, columns: int) -> None:
    rows = wrap(text, columns)
    assert all(width(row) <= columns for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a", 1),
        ("日", 2),
        ("é", 1),
        ("e\u0301", 1),
        ("👩\u200d", 2),
        ("한", 2),
        ("\uff71", 1),
        ("\uff21", 2),
        ("\u200c", 0),
    ],
)
def test_widths_are_those_of_terminals(text: str, columns: int) -> None:
    assert width(text) == columns


def test_a_cell_is_never_cut() -> None:
    text = "e\u0301" * 10
    assert cells(text) == ["e\u0301"] * 10
    assert wrap(text, 4) == ["e\u0301" * 4, "e\u0301" * 4, "e\u0301" * 2]


# Typing


def typed(data: bytes) -> str:
    glass = Glass()
    glass.screen.feed(data)
    return glass.screen.editor.text


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (b"helo\x1b[Dl", "hello"),
        (b"ello\x1b[Hh\x1b[F!", "hello!"),
        (b"ello\x1bOHh\x1bOF!", "hello!"),
        (b"ello\x01h\x05!", "hello!"),
        (b"hellox\x7f", "hello"),
        (b"hello\x1b[D\x1b[3~", "hell"),
        (b"one two three\x17", "one two "),
        (b"one two  \x17", "one "),
        (b"junk\x15hello", "hello"),
        (b"hello junk\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x0b", "hello"),
        (b"hello\x1b[D\x04", "hell"),
        ("日本\x7f".encode(), "日"),
        (b"e\xcc\x81\x7f", ""),
        (b"\x1b[200~a\x1b[1;5Cb\x1b[99zc", "abc"),
        (b"a\x1bb\x1b\x1b[Dc", "acb"),
        (b"a\x00\x07\x9b\xffb", "a\ufffd\ufffdb"),
        (b"a\tb", "a b"),
    ],
)
def test_keys_edit_the_line(keys: bytes, text: str) -> None:
    assert typed(keys) == text


@given(
    st.lists(
        st.sampled_from(["a", "日", "é", "\x1b[D", "\x1b[5~", "\x1bOH", "\x7f", "\x1b[3~", "\r"])
    ),
    st.data(),
)
def test_keys_are_the_same_however_they_are_cut(keys: list[str], data: st.DataObject) -> None:
    whole = "".join(keys).encode()
    expected = Keys().feed(whole)
    pieces, found = Keys(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += pieces.feed(whole[:size])
        whole = whole[size:]
    assert found == expected


def test_ctrl_c_interrupts_ctrl_d_ends_and_ctrl_z_suspends(glass: Glass) -> None:
    with pytest.raises(KeyboardInterrupt):
        glass.screen.feed(b"\x03")
    glass.screen.feed(b"x\x04")
    assert not glass.screen.has_ended
    glass.screen.feed(b"\x7f\x04")
    assert glass.screen.has_ended
    glass.screen.feed(b"\x1a")
    assert glass.suspended == 1


def test_the_end_of_a_terminal_is_the_end_of_input(glass: Glass) -> None:
    assert glass.screen.feed(b"") == []
    assert glass.screen.has_ended


def test_a_line_that_is_typed_has_an_end() -> None:
    editor = Editor()
    for _ in range(CHAT_INPUT_CHARACTERS_MAX + 100):
        editor.insert("x")
    assert len(editor.text) == CHAT_INPUT_CHARACTERS_MAX > CHAT_TEXT_BYTES_MAX


def test_a_long_line_shows_what_is_around_the_cursor(glass: Glass) -> None:
    glass.screen.feed("".join(chr(ord("a") + i % 26) for i in range(100)).encode())
    assert glass.rows[-1].endswith("uv")
    assert glass.glass.cursor.x == 39
    glass.screen.feed(b"\x01")
    assert glass.rows[-1].startswith("> abc")
    assert glass.glass.cursor.x == 2


def test_no_key_has_an_unknown_meaning() -> None:
    assert {*INTRODUCED.values(), *CONTROLS.values()} == {*ACTIONS, "enter"}
