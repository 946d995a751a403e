"""The servers against the clients that everybody has.

Nc, ncat, socat, curl, and the textbook's own in C.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastnet.server.server import Server
from fastnet.service.chargen_py import pattern
from tests.conftest import Serve

DATA = os.urandom(300_000)
DAYTIME = re.compile(rb"\w+day, \w+ \d{1,2}, \d{4} \d\d:\d\d:\d\d-UTC\r\n")


def tcp(server: Server) -> list[str]:
    return ["127.0.0.1", str(server.endpoint.port)]


def unix(server: Server) -> str:
    return server.endpoint.path


CLIENTS = {
    "nc": lambda server: ["nc", "-N", *tcp(server)],
    "ncat": lambda server: ["ncat", *tcp(server)],
    "socat": lambda server: ["socat", "-t", "10", "-", f"TCP:127.0.0.1:{server.endpoint.port}"],
}
UNIX_CLIENTS = {
    "nc": lambda server: ["nc", "-N", "-U", unix(server)],
    "ncat": lambda server: ["ncat", "-U", unix(server)],
    "socat": lambda server: ["socat", "-t", "10", "-", f"UNIX-CONNECT:{unix(server)}"],
}


def talk(command: list[str], data: bytes) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=data, capture_output=True, timeout=30, check=True).stdout


@pytest.mark.parametrize("client", CLIENTS)
def test_echo_gives_everything_back(engine: str, backend: str, serve: Serve, client: str) -> None:
    assert talk(CLIENTS[client](serve("echo")), DATA) == DATA


@pytest.mark.parametrize("client", UNIX_CLIENTS)
def test_echo_gives_everything_back_on_a_unix_socket(
    serve: Serve, tmp_path: Path, client: str
) -> None:
    assert talk(UNIX_CLIENTS[client](serve("echo", f"unix:{tmp_path}/s")), DATA) == DATA


@pytest.mark.parametrize("client", CLIENTS)
def test_daytime_says_the_time_and_ends(backend: str, serve: Serve, client: str) -> None:
    assert DAYTIME.fullmatch(talk(CLIENTS[client](serve("daytime")), b""))


@pytest.mark.parametrize("client", CLIENTS)
def test_discard_takes_all_and_answers_nothing(backend: str, serve: Serve, client: str) -> None:
    server = serve("discard")
    assert talk(CLIENTS[client](server), DATA) == b""
    server.close()
    assert server.statistics().bytes_in == len(DATA)


def test_chargen_continues_until_the_reader_of_nc_leaves(backend: str, serve: Serve) -> None:
    server = serve("chargen")
    if shutil.which("nc") is None:
        pytest.skip("nc is not installed")
    with subprocess.Popen(
        ["nc", *tcp(server)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.read(20_000) == (pattern() * 3)[:20_000]
        client.kill()


def test_curl_speaks_to_echo_as_to_telnet(backend: str, serve: Serve) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = serve("daytime")
    command = ["curl", "-s", "--max-time", "20", f"telnet://127.0.0.1:{server.endpoint.port}"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert DAYTIME.fullmatch(done.stdout)


@pytest.fixture(scope="module")
def textbook_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    binary = tmp_path_factory.mktemp("textbook") / "client"
    source = Path(__file__).with_name("textbook_client.c")
    subprocess.run(["cc", "-o", binary, source], check=True, timeout=60)
    return binary


def test_the_textbook_client_gets_its_lines_back(
    engine: str, backend: str, serve: Serve, textbook_client: Path
) -> None:
    lines = b"".join(b"line %d of the textbook\n" % i for i in range(500))
    server = serve("echo")
    assert talk([str(textbook_client), str(server.endpoint.port)], lines) == lines


def test_the_textbook_client_gets_the_suffix(
    backend: str, serve: Serve, textbook_client: Path
) -> None:
    server = serve("echo", suffix="[server echo]")
    assert (
        talk([str(textbook_client), str(server.endpoint.port)], b"hello\n")
        == b"hello\n[server echo]"
    )
