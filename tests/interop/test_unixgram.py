"""Datagrams over Unix sockets with the tools people have.

Socat, nc and our own client, from both sides.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fastnet.limits import UNIXGRAM_BYTES_MAX
from tests.conftest import Serve
from tests.interop.test_connect import listening, needs
from tests.support.cli_process import ENVIRONMENT, ROOT, fastnet, finish, running

BACKENDS = pytest.mark.parametrize("backend", ["native", "python"])

CLIENTS = {
    "nc -uU": ["nc", "-uU", "-w", "3", "{path}"],
    "socat UNIX-SENDTO": ["socat", "-t", "3", "-", "UNIX-SENDTO:{path},bind={own}"],
    "socat UNIX-CLIENT": ["socat", "-t", "3", "-", "UNIX-CLIENT:{path},type=2,bind={own}"],
    "socat ABSTRACT-CLIENT": ["socat", "-t", "3", "-", "ABSTRACT-CLIENT:{path},type=2,bind={own}"],
}


def connect(endpoint: str, text: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = fastnet("connect", endpoint, "--timeout", "3", *more)
    return subprocess.run(
        command, input=text, capture_output=True, env=ENVIRONMENT, cwd=ROOT, timeout=30, check=False
    )


@BACKENDS
@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_foreign_client_sends_comes_back(
    serve: Serve, tmp_path: Path, backend: str, client: str
) -> None:
    tool = CLIENTS[client][0]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    path = f"@{tmp_path}/server" if "ABSTRACT" in client else f"{tmp_path}/server"
    server = serve("echo", f"unixgram:{path}", backend=backend)
    command = [
        each.format(path=path.removeprefix("@"), own=tmp_path / "own") for each in CLIENTS[client]
    ]
    done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=30, check=False)
    assert (done.stdout, server.statistics().replies) == (b"hello\n", 1), done


@needs("socat")
def test_a_foreign_client_without_a_name_is_counted(serve: Serve, tmp_path: Path) -> None:
    server = serve("echo", f"unixgram:{tmp_path}/s")
    command = ["socat", "-u", "-", f"UNIX-SENDTO:{tmp_path}/s"]
    subprocess.run(command, input=b"hello", timeout=30, check=True)
    server.drain()
    assert server.wait(20)
    assert (server.statistics().messages, server.statistics().unanswered) == (1, 1)


@needs("socat")
def test_our_client_is_answered_by_socat(tmp_path: Path) -> None:
    path = tmp_path / "socat"
    with listening("socat", f"UNIX-RECVFROM:{path}", "PIPE", path=path):
        done = connect(f"unixgram:{path}", b"one")
    assert (done.returncode, done.stdout) == (0, b"one")


@BACKENDS
@pytest.mark.parametrize("where", ["{}/s", "@{}/s"])
def test_a_serving_command_answers_our_client_whatever_the_size(
    tmp_path: Path, backend: str, where: str
) -> None:
    lines = [b"\n", b"x" * 99_999 + b"\n", b"y" * (UNIXGRAM_BYTES_MAX - 1) + b"\n", b"last"]
    path = where.format(tmp_path)
    with running("echo", "--udp", "--unix", path, "--backend", backend) as server:
        assert server.line().startswith(f"listening on unixgram:{path} (engine ")
        for arguments in ((f"unixgram:{path}",), (f"unix:{path}", "--udp")):
            done = connect(arguments[0], b"".join(lines), *arguments[1:])
            assert (done.returncode, done.stdout) == (0, b"".join(lines)), done.stderr
        code, out, _ = server.end()
    assert (code, "8 datagrams in, 8 out" in out) == (0, True)
    assert not (tmp_path / "s").exists()


def test_a_line_too_long_is_refused_with_a_hint(serve: Serve, tmp_path: Path) -> None:
    serve("discard", f"unixgram:{tmp_path}/s")
    done = connect(f"unixgram:{tmp_path}/s", b"x" * (UNIXGRAM_BYTES_MAX + 1))
    assert done.returncode == 4
    assert (
        f"more than {UNIXGRAM_BYTES_MAX} bytes and does not fit a datagram".encode() in done.stderr
    )


def test_a_client_learns_why_it_cannot_connect(serve: Serve, tmp_path: Path) -> None:
    stream = serve("echo", f"unix:{tmp_path}/stream")
    absent = finish("connect", f"unixgram:{tmp_path}/absent")
    kind = finish("connect", f"unixgram:{stream.endpoint.path}")
    assert (absent.returncode, kind.returncode) == (4, 4)
    assert (
        f"cannot connect to unixgram:{tmp_path}/absent: no such file or directory. The server"
        in absent.stderr
    )
    assert "It is a socket of the other kind" in kind.stderr
    mixed = finish("connect", "--udp", "tcp://localhost:7")
    assert (mixed.returncode, "--udp does not go with tcp://localhost:7" in mixed.stderr) == (
        3,
        True,
    )


def test_a_server_that_goes_is_a_refusal_of_the_next_line(serve: Serve, tmp_path: Path) -> None:
    server = serve("echo", f"unixgram:{tmp_path}/s")
    command = fastnet("connect", f"unixgram:{tmp_path}/s")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, bufsize=0, **streams) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        assert client.stdout.read(6) == b"hello\n"
        server.close()
        client.stdin.write(b"anyone?\n")
        _, said = client.communicate(timeout=30)
    assert client.returncode == 4
    assert b"connection refused, after 6 bytes sent and 6 received" in said


@pytest.mark.parametrize("command", [("--udp",), ("--udp", "--tcp"), ("--tcp",)])
def test_a_dictionary_is_served_in_datagrams_if_asked_to(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    options = ("--file", ROOT / "docs" / "example-words.txt", "--unix", tmp_path / "s", *command)
    if command == ("--udp", "--tcp"):
        refused = finish("dict", "serve", *options)
        assert (refused.returncode, "--tcp and --udp exclude each other" in refused.stderr) == (
            2,
            True,
        )
        return
    with running("dict", "serve", *options) as server:
        where = server.endpoint()
        assert where.transport == ("unixgram" if command == ("--udp",) else "unix")
        assert finish("dict", "lookup", "--server", where, "cat").stdout == "cat: Katze\n"
