"""A dictionary under junk and floods, and with peers that dribble, vanish or do not read."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from fastnet.limits import KIB
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from tests.contract.test_datagram import Client, each_way
from tests.support.cli_process import ROOT, finish, running
from tests.support.clients import (
    connect,
    eventually,
    pattern,
    settled,
    statistics_reach,
    while_flooded,
)

FILE = ROOT / "docs" / "example-words.txt"


@each_way
def test_junk_of_every_size_is_answered_with_unknown_and_harms_nothing(
    engine, backend, serve
) -> None:
    server = serve("dictionary", "udp://127.0.0.1:0", file=str(FILE))
    sizes = [0, 1, 2, 63, 64, 511, 512, 513, 1024, 1025, 1472, 9000, 65_507]
    with Client(server) as client:
        for size in sizes:
            for junk in (
                pattern(size),
                b"\xff" * size,
                b"\n" * size,
                bytes(size),
                b"cat" + b"x" * size,
                os.urandom(size),
            ):
                junk = junk[:65_507]
                answer = client.ask(junk)
                assert answer in (b"unknown", b"unknown\n") or (
                    junk == b"cat" and answer == b"Katze"
                )
            assert client.ask(b"cat".ljust(max(size, 3), b"\0")) == b"Katze"
    assert server.statistics().amplification_blocked == server.statistics().unsent == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flood_does_not_keep_a_word_from_its_answer_for_ever(backend: str) -> None:
    """A client that asks again gets through, and memory stays where it was."""
    with (
        running("dict", "serve", "--file", FILE, "--backend", backend) as server,
        socket.socket(type=socket.SOCK_DGRAM) as sock,
    ):
        endpoint = server.endpoint()
        server.line("err", "6 words")
        sock.connect((endpoint.host, endpoint.port))
        before = resident_kib(server.pid)
        with while_flooded(lambda: sock.sendall(random.randbytes(random.randrange(700))), 500):
            for _ in range(3):
                done = finish(
                    "dict", "lookup", "--server", endpoint, "--timeout", "20", "cat", "dog"
                )
                assert done.stdout == "cat: Katze\ndog: Hund\n", done.stderr
        grown = resident_kib(server.pid) - before
        code, out, err = server.end()
    assert (code, err) == (0, "")
    assert "stopped dictionary" in out
    assert grown < 8 * KIB


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.fixture
def lines(serve) -> Callable[..., Server]:
    return lambda **options: serve("dictionary", "tcp://127.0.0.1:0", file=str(FILE), **options)


def test_a_client_that_vanishes_within_a_line_disturbs_no_other_client(lines) -> None:
    server = lines()
    for end in ("reset", "close"):
        peer = connect(server.endpoint)
        peer.send(b"cat\nca")
        assert peer.read(6) == b"Katze\n"
        getattr(peer, end)()
    other = connect(server.endpoint)
    assert other.exchange(b"dog\n") == b"Hund\n"
    other.close()
    assert settled(server)["accepted"] == 3


def test_one_who_asks_and_does_not_read_is_not_read_any_more(lines) -> None:
    """What waits for it stays bounded, and others are answered."""
    server = lines(sndbuf=8 * KIB)
    greedy, other = connect(server.endpoint, rcvbuf=4 * KIB), connect(server.endpoint)
    with greedy.sending(b"note\n" * 2_000_000, half_close=False):
        eventually(lambda: server.statistics().write_buffer_bytes, why=server.statistics)
        other.send(b"dog\n")
        assert other.read(5) == b"Hund\n"
        assert server.statistics().write_buffer_bytes < 4 * 1024 * KIB
    greedy.reset()
    other.close()
    statistics_reach(server, open=0, write_buffer_bytes=0)


def test_it_listens_only_where_it_is_told_and_its_file_may_go(lines, tmp_path: Path) -> None:
    copy = tmp_path / "words"
    copy.write_bytes(FILE.read_bytes())
    with running("dict", "serve", "--file", copy, "--tcp") as server:
        endpoint = server.endpoint()
        assert endpoint == Endpoint("tcp", "127.0.0.1", endpoint.port)
        copy.unlink()
        server.line("err", "cannot read")
        assert finish("dict", "lookup", "--server", endpoint, "cat").stdout == "cat: Katze\n"
        assert server.end()[0] == 0
