"""`fastnet connect` as a process: pipes, files, every kind of standard input and output."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.connect_peers import (
    DEADLINE_S,
    client,
    command,
    echo,
    environment,
    free_port,
    peer,
    read_until,
    run,
    say,
    swallow,
)

EVERY_BYTE = bytes(range(256)) * 400


@pytest.mark.parametrize("transport", ["tcp", "tcp6", "unix", "abstract"])
def test_everything_sent_comes_back_from_an_echo_server(transport: str, tmp_path: Path) -> None:
    with peer(echo, transport, tmp_path / "echo.sock") as server:
        done = run(server.endpoint, input=EVERY_BYTE)
    assert (done.returncode, done.stdout, done.stderr) == (0, EVERY_BYTE, b"")


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1:{port}",
        "127.0.0.1 {port}",
        "tcp://127.0.0.1:{port}",
        "tcp://127.0.0.1 {port}",
        "localhost {port}",
    ],
)
def test_every_spelling_of_an_endpoint_connects(spelling: str) -> None:
    with peer(echo) as server:
        done = run(*spelling.format(port=server.port).split(), input=b"hello")
    assert (done.returncode, done.stdout) == (0, b"hello")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_host_before_its_port_may_go_without_brackets(host: str) -> None:
    with peer(echo, "tcp6") as server:
        done = run(host, str(server.port), input=b"hello")
    assert (done.returncode, done.stdout) == (0, b"hello")


def test_a_file_goes_out_and_comes_back_through_redirections(tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    out.write_bytes(EVERY_BYTE)
    with peer(echo) as server, out.open("rb") as source, back.open("wb") as target:
        done = run(server.endpoint, stdin=source, stdout=target)
    assert done.returncode == 0
    assert back.read_bytes() == EVERY_BYTE


def test_output_to_a_socket_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    data = EVERY_BYTE * 20
    with ours, theirs, peer(say(data)) as server:
        ours.settimeout(DEADLINE_S)
        with client(server.endpoint, stdin=subprocess.DEVNULL, stdout=theirs) as process:
            theirs.close()
            received = swallow(ours)
            assert process.wait(DEADLINE_S) == 0
    assert received == data


def test_output_of_a_server_that_only_sends_is_read_without_any_input() -> None:
    with peer(say(b"Monday\r\n")) as server:
        done = run(server.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Monday\r\n", b"")


def test_a_closed_standard_input_reads_as_empty() -> None:
    with peer(swallow) as server:
        done = subprocess.run(
            ["sh", "-c", f"exec {shlex.join(command(server.endpoint))} <&-"],
            env=environment(), capture_output=True, timeout=DEADLINE_S,
        )  # fmt: skip
    assert (done.returncode, done.stderr, server.result) == (0, b"", b"")


@pytest.mark.parametrize(
    ("behaviour", "code"), [(swallow, 0), (echo, 1)], ids=["nothing-to-write", "bytes-to-write"]
)
def test_closed_standard_output_is_an_error_only_on_a_write(  # type: ignore[no-untyped-def]
    behaviour, code
) -> None:
    with peer(behaviour) as server:
        done = subprocess.run(
            ["sh", "-c", f"exec {shlex.join(command(server.endpoint))} >&-"],
            env=environment(), input=b"hello", stderr=subprocess.PIPE, timeout=DEADLINE_S,
        )  # fmt: skip
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_client_quietly() -> None:
    def talk(sock: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock.sendall(EVERY_BYTE)

    with peer(talk) as server, client(server.endpoint) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == EVERY_BYTE[:10]
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == b""


def test_output_is_not_held_back_for_input() -> None:
    with peer(echo) as server, client(server.endpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two", b"three"):
            process.stdin.write(word)
            assert read_until(process.stdout.fileno(), word) == word
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0


def test_in_a_pipe_input_still_goes_out_after_the_server_has_ended_its_side() -> None:
    def speak_then_listen(sock: socket.socket) -> bytes:
        sock.sendall(b"go on")
        sock.shutdown(socket.SHUT_WR)
        return swallow(sock)

    with peer(speak_then_listen) as server, client(server.endpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert read_until(process.stdout.fileno(), b"go on") == b"go on"
        process.stdin.write(b"first ")
        process.stdin.write(b"second")
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    assert server.result == b"first second"


def test_q_is_a_line_like_any_other_when_input_is_not_a_terminal() -> None:
    with peer(echo) as server:
        done = run(server.endpoint, input=b"a\nq\nb\n")
    assert done.stdout == b"a\nq\nb\n"


def test_no_descriptor_is_left_non_blocking() -> None:
    (ours_in, theirs_in), (ours_out, theirs_out) = os.pipe()[::-1], os.pipe()
    try:
        with (
            peer(echo) as server,
            client(server.endpoint, stdin=theirs_in, stdout=theirs_out) as process,
        ):
            os.write(ours_in, b"x")
            assert os.read(ours_out, 1) == b"x"
            assert os.get_blocking(theirs_in)
            assert os.get_blocking(theirs_out)
            os.close(ours_in)
            ours_in = -1
            assert process.wait(DEADLINE_S) == 0
        assert os.get_blocking(theirs_in)
        assert os.get_blocking(theirs_out)
    finally:
        for fd in (ours_in, theirs_in, ours_out, theirs_out):
            if fd >= 0:
                os.close(fd)


def test_an_input_that_is_non_blocking_already_works() -> None:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    try:
        with peer(echo) as server, client(server.endpoint, stdin=source) as process:
            assert process.stdout is not None
            os.write(sink, b"hello")
            assert read_until(process.stdout.fileno(), b"hello") == b"hello"
            os.close(sink)
            assert process.wait(DEADLINE_S) == 0
    finally:
        os.close(source)


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    with peer(swallow) as server, client(server.endpoint) as process:
        assert process.stderr is not None
        assert server.accepted.wait(DEADLINE_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        assert process.stderr.read().strip() == b""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Missing argument 'ENDPOINT'"),
        (["unix:/x", "7"], 2, "it has no port"),
        (["localhost:7", "--timeout", "0"], 2, "--timeout"),
        (["localhost:7", "--timeout", "nan"], 2, "--timeout"),
        (["localhost"], 3, "has no port"),
        (["localhost", "seven"], 3, "bad port 'seven'"),
        (["localhost:7", "8"], 3, "bad endpoint"),
        (["ftp://localhost:7"], 3, "unknown transport"),
        (["--udp", "tcp://localhost:7"], 3, "--udp does not go with"),
        (["localhost:0"], 3, "no server has port 0"),
        (
            ["unix:/no/such/socket"],
            4,
            "no such file or directory. The server creates the socket file",
        ),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_sentence_and_the_code_of_its_kind(
    arguments: list[str], code: int, sentence: str
) -> None:
    done = run(*arguments)
    error = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b"")
    assert sentence in error
    assert error.startswith("fastnet: ")
    assert error.count("\n") == 1


def test_a_refused_connection_is_exit_code_4_with_its_hint() -> None:
    done = run("127.0.0.1", str(free_port()))
    assert done.returncode == 4
    assert b"connection refused. Nothing listens there" in done.stderr


def test_an_input_that_cannot_be_read_is_one_sentence() -> None:
    write_only = os.open(os.devnull, os.O_WRONLY)
    try:
        with peer(swallow) as server:
            done = run(server.endpoint, stdin=write_only)
    finally:
        os.close(write_only)
    assert done.returncode == 1
    assert done.stderr.startswith(
        b"fastnet: cannot read standard input: bad file descriptor. Give it a file"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this host has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with peer(say(b"too much")) as server, open("/dev/full", "wb") as full:
        done = run(server.endpoint, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(
        b"fastnet: cannot write to standard output: no space left on device. Free some space"
    )


def test_help_shows_examples_and_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert b"fastnet connect localhost 7 < file > back" in done.stdout
    assert b"130 interrupted" in done.stdout
