"""`fastnet recv --ask` on a terminal: yes, no, and a sender that closes before the answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_process import Running, running
from tests.support.connect_peers import read_until

QUESTION = b"Take them? [y/N] "


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The keyboard's end, and the end that a process reads."""
    keyboard, fd = os.openpty()
    yield keyboard, fd
    os.close(keyboard)
    os.close(fd)


def asking(inbox: Path, fd: int) -> Running:
    return running("recv", "--listen", 0, "--into", inbox, "--ask", stdin=fd)


@pytest.mark.parametrize(
    ("answer", "codes"),
    [(b"y\n", (0, 0)), (b"n\n", (5, 5)), (b"\x04", (5, 5))],
    ids=["y", "n", "^D"],
)
def test_the_answer_counts(terminal, tmp_path: Path, answer: bytes, codes: tuple[int, int]) -> None:
    keyboard, fd = terminal
    (tmp_path / "file").write_bytes(b"content")
    with asking(tmp_path / "inbox", fd) as receiver:
        with running("send", tmp_path / "file", receiver.endpoint()) as sender:
            read_until(receiver.process.stderr.fileno(), QUESTION)
            os.write(keyboard, answer)
            assert (sender.end(None)[0], receiver.end(None)[0]) == codes
    assert (tmp_path / "inbox" / "file").exists() == (codes == (0, 0))


def test_the_question_shows_what_would_come(terminal, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    (tmp_path / "folder" / "link").symlink_to("file")
    with asking(tmp_path / "inbox", terminal[1]) as receiver:
        with running("send", tmp_path / "folder", receiver.endpoint()) as sender:
            shown = read_until(receiver.process.stderr.fileno(), QUESTION).decode()
            sender.end(signal.SIGINT)
        receiver.end(None)
    assert sorted(shown.splitlines()) == [
        "  folder/",
        "  folder/file  7 bytes",
        "  folder/link -> file",
        f"3 entries, of which 7 bytes would come. {QUESTION.decode()}",
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sender_that_goes_ends_the_question(terminal, tmp_path: Path, number: int) -> None:
    """No key is pressed."""
    (tmp_path / "file").write_bytes(b"content")
    with asking(tmp_path / "inbox", terminal[1]) as receiver:
        with running("send", tmp_path / "file", receiver.endpoint()) as sender:
            read_until(receiver.process.stderr.fileno(), QUESTION)
            sender.end(number)
        code, _, said = receiver.end(None)
    assert code == 5
    assert said.startswith("\nfastnet: tcp://127.0.0.1:")
    assert "broke the connection" in said
