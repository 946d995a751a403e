"""Screen of the chat client on a terminal in memory (pyte)."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat.ui.layout import Editor, cells, width, wrap
from fastnet.apps.chat.ui.screen import ACTIONS, CONTROL_KEYS, SEQUENCE_KEYS, KeyDecoder, Screen
from fastnet.apps.chat.wire import sanitize
from fastnet.limits import CHAT_INPUT_CHARACTERS_MAX, CHAT_SCROLL_LINES, CHAT_TEXT_BYTES_MAX

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=120).map(sanitize)


class MemoryTerminal:
    """A screen on a terminal in memory."""

    def __init__(self, columns: int = 40, rows: int = 8) -> None:
        self.pyte_screen = pyte.Screen(columns, rows)
        self.pyte_screen.reset_mode(pyte.modes.DECAWM >> 5, private=True)
        self.stream = pyte.ByteStream(self.pyte_screen)
        self.suspended = 0
        self.screen = Screen(lambda: "status", self.stream.feed, self.suspend)
        self.screen.resize(columns, rows)

    def suspend(self) -> None:
        self.suspended += 1

    def resize(self, columns: int, rows: int) -> None:
        self.pyte_screen.resize(rows, columns)
        self.pyte_screen.erase_in_display(2)
        self.screen.resize(columns, rows)

    @property
    def rows(self) -> list[str]:
        self.screen.paint()
        return [row.rstrip() for row in self.pyte_screen.display]

    def messages(self) -> list[str]:
        return self.rows[:-2]


@pytest.fixture
def terminal() -> MemoryTerminal:
    return MemoryTerminal()


def test_messages_are_above_the_status_line_and_input_is_below(terminal: MemoryTerminal) -> None:
    terminal.screen.feed(b"hel")
    terminal.screen.add("bob: one")
    assert terminal.rows == ["bob: one", "", "", "", "", "", " status", "> hel"]
    terminal.screen.add("bob: two")
    assert terminal.screen.feed(b"lo\r") == ["hello"]
    assert terminal.rows == ["bob: one", "bob: two", "", "", "", "", " status", ">"]


def test_the_cursor_is_at_the_insertion_point(terminal: MemoryTerminal) -> None:
    terminal.screen.feed("a日é".encode())
    terminal.screen.add("x" * 200)
    assert terminal.rows[-1] == "> a日é"
    assert (terminal.pyte_screen.cursor.y, terminal.pyte_screen.cursor.x) == (7, len("> ") + 4)
    terminal.screen.feed(b"\x1b[D\x1b[D")
    terminal.screen.paint()
    assert terminal.pyte_screen.cursor.x == len("> ") + 1


def test_a_long_line_is_wrapped_at_blanks_and_nothing_is_lost(terminal: MemoryTerminal) -> None:
    text = "bob: " + "word " * 15
    terminal.screen.add(text)
    assert "".join(f"{row} " for row in terminal.messages() if row).split() == text.split()
    assert all(row.endswith("word") for row in terminal.messages() if row)


def test_new_lines_do_not_move_rows_that_were_scrolled_to(terminal: MemoryTerminal) -> None:
    for i in range(30):
        terminal.screen.add(f"{i}")
    assert terminal.messages() == [f"{i}" for i in range(24, 30)]
    terminal.screen.feed(b"\x1b[5~")
    assert terminal.messages() == [f"{i}" for i in range(19, 25)]
    terminal.screen.add("new")
    assert terminal.messages() == [f"{i}" for i in range(19, 25)]
    assert terminal.rows[-2] == " 6 rows below, PageDown | status"
    terminal.screen.feed(b"\x1b[A\x1b[B\x1b[6~\x1b[6~")
    assert terminal.messages()[-1] == "new"
    for _ in range(20):
        terminal.screen.feed(b"\x1b[5;5~")
    assert terminal.messages()[0] == "0"
    assert terminal.screen.feed(b"back\r") == ["back"]
    assert terminal.messages()[-1] == "new"


def test_the_number_of_lines_is_bounded_and_the_oldest_is_dropped(terminal: MemoryTerminal) -> None:
    for i in range(CHAT_SCROLL_LINES + 500):
        terminal.screen.add(f"{i} " + "x" * 50)
    assert len(terminal.screen.lines) == CHAT_SCROLL_LINES
    assert len(terminal.screen._wrapped) == 3 * CHAT_SCROLL_LINES
    for _ in range(CHAT_SCROLL_LINES):
        terminal.screen.feed(b"\x1b[5~")
    assert terminal.messages()[0] == "500"


def test_resizing_keeps_the_visible_lines_and_the_input(terminal: MemoryTerminal) -> None:
    for i in range(40):
        terminal.screen.add(f"line {i} " + "y" * 60)
    terminal.screen.feed(b"typed\x1b[5~\x1b[5~")
    lowest = terminal.screen._wrapped[-1 - terminal.screen._below][0]
    for columns, rows in ((20, 12), (100, 30), (40, 8)):
        terminal.resize(columns, rows)
        assert terminal.screen._wrapped[-1 - terminal.screen._below][0] == lowest
        assert terminal.rows[-1] == "> typed"
    terminal.screen.feed(b"\r")
    terminal.resize(30, 5)
    assert "y" in terminal.messages()[-1]


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_no_terminal_is_too_small(columns: int, rows: int) -> None:
    terminal = MemoryTerminal(columns, rows)
    for i in range(5):
        terminal.screen.add(f"bob: {i} 日本語")
        terminal.screen.feed("typed 日本\x1b[5~".encode())
        assert len(terminal.rows) == rows
    terminal.resize(80, 24)
    assert terminal.rows[-1].startswith("> typed")


def test_a_full_row_keeps_its_last_character() -> None:
    terminal = MemoryTerminal(10, 4)
    terminal.screen.add("0123456789")
    assert terminal.rows[0] == "0123456789"


def test_only_changed_rows_are_painted(terminal: MemoryTerminal) -> None:
    for i in range(6):
        terminal.screen.add(f"{i}")
    terminal.screen.paint()
    written: list[bytes] = []
    terminal.screen.write = written.append
    terminal.screen.paint()
    terminal.screen.feed(b"x")
    terminal.screen.paint()
    assert [data.count(b"\x1b[2K") for data in written] == [0, 1]
    terminal.screen.feed(b"\x0c")
    terminal.screen.paint()
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
def test_input_and_status_stay_at_the_bottom_for_any_steps(
    steps: list[tuple[str, object]],
) -> None:
    terminal = MemoryTerminal()
    for kind, value in steps:
        try:
            if kind == "add":
                terminal.screen.add(str(value))
            elif kind == "feed":
                terminal.screen.feed(bytes(value))  # type: ignore[call-overload]
            elif kind == "key":
                terminal.screen.feed(f"\x1b[{value}".encode())
            else:
                terminal.resize(*value)  # type: ignore[misc]
        except KeyboardInterrupt:
            pass
        rows = terminal.rows
        if terminal.screen.columns > 12 and terminal.screen.rows > 2:
            assert rows[-1].startswith(">")
            assert "status" in rows[-2] or "rows below" in rows[-2]
        assert terminal.pyte_screen.cursor.y == terminal.screen.rows - 1


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
def test_character_widths_are_those_of_terminals(text: str, columns: int) -> None:
    assert width(text) == columns


def test_a_cell_is_never_cut() -> None:
    text = "e\u0301" * 10
    assert cells(text) == ["e\u0301"] * 10
    assert wrap(text, 4) == ["e\u0301" * 4, "e\u0301" * 4, "e\u0301" * 2]


# Typing


def typed(data: bytes) -> str:
    terminal = MemoryTerminal()
    terminal.screen.feed(data)
    return terminal.screen.editor.text


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
        (b"wrong\x15hello", "hello"),
        (b"hello word\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x0b", "hello"),
        (b"hello\x1b[D\x04", "hell"),
        ("日本\x7f".encode(), "日"),
        (b"e\xcc\x81\x7f", ""),
        (b"\x1b[200~a\x1b[1;5Cb\x1b[99zc", "abc"),
        (b"a\x1bb\x1b\x1b[Dc", "acb"),
        (b"a\x00\x07\x9b\xffb", "a\ufffd\ufffdb"),
        (b"a\tb", "a b"),
    ],
)
def test_keys_edit_the_input_line(keys: bytes, text: str) -> None:
    assert typed(keys) == text


@given(
    st.lists(
        st.sampled_from(["a", "日", "é", "\x1b[D", "\x1b[5~", "\x1bOH", "\x7f", "\x1b[3~", "\r"])
    ),
    st.data(),
)
def test_keys_are_decoded_alike_however_their_bytes_are_split(
    keys: list[str], data: st.DataObject
) -> None:
    whole = "".join(keys).encode()
    expected = KeyDecoder().feed(whole)
    decoder, found = KeyDecoder(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += decoder.feed(whole[:size])
        whole = whole[size:]
    assert found == expected


def test_ctrl_c_interrupts_ctrl_d_ends_and_ctrl_z_suspends(terminal: MemoryTerminal) -> None:
    with pytest.raises(KeyboardInterrupt):
        terminal.screen.feed(b"\x03")
    terminal.screen.feed(b"x\x04")
    assert not terminal.screen.has_input_ended
    terminal.screen.feed(b"\x7f\x04")
    assert terminal.screen.has_input_ended
    terminal.screen.feed(b"\x1a")
    assert terminal.suspended == 1


def test_a_terminal_that_hangs_up_ends_the_input(terminal: MemoryTerminal) -> None:
    assert terminal.screen.feed(b"") == []
    assert terminal.screen.has_input_ended


def test_the_length_of_an_input_line_is_bounded() -> None:
    editor = Editor()
    for _ in range(CHAT_INPUT_CHARACTERS_MAX + 100):
        editor.insert("x")
    assert len(editor.text) == CHAT_INPUT_CHARACTERS_MAX > CHAT_TEXT_BYTES_MAX


def test_a_long_input_line_is_displayed_around_the_cursor(terminal: MemoryTerminal) -> None:
    terminal.screen.feed("".join(chr(ord("a") + i % 26) for i in range(100)).encode())
    assert terminal.rows[-1].endswith("uv")
    assert terminal.pyte_screen.cursor.x == 39
    terminal.screen.feed(b"\x01")
    assert terminal.rows[-1].startswith("> abc")
    assert terminal.pyte_screen.cursor.x == 2


def test_every_key_has_an_action() -> None:
    assert {*SEQUENCE_KEYS.values(), *CONTROL_KEYS.values()} == {*ACTIONS, "enter"}
