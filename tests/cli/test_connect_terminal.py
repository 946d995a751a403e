"""`fastnet connect` on a terminal: the hint, q, Ctrl-D, and a server that closes."""

from __future__ import annotations

import os
import socket
import subprocess
import termios
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.apps.connect.stream import QuitLine
from tests.support.connect_peers import (
    DEADLINE_S,
    client,
    echo,
    peer,
    read_until,
    say,
    swallow,
    talk_until_enough,
)

HINT = b"q alone on a line, or Ctrl-D, ends the input"


class Terminal(NamedTuple):
    keyboard: int
    fd: int

    def type(self, text: bytes) -> None:
        os.write(self.keyboard, text)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    keyboard, fd = os.openpty()
    modes = termios.tcgetattr(fd)
    # what is read from the keyboard's side is then only what the client writes
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, modes)
    yield Terminal(keyboard, fd)
    os.close(keyboard)
    os.close(fd)


def test_the_hint_says_where_it_is_connected_and_how_to_end(terminal: Terminal) -> None:
    with peer(echo) as server, client(server.endpoint, stdin=terminal.fd) as process:
        assert process.stderr is not None
        hint = read_until(process.stderr.fileno(), b"\n")
        terminal.type(b"q\n")
        assert process.wait(DEADLINE_S) == 0
    assert hint == f"connected to {server.endpoint}; ".encode() + HINT + b"\n"


@pytest.mark.parametrize("end", [b"q\n", b"\x04"], ids=["q", "ctrl-d"])
def test_a_line_then_the_end_of_input_drains_what_the_server_still_sends(
    terminal: Terminal, end: bytes
) -> None:
    def answer_at_the_end(sock: socket.socket) -> bytes:
        received = swallow(sock)
        sock.sendall(b"all of it: " + received)
        return received

    with (
        peer(answer_at_the_end) as server,
        client(server.endpoint, stdin=terminal.fd, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        terminal.type(b"quiet\n")
        terminal.type(end)
        assert process.stdout.read() == b"all of it: quiet\n"
        assert process.wait(DEADLINE_S) == 0
    assert server.result == b"quiet\n"


def test_a_conversation_on_one_terminal_goes_both_ways(terminal: Terminal) -> None:
    with (
        peer(echo) as server,
        client(server.endpoint, stdin=terminal.fd, stdout=terminal.fd) as process,
    ):
        for word in (b"hello", b"quit is not q"):
            terminal.type(word + b"\n")
            read_until(terminal.keyboard, word + b"\r\n")
        terminal.type(b"q\n")
        assert process.wait(DEADLINE_S) == 0


def test_a_server_that_ends_first_ends_the_session_with_a_note(terminal: Terminal) -> None:
    with peer(say(b"Monday\r\n")) as server, client(server.endpoint, stdin=terminal.fd) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == b"Monday\r\n"
        assert process.wait(DEADLINE_S) == 0
        note = process.stderr.read()
    assert (
        f"{server.endpoint} closed the connection after 0 bytes sent and 8 received".encode()
        in note
    )


def test_the_terminal_is_left_blocking(terminal: Terminal) -> None:
    with (
        peer(echo) as server,
        client(server.endpoint, stdin=terminal.fd, stdout=terminal.fd) as process,
    ):
        terminal.type(b"x\n")
        read_until(terminal.keyboard, b"x\r\n")
        assert os.get_blocking(terminal.fd)
        terminal.type(b"q\n")
        assert process.wait(DEADLINE_S) == 0
    assert os.get_blocking(terminal.fd)


def test_a_stopped_terminal_does_not_stop_the_input(terminal: Terminal) -> None:
    with (
        peer(talk_until_enough) as server,
        client(server.endpoint, stdin=terminal.fd, stdout=terminal.fd) as process,
    ):
        read_until(terminal.keyboard, b"x")  # and the terminal has no reader from here on
        terminal.type(b"enough\n")
        assert server.done.wait(DEADLINE_S)
        assert process.poll() is None
    assert server.result == b"enough\n"


def test_a_terminal_that_hangs_up_ends_the_input() -> None:
    keyboard, fd = os.openpty()
    with peer(swallow) as server, client(server.endpoint, stdin=fd) as process:
        os.close(fd)
        assert process.stderr is not None
        read_until(process.stderr.fileno(), HINT)
        os.close(keyboard)
        assert process.wait(DEADLINE_S) == 0
    assert server.result == b""


def cut(text: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The text in pieces of these sizes, and the rest."""
    for size in sizes:
        yield text[:size]
        text = text[size:]
    yield text


@given(
    st.lists(st.sampled_from([b"q", b"qq", b"q ", b"", b"word", b"\rq", b"q\r"]), max_size=8).map(
        b"\n".join
    ),
    st.lists(st.integers(0, 5), max_size=12),
)
def test_the_q_line_is_found_however_the_input_is_cut(text: bytes, sizes: list[int]) -> None:
    lines = text.split(b"\n")
    expected = b""
    for number, line in enumerate(lines):
        if line in (b"q", b"q\r"):
            break
        expected += line + (b"\n" if number < len(lines) - 1 else b"")
    quit_line = QuitLine()
    sent, has_ended = b"", False
    for piece in cut(text, sizes):
        part, has_ended = quit_line.feed(piece)
        sent += part
        if has_ended:
            break
    assert sent == expected
    assert has_ended == any(line in (b"q", b"q\r") for line in lines[:-1])
