"""`fastnet chat join` on a terminal: what it displays, and that the terminal is restored."""

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


class TerminalSession:
    """A command on a pseudo-terminal, and what the terminal displays."""

    def __init__(
        self,
        *arguments: object,
        columns: int = 60,
        rows: int = 10,
        shell: str = "",
        **environment: str,
    ) -> None:
        self.keyboard, self.fd = os.openpty()
        self.pyte_screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.pyte_screen)
        self.bytes = b""
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.fd)
        self.process = subprocess.Popen(
            [*([sys.executable, "-c", shell] if shell else []), *fastnet(*arguments)],
            stdin=self.fd,
            stdout=self.fd,
            stderr=self.fd,
            env=ENVIRONMENT | {"TERM": "xterm"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns: int, rows: int) -> None:
        self.pyte_screen.resize(rows, columns)
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.pyte_screen.display]

    def read(self, timeout_s: float) -> bool:
        if not select.select([self.keyboard], [], [], max(0.0, timeout_s))[0]:
            return False
        data = os.read(self.keyboard, 65536)
        self.bytes += data
        self.stream.feed(data)
        return True

    def wait_until(self, condition: Callable[[list[str]], bool]) -> None:
        """Until the rows fulfil a condition."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition(self.rows):
            assert self.read(end_s - time.monotonic()), f"it shows {self.rows}"

    def wait_for_text(self, *texts: str) -> None:
        self.wait_until(lambda rows: all(any(text in row for row in rows) for text in texts))

    def wait_for_exit(self) -> int:
        """The exit code; checks that the terminal is restored."""
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

    def __enter__(self) -> TerminalSession:
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


def start_client(endpoint: Endpoint, *options: object, **more: Any) -> TerminalSession:
    return TerminalSession("chat", "join", "--server", endpoint, "--name", "ada", *options, **more)


@contextlib.contextmanager
def joined_client(endpoint: Endpoint) -> Iterator[TerminalSession]:
    """A client that has joined."""
    with start_client(endpoint) as ada:
        ada.wait_for_text("* you are ada")
        yield ada


def test_messages_of_others_do_not_garble_the_input_line(endpoint: Endpoint) -> None:
    with joined_client(endpoint) as ada, joined(endpoint, "bob") as bob:
        ada.wait_for_text("* you are ada", "* bob is online", f" ada on {endpoint} | 2 online")
        ada.type("half a sent")
        for i in range(15):
            bob.send_line(f"message {i}")
            ada.type(".")
        ada.wait_until(
            lambda rows: (
                rows[-1] == "> half a sent..............." and rows[-3] == "bob: message 14"
            )
        )
        assert ada.rows[:-2] == [f"bob: message {i}" for i in range(7, 15)]
        ada.type("\r")
        assert [bob.line() for _ in range(16)][-1] == "ada: half a sent..............."
        ada.wait_for_text("ada: half a sent")
        ada.wait_until(lambda rows: rows[-1] == ">")


def test_page_up_and_page_down_scroll(endpoint: Endpoint) -> None:
    with joined_client(endpoint) as ada, joined(endpoint, "bob") as bob:
        for i in range(20):
            bob.send_line(f"message {i}")
        ada.wait_for_text("bob: message 19")
        ada.type("\x1b[5~")
        ada.wait_until(lambda rows: rows[:-2] == [f"bob: message {i}" for i in range(5, 13)])
        ada.wait_for_text("7 rows below, PageDown")
        ada.type("\x1b[6~")
        ada.wait_until(lambda rows: rows[-3] == "bob: message 19")


@pytest.mark.parametrize(("columns", "rows"), [(30, 6), (100, 30), (5, 3)])
def test_a_resized_window_is_painted_anew(endpoint: Endpoint, columns: int, rows: int) -> None:
    with joined_client(endpoint) as ada, joined(endpoint, "bob") as bob:
        bob.send_line("a message that is longer than thirty columns are wide")
        ada.wait_for_text("longer than")
        ada.type("typed")
        ada.wait_for_text("> typed")
        ada.resize(columns, rows)
        ada.wait_until(
            lambda shown: (
                len(shown) == rows
                and shown[-1].startswith(">")
                and shown[-1].endswith(("typed", "ed"))
            )
        )
        bob.send_line("later")
        ada.wait_until(lambda shown: "later"[: columns - 1] in "".join(shown[:-1]))
        assert all(len(row) <= columns for row in ada.rows)
        ada.type("\x15\x04")
        assert ada.wait_for_exit() == 0


def test_wide_combining_and_control_characters_keep_the_layout(endpoint: Endpoint) -> None:
    with joined_client(endpoint) as ada, textbook(endpoint, b"online") as nc:
        nc.send("日本語 e\u0301 👩 \u202eevil\x1b[2J\x1b]0;title\x07 end".encode())
        ada.wait_for_text("日", "end")
        (row,) = [row for row in ada.rows if "end" in row]
        assert "\ufffdevil\ufffd[2J\ufffd]0;title\ufffd end" in row
        assert ada.pyte_screen.title == ""
        ada.type("日本e\u0301\x7f\x7f語")
        ada.wait_for_text("> 日語")
        ada.wait_until(lambda rows: ada.pyte_screen.cursor.x == 6)


def test_commands_are_typed_like_messages(endpoint: Endpoint) -> None:
    with start_client(endpoint, "--room", "ops") as ada:
        ada.wait_for_text(f" ada in ops on {endpoint} | 1 online")
        ada.type("/who\r/help\r//slash\r")
        ada.wait_for_text("* 1 online: ada", "commands are /who and /quit", "ada: /slash")


@pytest.mark.parametrize(
    ("keys", "code"), [("/quit\r", 0), ("\x04", 0), ("\x03", 130)], ids=["quit", "ctrl-d", "ctrl-c"]
)
def test_a_client_that_leaves_restores_the_terminal_and_is_offline(
    endpoint: Endpoint, keys: str, code: int
) -> None:
    with joined(endpoint, "bob") as bob, start_client(endpoint) as ada:
        assert bob.line("err") == "* ada is online"
        ada.wait_for_text("* you are ada")
        assert termios.tcgetattr(ada.fd) != ada.before
        ada.type(keys)
        assert ada.wait_for_exit() == code
        assert bob.line("err") == "* ada is offline"


def test_lines_typed_before_ctrl_d_are_sent_first(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob, start_client(endpoint) as ada:
        ada.wait_for_text("* you are ada")
        # More messages than the rate limit permits in one burst.
        ada.type("".join(f"line {i}\r" for i in range(25)) + "\x04")
        assert ada.wait_for_exit() == 0
        assert [bob.line() for _ in range(25)] == [f"ada: line {i}" for i in range(25)]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_a_signal_restores_the_terminal(endpoint: Endpoint, number: int, code: int) -> None:
    with start_client(endpoint) as ada:
        ada.wait_for_text("* you are ada")
        ada.process.send_signal(number)
        assert ada.wait_for_exit() == code


def test_a_killed_server_is_reported_on_the_restored_terminal() -> None:
    with serving() as (server, endpoint), start_client(endpoint, "--timeout", "3") as ada:
        ada.wait_for_text("* you are ada")
        ada.type("hello\r")
        ada.wait_for_text("ada: hello")
        server.end(signal.SIGKILL)
        ada.type("again?\r")
        ada.wait_for_text("1 to be sent")
        assert ada.wait_for_exit() == 4
        after = ada.bytes.rpartition(b"\x1b[?1049l")[2].decode()
        assert "no answer within 3 s; 1 message was not accepted" in after


def test_a_refused_name_is_reported_on_the_restored_terminal(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada"), start_client(endpoint) as second:
        assert second.wait_for_exit() == 5
        assert b"the name ada is in use" in second.bytes.rpartition(b"\x1b[?1049l")[2]


def test_a_terminal_that_hangs_up_ends_the_client(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob:
        ada = start_client(endpoint)
        ada.wait_for_text("* you are ada")
        os.close(ada.fd)
        os.close(ada.keyboard)
        assert ada.process.wait(DEADLINE_S) == 0
        assert bob.line("err") == "* ada is online"
        assert bob.line("err") == "* ada is offline"


SHELL = """
import os, signal, subprocess, sys

def become_foreground():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)

signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], preexec_fn=become_foreground)
os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpid())
print("stopped", flush=True)
input()
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1]))
"""
"""Job control of a shell: without one the kernel does not stop an orphaned process group."""


def test_ctrl_z_restores_the_terminal_until_the_client_continues(endpoint: Endpoint) -> None:
    with joined(endpoint, "bob") as bob, start_client(endpoint, shell=SHELL) as ada:
        ada.wait_for_text("* you are ada")
        ada.type("typed\x1a")
        ada.wait_for_text("stopped")
        assert termios.tcgetattr(ada.fd) == ada.before
        bob.send_line("meanwhile")
        assert bob.line() == "bob: meanwhile"
        ada.type("\n")
        ada.wait_for_text("bob: meanwhile", "> typed")
        ada.type("\x15\x04")
        assert ada.wait_for_exit() == 0


@pytest.mark.parametrize("how", ["plain", "dumb", "json"])
def test_no_screen_with_plain_json_or_a_dumb_terminal(endpoint: Endpoint, how: str) -> None:
    options = [f"--{how}"] if how != "dumb" else []
    arguments = ("chat", "join", "--server", endpoint, "--name", "ada", *options)
    with TerminalSession(*arguments, TERM="dumb" if how == "dumb" else "xterm") as ada:
        ada.wait_for_text("1")
        ada.type("hello\r")
        ada.wait_for_text("ada: hello" if how != "json" else '"text": "hello"')
        ada.type("\x04")
        assert ada.process.wait(DEADLINE_S) == 0
        assert b"\x1b[?1049h" not in ada.bytes


@pytest.mark.parametrize("side", ["in", "out"])
def test_no_screen_with_a_pipe_on_either_side(endpoint: Endpoint, side: str) -> None:
    shell = "import subprocess, sys; subprocess.run(sys.argv[1:], stdin={}, stdout={})"
    pipes = ("subprocess.DEVNULL", "None") if side == "in" else ("None", "subprocess.DEVNULL")
    with start_client(endpoint, shell=shell.format(*pipes)) as ada:
        ada.wait_for_text("* you are ada")
        ada.type("\x04" if side == "out" else "")
        assert ada.process.wait(DEADLINE_S) == 0
        assert b"\x1b[?1049h" not in ada.bytes
