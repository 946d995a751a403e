"""Contract of every datagram engine over Unix sockets, and what differs from UDP."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import fastnet
from fastnet.limits import DATAGRAM_SEND_TIMEOUT_S, UNIXGRAM_BYTES_MAX
from fastnet.load.contract import LoadPlan
from fastnet.load.run import run
from fastnet.metrics.counters import Statistics
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from tests.conftest import Serve
from tests.contract import test_datagram as datagram
from tests.contract.test_datagram import ROWS, each_way
from tests.support.clients import DEADLINE_S, eventually, pattern, statistics_reach

QUEUE = 1 + int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
"""Datagrams that a socket holds before a sender has to wait."""

NAMES = itertools.count()

KERNEL_BYTES = 1024
"""More than the kernel charges a send buffer for a short datagram."""


class Client(datagram.Client):
    """Over a Unix socket. name: what it binds; "" is one that the kernel picks, None none."""

    def __init__(self, server: Server, name: str | bytes | None = "") -> None:
        path = server.endpoint.path
        self.target = "\0" + path[1:] if path.startswith("@") else path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * UNIXGRAM_BYTES_MAX)
        if name is not None:
            self.sock.bind(name)

    def read(self) -> bytes:
        return self.sock.recv(2 * UNIXGRAM_BYTES_MAX)


def sum_is_whole(now: Statistics) -> bool:
    """Whether every datagram received is counted as answered or as unsent."""
    return now.messages == now.replies + now.unsent


@pytest.fixture
def gram(serve: Serve, tmp_path: Path) -> Any:
    """A server at a path of its own."""
    return lambda service="echo", name="", **options: serve(
        service, f"unixgram:{name or tmp_path / str(next(NAMES))}", **options
    )


@each_way
@pytest.mark.parametrize("size", [0, 1, 1500, 65_507, 65_537, 200_000, UNIXGRAM_BYTES_MAX])
def test_a_datagram_of_any_size_comes_back_as_one(engine, backend, gram, size) -> None:
    """D2, D3."""
    server = gram()
    with Client(server) as client:
        for _ in range(3):
            assert client.ask(pattern(size)) == pattern(size)
    statistics_reach(
        server, messages=3, replies=3, bytes_in=3 * size, bytes_out=3 * size, unsent=0, truncated=0
    )


@each_way
def test_datagrams_that_follow_each_other_are_never_joined(engine, backend, gram) -> None:
    """D2. The kernel would send a train over a Unix socket as one long datagram."""
    server = gram(suffix="!")
    sizes = [100, 100, 100, 50, 0, 0, 100, 7, 7][: QUEUE - 1]
    with Client(server) as client:
        for turn in range(20):
            sent = [pattern(turn + size)[turn:] for size in sizes]
            for data in sent:
                client.send(data)
            assert [client.read() for _ in sent] == [data + b"!" for data in sent]
    statistics_reach(server, messages=20 * len(sizes), replies=20 * len(sizes))


@each_way
def test_a_datagram_that_no_buffer_holds_is_counted_and_not_answered(engine, backend, gram) -> None:
    """D3."""
    server = gram()
    with Client(server) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * UNIXGRAM_BYTES_MAX)
        try:
            client.send(pattern(UNIXGRAM_BYTES_MAX + 1))
        except OSError as error:
            pytest.skip(f"net.core.wmem_max is too low: {error}")
        statistics_reach(server, messages=1, truncated=1, replies=0)
        assert client.ask(b"short") == b"short"


@each_way
def test_a_reply_longer_than_the_send_buffer_is_the_only_one_lost(engine, backend, gram) -> None:
    """D5, D6."""
    server = gram(sndbuf=4608)
    with Client(server) as client:
        client.send(pattern(100_000))
        statistics_reach(server, messages=1, unsent=1, replies=0)
        assert client.ask(b"short") == b"short"


@each_way
@pytest.mark.parametrize("where", ["path", "abstract"])
@pytest.mark.parametrize("peer", ["path", "abstract", "picked by the kernel"])
def test_every_kind_of_name_is_served_and_answered(
    engine, backend, gram, tmp_path, where, peer
) -> None:
    server = gram(name="" if where == "path" else f"@fastnet-gram-{os.getpid()}-{next(NAMES)}")
    names = {"path": str(tmp_path / "peer"), "abstract": f"\0peer-{os.getpid()}-{next(NAMES)}"}
    with Client(server, names.get(peer, "")) as client:
        assert client.ask(b"hello") == b"hello"


@each_way
def test_a_peer_without_a_name_is_received_and_not_answered(engine, backend, gram) -> None:
    """D4. Counted only if there was a reply, which no earlier peer receives instead."""
    echo, discard = gram(), gram("discard")
    for _ in range(3):
        with Client(echo, None) as nameless, Client(echo) as named:
            nameless.send(b"?")
            assert named.ask(b"!") == b"!"
            nameless.send(b"?")
            nameless.send(b"")
    statistics_reach(echo, messages=12, replies=3, unanswered=9)
    with Client(discard, None) as nameless:
        nameless.send(b"?")
    statistics_reach(discard, messages=1, unanswered=0)


@each_way
def test_a_peer_that_does_not_read_loses_its_replies_and_delays_no_other(
    engine, backend, gram
) -> None:
    """D5. Its queue is full, and the kernel says EAGAIN for it alone."""
    server = gram()
    with Client(server) as idle, Client(server) as other:
        for i in range(QUEUE + 30):
            idle.send(b"%d" % i)
            assert other.ask(b"other %d" % i) == b"other %d" % i
        statistics_reach(server, messages=2 * QUEUE + 60, replies=2 * QUEUE + 30, unsent=30)
        assert [idle.read() for _ in range(QUEUE)] == [b"%d" % i for i in range(QUEUE)]
        assert idle.ask(b"back again") == b"back again"


@each_way
def test_many_peers_that_do_not_read_delay_no_other(engine, backend, gram) -> None:
    """D5. What they do not read counts against our send buffer.

    It holds a thousand datagrams where the host grants 4 MiB.
    """
    server = gram()
    room = server._listeners[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    silent = [Client(server) for _ in range(min(100, room // (QUEUE * KERNEL_BYTES)))]
    for client in silent:
        for _ in range(QUEUE):
            client.send(b"?")
    with Client(server) as other:
        assert other.ask(b"still here?") == b"still here?"
    for client in silent:
        client.sock.close()
    statistics_reach(
        server, messages=len(silent) * QUEUE + 1, replies=len(silent) * QUEUE + 1, unsent=0
    )


@each_way
def test_a_send_buffer_full_of_unread_replies_costs_replies_and_no_time(
    engine, backend, gram
) -> None:
    """D5. A thousand replies without room would take DATAGRAM_SEND_TIMEOUT_S each.

    It ends when the peers that do not read are gone.
    """
    server = gram(sndbuf=4608)
    silent = [Client(server) for _ in range(10)]
    for client in silent:
        for _ in range(QUEUE):
            client.send(b"?")
    statistics_reach(server, messages=10 * QUEUE)
    assert server.statistics().unsent > 0
    with Client(server) as other:
        began_s = time.monotonic()
        for _ in range(1000):
            other.send(b"?")
        statistics_reach(server, messages=10 * QUEUE + 1000)
        assert time.monotonic() - began_s < 1000 * DATAGRAM_SEND_TIMEOUT_S / 2
        for client in silent:
            client.sock.close()
        eventually(lambda: sum_is_whole(server.statistics()), why=server.statistics)
        other.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sock.recv(100)
        other.sock.settimeout(DEADLINE_S)
        assert other.ask(b"room again") == b"room again"


@each_way
@pytest.mark.parametrize(
    "how", ["closed", "file left behind", "file removed", "another took the file"]
)
def test_a_peer_that_is_gone_costs_nothing_but_its_reply(
    engine, backend, gram, tmp_path, how
) -> None:
    """D6. ECONNREFUSED, ENOENT, or EPROTOTYPE, while the service thinks about its answer."""
    asked, gone = threading.Event(), threading.Event()

    def slow(data: memoryview, peer: object) -> bytes:
        if data == b"bye":
            asked.set()
            assert gone.wait(DEADLINE_S)
        return bytes(data)

    server, path = gram(slow), tmp_path / "peer"
    with Client(server, "" if how == "closed" else str(path)) as client:
        client.send(b"bye")
        assert asked.wait(DEADLINE_S)
        if how == "file removed":
            path.unlink()
        if how != "file removed":
            client.sock.close()
        if how == "another took the file":
            path.unlink()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.bind(str(path))
                gone.set()
                statistics_reach(server, unsent=1)
        gone.set()
        statistics_reach(server, messages=1, unsent=1, replies=0)
    with Client(server) as there:
        assert there.ask(b"still here") == b"still here"


@each_way
def test_a_peer_with_the_servers_own_name_is_not_answered_unless_asked_to(
    engine, backend, gram, tmp_path, monkeypatch
) -> None:
    """D4. Two relative paths may read alike.

    The reply would go to the socket of that name in the folder where the server runs.
    """
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    for answer, counted in (
        (False, {"unanswered": 1, "replies": 0}),
        (True, {"unanswered": 0, "replies": 1}),
    ):
        monkeypatch.chdir(tmp_path / "here")
        server = gram(name=f"s{answer}", answer_any_port=answer)
        monkeypatch.chdir(tmp_path / "there")
        with Client(server, f"s{answer}") as client:
            client.sock.sendto(b"?", str(tmp_path / "here" / f"s{answer}"))
            statistics_reach(server, messages=1, **counted)
        os.unlink(f"s{answer}")
        monkeypatch.chdir(tmp_path / "here")
        server.close()


@each_way
@pytest.mark.parametrize("service", ["chargen", "daytime"])
def test_the_other_services_answer_too(engine, backend, gram, service) -> None:
    with Client(gram(service)) as client:
        answer = client.ask(b"")
    assert answer.endswith(b"-UTC\r\n") if service == "daytime" else len(answer) == 74


@each_way
def test_a_handler_gets_the_name_as_recvfrom_returns_it(engine, backend, gram, tmp_path) -> None:
    """S10. And no rule of 512 bytes: a name cannot be forged here."""
    peers: list[object] = []

    def record(data: memoryview, peer: object) -> bytes:
        peers.append(peer)
        return bytes(10_000)

    server, path = gram(record), str(tmp_path / "grüße")
    abstract = b"\0fastnet-peer-%d\0\xff" % os.getpid()
    alike = [
        b"\0%-13d" % (10**12 + 1000 * os.getpid() + i) for i in range(3)
    ]  # as long as an IPv4 address, one beginning
    for _ in range(2):
        for name in (path, abstract, *alike, ""):
            with Client(server, name) as client:
                assert len(client.ask(b"?")) == 10_000
                if name == "":
                    assert peers[-1] == client.sock.getsockname()
            if name == path:
                os.unlink(path)
    with Client(server, None) as nameless:
        nameless.send(b"?")
    statistics_reach(server, messages=13, replies=12, unanswered=1, amplification_blocked=0)
    assert peers[:5] == peers[6:11] == [path, abstract, *alike]
    assert peers[-1] is None


@each_way
@pytest.mark.parametrize("named", [True, False])
def test_a_failing_handler_names_whom_it_failed(
    engine, backend, gram, tmp_path, caplog, named
) -> None:
    """D9."""
    server, path = gram(lambda data, peer: 1 / 0), str(tmp_path / "peer")
    with Client(server, path if named else None) as client:
        client.send(b"?")
        statistics_reach(server, handler_errors=1, replies=0)
    sender = path if named else "a socket without a name"
    line = f"failed on a datagram from {sender}: ZeroDivisionError"
    eventually(lambda: line in caplog.text, why=lambda: caplog.text)


@each_way
@pytest.mark.parametrize("processes", [False, True])
def test_workers_share_the_socket(engine, backend, gram, processes) -> None:
    server = gram(workers=3, worker_processes=processes)
    clients = [Client(server) for _ in range(20)]
    for client in clients:
        for i in range(5):
            assert client.ask(b"%d" % i) == b"%d" % i
        client.sock.close()
    statistics_reach(server, messages=100, replies=100)


@each_way
def test_a_stopping_server_answers_what_is_queued(engine, backend, gram) -> None:
    """D1."""
    asked, go = threading.Event(), threading.Event()

    def slow(data: memoryview, peer: object) -> bytes:
        asked.set()
        assert go.wait(DEADLINE_S)
        return bytes(data)

    server = gram(slow)
    with Client(server) as client:
        client.send(b"0")
        assert asked.wait(DEADLINE_S)
        for i in range(1, QUEUE):
            client.send(b"%d" % i)
        server.drain()
        go.set()
        assert server.wait(20)
        assert [client.read() for _ in range(QUEUE)] == [b"%d" % i for i in range(QUEUE)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_load_of_datagrams_fits_it(serve: Serve, tmp_path, backend) -> None:
    server = serve("echo", f"unixgram:{tmp_path}/s", backend=backend)
    plan = LoadPlan(
        server.endpoint, connections=2, message_bytes=64, in_flight=QUEUE // 4 or 1, messages=500
    )
    report = run(plan, "datagrams", backend)
    assert report.ok, report
    assert report.messages == 500


@pytest.mark.native
def test_every_row_answers_and_counts_the_same(tmp_path) -> None:
    found = []
    for engine, backend in ROWS:
        endpoint = f"unixgram:{tmp_path}/{engine}-{backend}"
        with (
            fastnet.serve(
                "echo", endpoint, engine=engine, backend=backend, sndbuf=50_000, suffix="!"
            ) as server,
            Client(server) as client,
            Client(server, None) as nameless,
        ):
            answers = [client.ask(pattern(size)) for size in (0, 1, 100, 30_000)]
            for size in (150_000, UNIXGRAM_BYTES_MAX):
                client.send(pattern(size))
            for _ in range(QUEUE + 9):
                client.send(b"flood")
            nameless.send(b"?")
            statistics_reach(server, messages=4 + 2 + QUEUE + 9 + 1)
        found.append((answers, server.statistics().as_dict()))
    assert all(each == found[0] for each in found)
