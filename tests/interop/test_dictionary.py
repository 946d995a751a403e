"""The dictionary against what people ask it with.

Nc, ncat (lines), socat, and the textbook's client in C.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.test_datagram import each_way
from tests.interop.test_servers import talk
from tests.support.cli_process import ROOT

FILE = ROOT / "docs" / "example-words.txt"
DATAGRAM_CLIENTS = {
    "nc": lambda port: ["nc", "-u", "-w", "1", "127.0.0.1", port],
    "socat": lambda port: ["socat", "-t", "1", "-", f"UDP:127.0.0.1:{port}"],
}
LINE_CLIENTS = {
    "nc": lambda port: ["nc", "-N", "127.0.0.1", port],
    "ncat": lambda port: ["ncat", "127.0.0.1", port],
    "socat": lambda port: ["socat", "-t", "10", "-", f"TCP:127.0.0.1:{port}"],
}


@pytest.mark.parametrize("client", DATAGRAM_CLIENTS)
def test_a_line_typed_into_a_datagram_client_is_a_word(serve, client: str) -> None:
    server = serve("dictionary", "udp://127.0.0.1:0", file=str(FILE))
    command = DATAGRAM_CLIENTS[client](str(server.endpoint.port))
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    assert talk(command, b"cat\n") == b"Katze\n"


@pytest.mark.parametrize("client", LINE_CLIENTS)
def test_lines_come_back_as_lines(serve, client: str) -> None:
    server = serve("dictionary", "tcp://127.0.0.1:0", file=str(FILE))
    command = LINE_CLIENTS[client](str(server.endpoint.port))
    assert (
        talk(command, b"cat\r\nnosuch\n" * 1000 + b"dog") == b"Katze\nunknown\n" * 1000 + b"Hund\n"
    )


@each_way
def test_the_textbook_client_with_its_padded_buffer_is_understood(
    engine, backend, serve, tmp_path: Path
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = tmp_path / "client"
    source = Path(__file__).with_name("textbook_dictionary.c")
    subprocess.run([compiler, "-o", str(binary), str(source)], check=True)
    server = serve("dictionary", "udp://127.0.0.1:0", file=str(FILE))
    done = talk([str(binary), str(server.endpoint.port), "cat", "nosuch", "猫"], b"")
    assert done.decode().splitlines() == ["Katze", "unknown", "ねこ"]
