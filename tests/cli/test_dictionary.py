"""`fastnet dict lookup` as a process: a real server, a misbehaving one, and a terminal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fastnet as library
from fastnet.limits import LOOKUP_FIRST_WAIT_S
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, ROOT, fastnet, finish

FILE = ROOT / "docs" / "example-words.txt"

Received = tuple[bytes, tuple[str, int]]


@pytest.fixture(params=["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "unixgram:{}/dict"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with library.serve("dictionary", request.param.format(tmp_path), file=str(FILE)) as one:
        yield str(one.endpoint)


@contextmanager
def fake(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A datagram server of one behaviour until the client is done; it ends with the block."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            behave(sock)
        except BaseException as failure:
            failures.append(failure)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
        thread = threading.Thread(target=body)
        thread.start()
        yield f"127.0.0.1:{sock.getsockname()[1]}"
        thread.join(DEADLINE_S)
    assert not failures, failures


def lookup(server: str, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return finish("dict", "lookup", "--server", server, *words, **more)


def test_each_word_is_a_line_as_a_dictionary_file_has_it(server: str) -> None:
    done = lookup(server, "cat", "nosuch", "note", "猫")
    assert (
        done.stdout
        == "cat: Katze\nnosuch: unknown\nnote: Hinweis: etwas, das man wissen sollte\n猫: ねこ\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_an_object_a_word(server: str) -> None:
    done = lookup(server, "--json", "cat", "nosuch")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.pop("seconds") < 5
    assert first == {"word": "cat", "found": True, "translation": "Katze", "attempts": 1}
    assert (second["found"], second["translation"]) == (False, None)
    assert done.returncode == 0


def test_standard_input_is_a_batch_of_words(server: str) -> None:
    words = ["cat", "", "dog", "  ", "nosuch"] * 200
    done = lookup(server, stdin=None, input="\n".join(words))
    assert done.stdout == "cat: Katze\ndog: Hund\nnosuch: unknown\n" * 200
    assert done.returncode == 0


def test_bytes_that_are_no_text_are_unknown_words(server: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"\xff\xfe\ncat\r\n")
    with (tmp_path / "words").open() as file:
        done = lookup(server, stdin=file)
    assert done.stdout.endswith(": unknown\ncat: Katze\n")
    assert done.returncode == 0


def test_a_unix_socket_is_a_server_too(tmp_path: Path) -> None:
    with library.serve("dictionary", f"unix:{tmp_path}/dict", file=str(FILE)) as one:
        assert lookup(str(one.endpoint), "dog").stdout == "dog: Hund\n"


def test_a_lost_question_is_asked_again_after_longer_and_longer_waits() -> None:
    def third_time(sock: socket.socket) -> None:
        for _ in range(2):
            sock.recvfrom(100)
        text, peer = sock.recvfrom(100)
        assert text == b"cat\0"
        sock.sendto(b"Katze", peer)

    with fake(third_time) as server:
        (answer,) = map(json.loads, lookup(server, "--json", "cat").stdout.splitlines())
    assert (answer["translation"], answer["attempts"]) == ("Katze", 3)
    assert answer["seconds"] > 3 * LOOKUP_FIRST_WAIT_S


def test_a_late_answer_is_not_taken_for_that_to_the_next_word() -> None:
    def late(sock: socket.socket) -> None:
        _, first = sock.recvfrom(100)
        _, again = sock.recvfrom(100)
        sock.sendto(b"A", again)
        _, second = sock.recvfrom(100)
        sock.sendto(b"A, late", first)
        sock.sendto(b"B", second)

    with fake(late) as server:
        assert lookup(server, "a", "b").stdout == "a: A\nb: B\n"


def test_an_answer_from_another_address_is_ignored() -> None:
    def with_a_forger(sock: socket.socket) -> None:
        _, peer = sock.recvfrom(100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            forger.bind(("127.0.0.1", 0))
            forger.sendto(b"forged", peer)
        sock.sendto(b"Katze", peer)

    with fake(with_a_forger) as server:
        assert lookup(server, "cat").stdout == "cat: Katze\n"


def test_an_answer_cannot_repaint_the_terminal() -> None:
    def hostile(sock: socket.socket) -> None:
        _, peer = sock.recvfrom(100)
        sock.sendto(b"\x1b[2Jgone\ncat: forged", peer)

    with fake(hostile) as server:
        assert lookup(server, "cat").stdout == "cat: \\x1b[2Jgone\\ncat: forged\n"


@pytest.mark.parametrize("size", [508, 512, 513, 1000, 1400, 5000, 32_768])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_long_translation_arrives_whole(transport: str, size: int, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(f"long:{'x' * size}\nother:y\n")
    with library.serve(
        "dictionary", f"{transport}://127.0.0.1:0", file=str(tmp_path / "words")
    ) as one:
        assert (
            lookup(str(one.endpoint), "long", "other").stdout == f"long: {'x' * size}\nother: y\n"
        )


def test_no_server_is_one_line_and_exit_code_4() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, socket.socket() as closed:
        silent.bind(("127.0.0.1", 0))
        closed.bind(("127.0.0.1", 0))
        for server in (
            f"127.0.0.1:{silent.getsockname()[1]}",
            f"127.0.0.1:{closed.getsockname()[1]}",
            f"tcp://127.0.0.1:{closed.getsockname()[1]}",
        ):
            done = lookup(server, "--timeout", "0.5", "--json", "cat", "dog")
            assert done.returncode == 4
            assert done.stderr.startswith("fastnet: no answer to 'cat' from ")
            assert "in 0.5 s and " in done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert json.loads(done.stdout)["event"] == "error"


def test_a_server_that_is_just_starting_is_waited_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = fastnet("dict", "lookup", "--server", f"127.0.0.1:{port}", "--timeout", "20", "cat")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        with library.serve("dictionary", f"udp://127.0.0.1:{port}", file=str(FILE)):
            assert process.communicate(timeout=DEADLINE_S)[0] == "cat: Katze\n"
    assert process.returncode == 0


def test_a_connection_that_ended_is_made_again() -> None:
    answers = {b"a\n": b"A\n", b"b\n": b"B\n"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)

        def one_word_each() -> None:
            for _ in range(2):
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(answers[sock.recv(100)])

        thread = threading.Thread(target=one_word_each)
        thread.start()
        try:
            done = lookup(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "a", "b")
        finally:
            thread.join(DEADLINE_S)
    assert done.stdout == "a: A\nb: B\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("cat",), 2, "Missing option '--server'"),
        (("--server", "localhost:1", "two\nlines"), 2, "it has a newline or a NUL character in it"),
        (("--server", "localhost:1", ""), 2, "it is empty"),
        (("--server", "localhost:1", "x" * 1025), 2, "it has more than 1024 bytes"),
        (("--server", "localhost:1", "--timeout", "0", "cat"), 2, "--timeout"),
        (("--server", "localhost", "cat"), 3, "has no port"),
        (("--server", "localhost:0", "cat"), 3, "no server has port 0"),
    ],
    ids=range(7),
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = finish("dict", "lookup", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_line_that_is_no_word_ends_the_batch_with_its_number(server: str) -> None:
    done = lookup(server, stdin=None, input="cat\n" + "x" * 2000 + "\n")
    assert done.returncode == 3
    assert done.stdout == "cat: Katze\n"
    assert "line 2 of standard input is no word: it has more than 1024 bytes" in done.stderr


def test_a_person_is_asked_for_words_until_ctrl_d(server: str) -> None:
    keyboard, terminal = os.openpty()
    try:
        command = fastnet("dict", "lookup", "--server", server)
        environment = ENVIRONMENT | {"TERM": "dumb"}
        with subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
        ) as process:
            said = b""
            for shown, typed in ((b"> ", b"cat\n"), (b"cat: Katze\r\n> ", b"\n"), (b"> ", b"\x04")):
                while shown not in said:
                    said += os.read(keyboard, 1000)
                said = b"" if shown == b"> " else said.partition(shown)[2]
                os.write(keyboard, typed)
            assert process.wait(DEADLINE_S) == 0
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_serve_needs_a_file_and_says_which_line_is_broken(tmp_path: Path) -> None:
    done = finish("dict", "serve")
    assert (done.returncode, done.stderr.splitlines()) == (
        3,
        [
            "fastnet: dictionary needs a file. Name it: --file dict.txt, "
            "with word:translation in each line."
        ],
    )
    (tmp_path / "words").write_text("cat:Katze\ndog\n")
    done = finish("dict", "serve", "--file", str(tmp_path / "words"))
    assert done.returncode == 3
    assert f"{tmp_path}/words, line 2: no colon in 'dog'" in done.stderr
