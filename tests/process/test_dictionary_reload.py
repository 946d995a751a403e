"""A dictionary's file changes while it is served: real files, signals and requests."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from fastnet.limits import RELOAD_SETTLE_S
from fastnet.registry import BACKENDS
from fastnet.service import SERVICES
from tests.support.cli_process import DEADLINE_S, Running, children, daemon, eventually, running

WORDS = 5000


def text(version: int, words: int = WORDS) -> str:
    return "".join(f"word{i}:v{version} of {i}\n" for i in range(words))


def put(path: Path, what: str) -> None:
    """Replace a file as editors and rsync do: in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(what)
    fresh.rename(path)


@contextmanager
def asking(endpoint: Endpoint) -> Iterator[socket.socket]:
    tcp = endpoint.transport == "tcp"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect((endpoint.host, endpoint.port))
        yield sock


def resident_kib(pid: int | str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def ask(sock: socket.socket, number: int) -> int:
    """Look one word up, without retransmission.

    Returns the version of its answer, which must be whole.
    """
    sock.send(b"word%d\n" % number)
    head, _, rest = sock.recv(1000).decode().partition(" ")
    assert rest == f"of {number}\n"
    return int(head.removeprefix("v"))


class Asker:
    """A thread that sends requests as fast as it can and checks every answer.

    Each must be whole, and never from an older file than the one before.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.version, self.answers = 0, 0
        self.failure: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with asking(self.endpoint) as sock:
                for number in itertools.cycle(range(WORDS)):
                    if self._stopped.is_set():
                        return
                    version = ask(sock, number)
                    assert version >= self.version
                    self.version, self.answers = version, self.answers + 1
        except BaseException as failure:
            self.failure = failure

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(DEADLINE_S)

    def reaches(self, version: int) -> None:
        eventually(lambda: self.failure or self.version == version, f"version {version}")
        assert self.failure is None, self.failure


WAYS = [(backend, "--udp") for backend in BACKENDS] + [("python", "--tcp")]
each_way = pytest.mark.parametrize(
    ("backend", "transport"), WAYS, ids=[f"{backend}{transport[1:]}" for backend, transport in WAYS]
)


@contextmanager
def serving(
    file: Path, backend: str, transport: str, *more: object
) -> Iterator[tuple[Running, Endpoint]]:
    """A server whose log tells each time it has read its file."""
    options = ["--tcp"] if transport == "--tcp" else []
    with running("dict", "serve", "--file", file, "--backend", backend, *options, *more) as server:
        yield server, server.endpoint()
        assert server.end()[0] == 0


@each_way
def test_no_reply_is_missing_or_partial_during_reloads(
    backend: str, transport: str, tmp_path: Path
) -> None:
    file = tmp_path / "words"
    put(file, text(1))
    with (
        serving(file, backend, transport) as (server, endpoint),
        Asker(endpoint) as first,
        Asker(endpoint) as second,
    ):
        for version in range(1, 7):
            put(file, text(version))
            server.send(signal.SIGHUP)
            first.reaches(version)
            second.reaches(version)
    assert first.answers > 100
    assert first.failure is second.failure is None


@pytest.mark.soak
@each_way
def test_two_hundred_reloads_miss_no_answer_and_keep_no_old_words(
    backend: str, transport: str, tmp_path: Path
) -> None:
    file = tmp_path / "words"
    put(file, text(1))
    with (
        serving(file, backend, transport) as (server, endpoint),
        Asker(endpoint) as first,
        Asker(endpoint) as second,
    ):
        for version in range(1, 201):
            put(file, text(version))
            server.send(signal.SIGHUP)
            first.reaches(version)
            second.reaches(version)
            if version == 50:
                before = resident_kib(server.pid)
        assert resident_kib(server.pid) - before < 20_000, (
            "150 files of 5,000 words are 40,000 KiB at least"
        )
    assert first.failure is second.failure is None


@each_way
def test_a_changed_file_is_noticed_without_being_told(
    backend: str, transport: str, tmp_path: Path
) -> None:
    file = tmp_path / "words"
    put(file, text(1))
    with serving(file, backend, transport) as (server, endpoint):
        server.line("err", "words: 5000 words (colon)")
        with Asker(endpoint) as asker:
            put(file, text(2))
            server.line("err", "words: 5000 words (colon)")
            asker.reaches(2)
            file.write_text(text(3, WORDS + 1))  # in place, as cp does
            server.line("err", "words: 5001 words (colon)")
            asker.reaches(3)
        assert asker.failure is None


@each_way
def test_a_broken_file_is_named_by_line_and_the_old_words_stay(
    backend: str, transport: str, tmp_path: Path
) -> None:
    file = tmp_path / "words"
    put(file, text(1))
    with serving(file, backend, transport) as (server, endpoint), asking(endpoint) as sock:
        for what, complaint in (
            (text(2, 10) + "no colon here\n" + text(2), "line 11: no colon in 'no colon here'"),
            ("# empty\n", "has no words"),
            (text(2) + "x:y\0z\n", f"line {WORDS + 1}: a NUL character"),
        ):
            put(file, what)
            server.send(signal.SIGHUP)
            line = server.line("err", complaint)
            assert str(file) in line
            assert " error " in line
            assert line.endswith("The content loaded before is kept")
            assert ask(sock, 4999) == 1
        file.unlink()
        assert "no such file" in server.line("err", "cannot read")
        assert ask(sock, 0) == 1
        put(file, text(4))
        server.line("err", "5000 words")
        assert ask(sock, 4999) == 4


def test_a_file_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    """Every part of it would do as a file.

    It grows for twice as long as one that stands still would have to.
    """
    file = tmp_path / "words"
    put(file, text(1))
    with serving(file, "auto", "--udp") as (server, endpoint), asking(endpoint) as sock:
        with file.open("w") as slow:
            for i in range(WORDS):
                slow.write(f"word{i}:v2 of {i}\n")
                if i % 100 == 0:
                    slow.flush()
                    until_s = time.monotonic() + 2 * RELOAD_SETTLE_S / (WORDS / 100)
                    while time.monotonic() < until_s:
                        assert ask(sock, 4999) == 1
        server.line("err", "5000 words")
        server.line("err", "5000 words")
        assert ask(sock, 4999) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_worker_processes_reload_too_and_a_restarted_one_has_the_newest(
    backend: str, tmp_path: Path
) -> None:
    file = tmp_path / "words"
    put(file, text(1))
    with serving(file, backend, "--udp", "--workers", 2, "--worker-processes") as (
        server,
        endpoint,
    ):

        def versions() -> set[int]:
            found = set()
            for _ in range(30):
                with asking(endpoint) as sock:
                    found.add(ask(sock, 7))
            return found

        assert versions() == {1}
        put(file, text(2))
        server.send(signal.SIGHUP)
        eventually(lambda: versions() == {2}, "all workers to answer from the second file")
        for pid in children(server.pid):
            os.kill(pid, signal.SIGKILL)
        for _ in range(2):
            server.line("err", "died; starting another")
        with asking(endpoint) as sock:
            sock.settimeout(0.2)

            def answered() -> bool:
                try:
                    return ask(sock, 8) == 2
                except TimeoutError:
                    return False

            eventually(answered, "the new workers")
        assert versions() == {2}


def test_a_daemon_finds_its_file_again_although_it_left_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "words", text(1))
    command = ("dict", "serve", "--file", "words", "--log-file", "log")
    with (
        daemon(tmp_path / "pid", *command, cwd=tmp_path) as (pid, said),
        asking(place(said)) as sock,
    ):
        assert ask(sock, 1) == 1
        put(tmp_path / "words", text(2))
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: ask(sock, 1) == 2, "the second file")


def place(said: str) -> Endpoint:
    return Endpoint.parse(
        next(line for line in said.splitlines() if "listening" in line).split()[2]
    )


@pytest.mark.native
def test_an_old_table_is_given_back() -> None:
    """A hundred reloads of some megabytes each."""
    entries = {b"word%d" % i: b"t" * 100 for i in range(20_000)}
    service = SERVICES.load("dictionary", "native").create()

    for _ in range(5):
        service.replace(entries)
    before = resident_kib("self")
    for _ in range(100):
        service.replace(entries)
    assert resident_kib("self") - before < 20_000, "each table has more than 2,000 KiB"
