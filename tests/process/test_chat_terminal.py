"""`fastnet chat join` on a real terminal: what is seen there, and that the terminal is as before,
however the chat ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyte
import pytest

from fastnet.endpoint import Endpoint
from tests.support.chat import joined, serving, textbook
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, fastnet


class Seat:
    """Somebody at a terminal of its own, where a command runs."""

    def __init__(
        self, *words: object, columns: int = 60, rows: int = 10, shell: str = "", **environment: str
    ) -> None:
        self.keyboard, self.fd = os.openpty()
        self.glass = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.glass)
        self.bytes = b""
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.fd)
        self.process = subprocess.Popen(
            [*([sys.executable, "-c", shell] if shell else []), *fastnet(*words)],
            stdin=self.fd,
            stdout=self.fd,
            stderr=self.fd,
            env=ENVIRONMENT | {"TERM": "xterm"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns: int, rows: int) -> None:
        self.glass.resize(rows, columns)
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.glass.display]

    def read(self, patience_s: float) -> bool:
        if not select.select([self.keyboard], [], [], max(0.0, patience_s))[0]:
            return False
        data = os.read(self.keyboard, 65536)
        self.bytes += data
        self.stream.feed(data)
        return True

    def wait(self, true: Callable[[list[str]], bool]) -> None:
        """Until the screen shows what is wanted."""
        end_s = time.monotonic() + DEADLINE_S
        while not true(self.rows):
            assert self.read(end_s - time.monotonic()), f"it shows {self.rows}"

    def shows(self, *texts: str) -> None:
        self.wait(lambda rows: all(any(text in row for row in rows) for text in texts))

    def ends(self) -> int:
        """Its exit code; the terminal is as it was then."""
        end_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < end_s, self.rows
            self.read(0.05)
        while self.read(0):
            pass
        assert termios.tcgetattr(self.fd) == self.before
        for name in (b"\x1b[?1049", b"\x1b[?7", b"\x1b[?25"):
            on, off = (self.bytes.rindex(name + end) for end in (b"h", b"l"))
            assert off > on if name == b"\x1b[?1049" else on > off
        return self.process.returncode

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)
        os.close(self.fd)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as (_, endpoint):
        yield endpoint


def seat(endpoint: Endpoint, *options: object, **more: Any) -> Seat:
    return Seat("chat", "join", "--server", endpoint, "--name", "ada", *options, **more)


@contextlib.contextmanager
def seated(endpoint: Endpoint) -> Iterator[Seat]:
    """Who is in already."""
    with seat(endpoint) as ada:
        ada.shows("* you are ada")
        yield ada


def test_what_others_say_never_garbles_what_is_typed(endpoint: Endpoint) -> None:
    with seated(endpoint) as ada, joined(endpoint, "bob") as bob:
        ada.shows("* you are ada", "* bob is online", f" ada on {endpoint} | 2 online")
        ada.type("half a sent")
        for i in range(15):
            bob.say(f"message {i}")
            ada.type(".")
        ada.wait(
            lambda rows: (
                rows[-1] == "> half a sent..............." and rows[-3] == "bob: message 14"
            )
        )
        assert ada.rows[:-2] == [f"bob: message {i}" for i in range(7, 15)]
        ada.type("\r")
        assert [bob.line() for _ in range(16)][-1] == "ada: half a sent..............."
        ada.shows("ada: half a sent")
        ada.wait(lambda rows: rows[-1] == ">")


def test_page_up_shows_what_was_said_and_page_down_goes_back(endpoint: Endpoint) -> None:
    with seated(endpoint) as ada, joined(endpoint, "bob") as bob:
        for i in range(20):
            bob.say(f"message {i}")
        ada.shows("bob: message 19")
        ada.type("\x1b[5~")
        ada.wait(lambda rows: rows[:-2] == [f"bob: message {i}" for i in range(5, 13)])
        ada.shows("7 rows below, PageDown")
        ada.type("\x1b[6~")
        ada.wait(lambda rows: rows[-3] == "bob: message 19")


@pytest.mark.parametrize(("columns", "rows"), [(30, 6), (100, 30), (5, 3)])
def test_another_size_of_the_window_is_obeyed_at_once(
    endpoint: Endpoint, columns: int, rows: int
) -> None:
    with seated(endpoint) as ada, joined(endpoint, "bob") as bob:
        bob.say("a message that is longer than thirty columns are wide")
        ada.shows("longer than")
        ada.type("typed")
        ada.shows("> typed")
        ada.resize(columns, rows)
        ada.wait(
            lambda shown: (
                len(shown) == rows
                and shown[-1].startswith(">")
                and shown[-1].endswith(("typed", "ed"))
            )
        )
        bob.say("news")
        ada.wait(lambda shown: "news"[: columns - 1] in "".join(shown[:-1]))
        assert all(len(row) <= columns for row in ada.rows)
        ada.type("\x15\x04")
        assert ada.ends() == 0


def test_wide_combining_and_hostile_characters_keep_their_place(endpoint: Endpoint) -> None:
    with seated(endpoint) as ada, textbook(endpoint, b"online") as nc:
        nc.send("日本語 e\u0301 👩 \u202eevil\x1b[2J\x1b]0;title\x07 end".encode())
        ada.shows("日", "end")
        (row,) = [row for row in ada.rows if "end" in row]
        assert "\ufffdevil\ufffd[2J\ufffd]0;title\ufffd end" in row
        assert ada.glass.title == ""
        ada.type("日本e\u0301\x7f\x7f語")
        ada.shows("> 日語")
        ada.wait(lambda rows: ada.glass.cursor.x == 6)


def test_commands_are_typed_like_messages(endpoint: Endpoint) -> None:
    with seat(endpoint, "--room", "ops") as ada:
        ada.shows(f" ada in ops on {endpoint} | 1 online")
        ada.type("/who\r/help\r//slash\r")
        ada.shows("* 1 online: ada", "there are /who and /quit", "ada: /slash")


@pytest.mark.parametrize(
    ("keys", "code"), [("/quit\r", 0), ("\x04", 0), ("\x03", 130)], ids=["quit", "ctrl-d", "ctrl-c"]
)
def test_whoever_leaves_gets_the_terminal_back_and_is_offline(
    endpoint: Endpoint, keys: str, code: int
) -> None:
    with joined(endpoint, "bob") as bob, seat(endpoint) as ada:
        assert bob.line("err") == "* ada is online"
        ada.shows("* you are ada")
        assert termios.tcgetattr(ada.fd) != ada.before
        ada.type(keys)
        assert ada.ends() == code
        assert bob.line("err") == "* ada is offline"


def test_what_was_typed_before_ctrl_d_is_said_first(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob, seat(endpoint) as ada:
        ada.shows("* you are ada")
        # more than may be said at once
        ada.type("".join(f"line {i}\r" for i in range(25)) + "\x04")
        assert ada.ends() == 0
        assert [bob.line() for _ in range(25)] == [f"ada: line {i}" for i in range(25)]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_a_signal_gives_the_terminal_back(endpoint: Endpoint, number: int, code: int) -> None:
    with seat(endpoint) as ada:
        ada.shows("* you are ada")
        ada.process.send_signal(number)
        assert ada.ends() == code


def test_a_server_that_is_killed_leaves_the_terminal_as_it_was_and_a_sentence_on_it() -> None:
    with serving() as (server, endpoint), seat(endpoint, "--timeout", "3") as ada:
        ada.shows("* you are ada")
        ada.type("hello\r")
        ada.shows("ada: hello")
        server.end(signal.SIGKILL)
        ada.type("anybody?\r")
        ada.shows("1 to be sent")
        assert ada.ends() == 4
        after = ada.bytes.rpartition(b"\x1b[?1049l")[2].decode()
        assert "no answer within 3 s; 1 message was not taken" in after


def test_a_name_that_is_taken_leaves_the_terminal_as_it_was(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada"), seat(endpoint) as second:
        assert second.ends() == 5
        assert b"somebody is ada already" in second.bytes.rpartition(b"\x1b[?1049l")[2]


def test_a_terminal_that_hangs_up_ends_the_chat(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob:
        ada = seat(endpoint)
        ada.shows("* you are ada")
        os.close(ada.fd)
        os.close(ada.keyboard)
        assert ada.process.wait(DEADLINE_S) == 0
        assert bob.line("err") == "* ada is online"
        assert bob.line("err") == "* ada is offline"


SHELL = """
import os, signal, subprocess, sys

def in_front():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)

signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], preexec_fn=in_front)
os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpid())
print("stopped", flush=True)
input()
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1]))
"""
"""What a shell does with a job: without one there is nobody who could let it go on, and the kernel
stops it not at all."""


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob, seat(endpoint, shell=SHELL) as ada:
        ada.shows("* you are ada")
        ada.type("typed\x1a")
        ada.shows("stopped")
        assert termios.tcgetattr(ada.fd) == ada.before
        bob.say("meanwhile")
        assert bob.line() == "bob: meanwhile"
        ada.type("\n")
        ada.shows("bob: meanwhile", "> typed")
        ada.type("\x15\x04")
        assert ada.ends() == 0


@pytest.mark.parametrize("how", ["plain", "dumb", "json"])
def test_plain_where_it_is_asked_for_or_the_terminal_can_do_no_more(
    endpoint: Endpoint, how: str
) -> None:
    options = [f"--{how}"] if how != "dumb" else []
    words = ("chat", "join", "--server", endpoint, "--name", "ada", *options)
    with Seat(*words, TERM="dumb" if how == "dumb" else "xterm") as ada:
        ada.shows("1")
        ada.type("hello\r")
        ada.shows("ada: hello" if how != "json" else '"text": "hello"')
        ada.type("\x04")
        assert ada.process.wait(DEADLINE_S) == 0
        assert b"\x1b[?1049h" not in ada.bytes


@pytest.mark.parametrize("side", ["in", "out"])
def test_with_a_pipe_on_either_side_it_is_plain(endpoint: Endpoint, side: str) -> None:
    shell = "import subprocess, sys; subprocess.run(sys.argv[1:], stdin={}, stdout={})"
    pipes = ("subprocess.DEVNULL", "None") if side == "in" else ("None", "subprocess.DEVNULL")
    with seat(endpoint, shell=shell.format(*pipes)) as ada:
        ada.shows("* you are ada")
        ada.type("\x04" if side == "out" else "")
        assert ada.process.wait(DEADLINE_S) == 0
        assert b"\x1b[?1049h" not in ada.bytes
