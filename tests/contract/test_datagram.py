"""Contract of every datagram engine (engine/datagram/contract.py), native and pure."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnet
from fastnet.engine.datagram import DATAGRAMS
from fastnet.errors import ConfigError
from fastnet.limits import DATAGRAM_BYTES_MAX
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from tests.support.cli_process import finish
from tests.support.clients import DEADLINE_S, eventually, pattern

UDP_SEGMENT = 103
ROWS = [
    (name, backend) for name in DATAGRAMS for backend in BACKENDS if DATAGRAMS[name].module(backend)
]
WAYS = [pytest.param(name, backend, id=f"{name}-{backend}") for name, backend in ROWS]
each_way = pytest.mark.parametrize(("engine", "backend"), WAYS)

Counts = dict[str, int]


class Client:
    """A UDP socket with a deadline. source: its address."""

    def __init__(self, server: Server, source: tuple[str, int] | None = None) -> None:
        self.target = (server.endpoint.host, server.endpoint.port)
        self.sock = socket.socket(
            socket.AF_INET6 if ":" in server.endpoint.host else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.sock.settimeout(DEADLINE_S)
        if source:
            self.sock.bind(source)

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.target)

    def read(self) -> bytes:
        data, source = self.sock.recvfrom(70_000)
        assert source[:2] == self.target, "the answer comes from whom it was asked of"
        return data

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.read()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def counts(server: Server) -> Counts:
    now = server.statistics().as_dict()
    names = (
        "messages",
        "replies",
        "bytes_in",
        "bytes_out",
        "unanswered",
        "unsent",
        "truncated",
        "kernel_drops",
    )
    return {name: now[name] for name in names}


def reaches(server: Server, **expected: int) -> None:
    eventually(lambda: counts(server).items() >= expected.items(), why=lambda: counts(server))


@pytest.fixture
def udp(serve) -> Any:
    return lambda service="echo", host="127.0.0.1", **options: serve(
        service, f"udp://[{host}]:0" if ":" in host else f"udp://{host}:0", **options
    )


@each_way
@pytest.mark.parametrize("size", [0, 1, 512, 1472, 1473, 9000, 65_000, DATAGRAM_BYTES_MAX])
def test_a_datagram_of_any_size_comes_back_as_one(engine, backend, udp, size) -> None:
    """D2, D3."""
    server = udp()
    with Client(server) as client:
        for _ in range(3):
            assert client.ask(pattern(size)) == pattern(size)
    reaches(
        server, messages=3, replies=3, bytes_in=3 * size, bytes_out=3 * size, unsent=0, truncated=0
    )


@each_way
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_are_served(engine, backend, udp, host) -> None:
    server = udp(host=host)
    with Client(server) as client:
        assert client.ask(b"over " + host.encode()) == b"over " + host.encode()
    assert str(server.endpoint).startswith("udp://")


@each_way
def test_a_burst_comes_back_whole_in_order_and_with_its_boundaries(engine, backend, udp) -> None:
    """D2, D3. Sizes repeat, shrink, grow and vanish: trains are joined, ended and broken."""
    server = udp()
    sizes = [100] * 70 + [
        100,
        50,
        100,
        100,
        0,
        100,
        0,
        0,
        100,
        200,
        1,
        1,
        1,
        2000,
        2000,
        1999,
        2000,
        *range(30),
        *range(30, 0, -1),
    ]
    sent = [pattern(500 + size)[500:] + b"" for size in sizes]
    with Client(server) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for start in range(0, len(sent), 50):
            part = sent[start : start + 50]
            for data in part:
                client.send(data)
            assert [client.read() for _ in part] == part
    reaches(server, messages=len(sizes), replies=len(sizes), bytes_out=sum(sizes))


@each_way
@pytest.mark.parametrize("suffix", ["", "!"])
def test_a_train_joined_on_the_way_is_handled_datagram_by_datagram(
    engine, backend, udp, suffix
) -> None:
    """D2. The sender hands the kernel 1,050 bytes to be cut by a hundred."""
    server, data = udp(suffix=suffix), pattern(1050)
    with Client(server) as client:
        try:
            client.sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        except OSError as error:
            pytest.skip(f"no UDP_SEGMENT: {error}")
        client.send(data)
        pieces = [client.read() for _ in range(11)]
    assert pieces == [data[i : i + 100] + suffix.encode() for i in range(0, 1050, 100)]
    reaches(server, messages=11, replies=11, bytes_in=1050)


@each_way
def test_concurrent_peers_each_get_their_own_replies(engine, backend, udp) -> None:
    """D2. Replies to different peers are never joined."""
    server = udp()
    clients = [Client(server) for _ in range(40)]
    for turn in range(5):
        for i, client in enumerate(clients):
            client.send(b"%d to %d" % (turn, i))
        assert [client.read() for client in clients] == [b"%d to %d" % (turn, i) for i in range(40)]
    for client in clients:
        client.sock.close()
    reaches(server, messages=200, replies=200)


ANSWERS = {
    "discard": lambda n, answer: answer is None,
    "daytime": lambda n, answer: answer.endswith(b"-UTC\r\n"),
    "chargen": lambda n, answer: (
        len(answer) == max(74, min(n, 512)) and answer.startswith(b' !"#$%')
    ),
}


@each_way
@pytest.mark.parametrize("service", ANSWERS)
@pytest.mark.parametrize("size", [0, 1, 300, 2000])
def test_each_service_answers_one_datagram_with_at_most_one_short_one(
    engine, backend, udp, service, size
) -> None:
    """RFC 863, 864, 867. Never more bytes back than came, or 512."""
    server = udp(service)
    with Client(server) as client:
        client.send(pattern(size))
        answer = None if service == "discard" else client.read()
        assert ANSWERS[service](size, answer)
        assert answer is None or len(answer) <= max(size, 512)
        reaches(server, messages=1, replies=int(service != "discard"))


@each_way
def test_a_port_that_would_answer_back_is_not_answered_unless_asked_to(
    engine, backend, udp
) -> None:
    """D4, RFC 862: two echo servers would talk for ever."""
    server, trusting = udp(), udp(answer_any_port=True)
    try:
        low = Client(server, ("127.0.0.1", next(iter(low_ports()))))
    except PermissionError:
        pytest.skip("not root: no port below 1024 to be had")
    with low, Client(server, ("127.0.0.2", server.endpoint.port)) as same:
        low.send(b"from below 1024")
        same.send(b"from its own number")
        reaches(server, messages=2, unanswered=2, replies=0)
        low.target = (trusting.endpoint.host, trusting.endpoint.port)
        assert low.ask(b"trusted") == b"trusted"


def low_ports() -> Iterator[int]:
    """A free privileged port."""
    for port in range(1023, 600, -1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                raise
            except OSError:
                continue
        yield port


@each_way
def test_a_denied_peer_is_not_answered(engine, backend, udp) -> None:
    """D4."""
    server = udp(allow=("127.0.0.0/8",), deny=("127.0.0.2",))
    with Client(server, ("127.0.0.2", 0)) as denied, Client(server, ("127.0.0.3", 0)) as allowed:
        denied.send(b"?")
        reaches(server, unanswered=1)
        assert allowed.ask(b"!") == b"!"
    reaches(server, messages=2, replies=1, unanswered=1)


@each_way
def test_a_peer_that_is_gone_costs_nothing_but_its_reply(engine, backend, udp) -> None:
    """D6. The kernel learns of the closed port by ICMP."""
    server = udp()
    for _ in range(20):
        with Client(server) as gone:
            gone.send(b"bye")
    with Client(server) as there:
        assert there.ask(b"still here") == b"still here"
    reaches(server, messages=21)


@each_way
def test_a_reply_too_long_for_a_datagram_is_counted_and_not_sent(engine, backend, udp) -> None:
    """D5, D6. The suffix does not fit any more."""
    server = udp(suffix="!")
    with Client(server) as client:
        client.send(pattern(DATAGRAM_BYTES_MAX))
        reaches(server, messages=1, replies=0, unsent=1)
        assert client.ask(b"short") == b"short!"


@each_way
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_port_and_each_peer_stays_with_one(engine, backend, udp, workers) -> None:
    server = udp(workers=workers)
    clients = [Client(server) for _ in range(100)]
    for client in clients:
        assert client.ask(b"a") == b"a"
        assert client.ask(b"b") == b"b"
        client.sock.close()
    shares = [each.messages for each in server.worker_statistics()]
    assert sum(shares) == 200
    assert all(share and share % 2 == 0 for share in shares), shares


@each_way
def test_a_stopping_server_answers_its_queue_even_under_a_flood(engine, backend, udp) -> None:
    """D1."""
    server = udp()
    with Client(server) as client:
        assert client.ask(b"x") == b"x"
        for i in range(30):
            client.send(b"%d" % i)
        server.drain()
        assert server.wait(20)
        assert [client.read() for _ in range(30)] == [b"%d" % i for i in range(30)]


@each_way
def test_busy_polling_serves_and_counts(engine, backend, udp) -> None:
    server = udp(busy_poll=200_000)
    with Client(server) as client:
        for _ in range(5):
            assert client.ask(b"spin") == b"spin"
    # Hit or miss depends on which thread runs when an answer wakes the client.
    eventually(
        lambda: server.statistics().busy_poll_hits + server.statistics().busy_poll_misses,
        why=server.statistics,
    )
    server.stop_now()
    assert server.wait(20)


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 40), st.sampled_from([100, 1472, 2000, 9000])),
        min_size=1,
        max_size=120,
    )
)
@pytest.mark.native
def test_every_row_answers_and_counts_the_same(sizes) -> None:
    found = []
    for engine, backend in ROWS:
        with (
            fastnet.serve(
                "echo", "udp://127.0.0.1:0", engine=engine, backend=backend, rcvbuf=1 << 22
            ) as server,
            Client(server) as client,
        ):
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            for i, size in enumerate(sizes):
                client.send(pattern(i + size)[i:])
            answers = [client.read() for _ in sizes]
            reaches(server, replies=len(sizes))
            found.append((answers, counts(server)))
    assert all(each == found[0] for each in found)
    assert found[0][0] == [pattern(i + size)[i:] for i, size in enumerate(sizes)]


def test_an_engine_of_the_other_kind_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="the epoll engine does not serve datagrams"):
        fastnet.serve("echo", "udp://127.0.0.1:0", engine="epoll")
    with pytest.raises(ConfigError, match="the mmsg engine does not serve connections"):
        fastnet.serve("echo", engine="mmsg")


def test_a_udp_port_in_use_is_one_line_with_the_hint() -> None:
    with fastnet.serve("echo", "udp://127.0.0.1:0", workers=2) as server:
        ended = finish("echo", "--udp", "--port", server.endpoint.port)
    assert ended.returncode == 4
    assert (
        f"cannot listen on udp://127.0.0.1:{server.endpoint.port}: address already in use."
        in ended.stderr
    )


def test_descriptors_come_back(udp) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
    for backend in BACKENDS:
        if not any(
            DATAGRAMS[name].module(backend) and not DATAGRAMS.why_not(name, backend)
            for name in DATAGRAMS
        ):
            continue
        for _ in range(20):
            with fastnet.serve("echo", "udp://127.0.0.1:0", backend=backend):
                pass
    assert len(os.listdir("/proc/self/fd")) == before
