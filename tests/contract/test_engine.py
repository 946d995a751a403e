"""What engine/stream/contract.py promises while a server runs (E1 to E7).

How connections and servers end (E1, E8 to E12) is in test_engine_ends.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator

import pytest

from fastnet.engine.stream import ENGINES
from fastnet.limits import KIB, MIB, READ_BYTES
from fastnet.testing.engine import check_a_burst_is_served, check_every_listener_is_served
from tests.conftest import Dial, Serve
from tests.support.clients import Peer, eventually, pattern, settled, statistics_reach
from tests.support.leaks import descriptors

STUCK_MS = 150
"""A send buffer that has had no room for this time is full."""


def fill(peer: Peer) -> int:
    """Send without ever reading until no more fits or the server closes the connection.

    Returns the bytes that fitted.
    """
    poll = select.poll()
    poll.register(peer.sock, select.POLLOUT)
    peer.sock.setblocking(False)
    sent, block = 0, bytes(64 * KIB)
    with contextlib.suppress(ConnectionError):
        while poll.poll(STUCK_MS):
            with contextlib.suppress(BlockingIOError):
                sent += peer.sock.send(block)
    peer.sock.settimeout(10)
    return sent


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """While the block lasts every descriptor that RLIMIT_NOFILE allows is in use.

    Lowering the limit would not do, for io_uring reads it when an accept is submitted.
    """
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)


@pytest.mark.usefixtures("transport")
def test_a_stopped_server_has_closed_and_counted_every_connection(
    engine, backend, serve: Serve, dial: Dial, concurrency
) -> None:
    """E1."""
    server = serve()
    peers = [dial(server) for _ in range(min(3, concurrency(server)))]
    for peer in peers:
        peer.send(b"x")
        assert peer.read(1) == b"x"
    assert not server.wait(0.01), "it returned although stop had not been called"
    server.stop_now()
    assert server.wait(5)
    assert [peer.read_to_end() for peer in peers] == [b""] * len(peers)
    now = server.statistics()
    assert (now.accepted, now.open, now.closed["stopped"]) == (len(peers), 0, len(peers))


def test_connections_are_accepted_from_every_listener(engine, backend) -> None:
    """E2."""
    check_every_listener_is_served(engine, backend)


def test_a_burst_of_arrivals_leaves_established_connections_their_turn(engine, backend) -> None:
    """E2. Every peer is served with a burst of one and more arrivals than fit a wait."""
    check_a_burst_is_served(engine, backend)


@pytest.mark.usefixtures("transport")
def test_accepting_pauses_at_the_connection_limit_and_resumes_below_it(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E3."""
    bound = ENGINES[engine].bound
    limit = 1 if bound == 1 else 2
    server = serve(max_connections=limit)
    inside = [dial(server) for _ in range(limit)]
    for peer in inside:
        peer.send(b"a")
        assert peer.read(1) == b"a"
    waiting = dial(server)
    waiting.send(b"b")
    if bound != 1:  # one that serves one at a time is always at its limit, and has nothing to count
        eventually(lambda: server.statistics().accept_pauses, why=server.statistics)
    inside[0].send(b"c")
    assert inside[0].read(1) == b"c"
    assert server.statistics().accepted == limit
    inside[0].close()
    assert waiting.read(1) == b"b"
    assert server.statistics().accepted == limit + 1


def test_no_descriptor_left_pauses_accepting_and_is_counted_not_fatal(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E3."""
    server = serve()
    first = dial(server)
    assert first.exchange(b"it runs") == b"it runs"
    first.close()
    settled(server)
    eventually(lambda: "anon_inode:[pidfd]" not in descriptors().values())
    with socket.socket() as peer:
        peer.settimeout(10)
        with no_descriptors():
            peer.connect((server.endpoint.host, server.endpoint.port))
            peer.sendall(b"x")
            eventually(lambda: server.statistics().accept_pauses >= 2, why=server.statistics)
            assert server.statistics().accepted == 1
        assert peer.recv(1) == b"x"


def test_a_lack_of_descriptors_spares_the_connections_there_are(
    engine, backend, serve: Serve, dial: Dial, concurrency
) -> None:
    """E3, E6."""
    server = serve()
    if concurrency(server) < 2:
        pytest.skip(f"{engine} serves one connection at a time")
    inside, outside = dial(server), socket.socket()
    inside.send(b"x")
    assert inside.read(1) == b"x"
    with outside, no_descriptors():
        outside.connect((server.endpoint.host, server.endpoint.port))
        eventually(lambda: server.statistics().accept_pauses, why=server.statistics)
        inside.send(b"still here")
        assert inside.read(10) == b"still here"


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://:0"])
def test_a_denied_peer_gets_nothing_and_an_allowed_one_service(
    engine, backend, serve: Serve, dial: Dial, endpoint
) -> None:
    """E4. On a dual-stack listener ::ffff:a.b.c.d is matched by its IPv4 address."""
    server = serve("daytime", endpoint, allow=("127.0.0.0/8",), deny=("127.0.0.2",))
    denied = dial(server, source="127.0.0.2", host="127.0.0.1")
    with contextlib.suppress(ConnectionResetError):
        assert denied.read_to_end() == b"", "the service spoke to a denied peer"
    allowed = dial(server, source="127.0.0.3", host="127.0.0.1")
    assert allowed.read_to_end().endswith(b"-UTC\r\n")
    allowed.close()
    now = settled(server)
    assert (now["accepted"], now["closed"]["denied"], now["closed"]["finished"]) == (2, 1, 1)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("127.0.0.0/8", "127.0.0.1", "::1"),
        ("0.0.0.0/0", "127.0.0.1", "::1"),
        ("::/0", "::1", "127.0.0.1"),
    ],
)
def test_a_list_of_allowed_networks_shuts_out_the_other_family(
    engine, backend, serve: Serve, dial: Dial, network, inside, outside
) -> None:
    """E4. ::/0 does not match an IPv4 peer of a dual-stack listener (::ffff:a.b.c.d)."""
    server = serve("echo", "tcp://:0", allow=(network,))
    assert dial(server, host=inside).exchange(b"in") == b"in"
    outsider = dial(server, host=outside)
    with contextlib.suppress(ConnectionResetError):
        assert outsider.read_to_end() == b""
    assert settled(server)["closed"]["denied"] == 1


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 1 * MIB, 10 * MIB], ids="size={}".format)
def test_echo_returns_every_byte_once_and_in_order_before_its_end(
    engine, backend, serve: Serve, dial: Dial, size
) -> None:
    """E5. What was received before the peer's half-close is echoed, followed by FIN.

    10 MiB is more than all buffers hold.
    """
    server, data = serve(), pattern(size)
    peer = dial(server)
    assert peer.exchange(data) == data
    peer.close()
    now = settled(server)
    assert (now["bytes_in"], now["bytes_out"], now["closed"]["finished"]) == (size, size, 1)


@pytest.mark.usefixtures("transport")
def test_a_reader_slower_than_the_server_still_gets_every_byte(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E5, E7. A peer with small buffers that reads a few bytes at a time.

    It makes the server fill its write buffer, stop reading and resume again and again.
    """
    server, data = serve(sndbuf=8 * KIB), pattern(600 * KIB)
    peer = dial(server, rcvbuf=4 * KIB)
    got = bytearray()
    with peer.sending(data):
        while piece := peer.sock.recv(4999):
            got += piece
    assert bytes(got) == data
    peer.close()
    assert settled(server)["bytes_out"] == len(data)


def test_bytes_written_one_by_one_come_back_one_by_one(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E5."""
    server = serve()
    peer = dial(server)
    for byte in range(256):
        peer.send(bytes([byte]))
        assert peer.read(1) == bytes([byte])
    with peer.sending(bytes(range(256)) * 4, chunk=1):
        assert peer.read_to_end() == bytes(range(256)) * 4


def test_a_peer_that_does_not_read_is_no_longer_read_and_delays_no_other(
    engine, backend, serve: Serve, dial: Dial, concurrency
) -> None:
    """E6, E7. Its own TCP stops it; what the server keeps for it is bounded by one read."""
    server = serve(sndbuf=64 * KIB, rcvbuf=64 * KIB)
    deaf = dial(server, rcvbuf=16 * KIB, sndbuf=16 * KIB)
    fitted = fill(deaf)
    now = server.statistics()
    assert now.write_buffer_bytes <= READ_BYTES
    assert fitted < 4 * MIB, "the server continued to read from a peer that does not read"
    if concurrency(server) > 1:
        assert dial(server).exchange(b"hello") == b"hello"
    deaf.half_close()
    assert len(deaf.read_to_end()) == fitted
    deaf.close()
    assert settled(server)["bytes_out"] == server.statistics().bytes_in


def test_write_buffer_overload_closes_only_the_connection_that_adds_more(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E6. An engine that blocks in send has no write buffer, so it has nothing to close."""
    server = serve(sndbuf=4 * KIB, rcvbuf=READ_BYTES, max_write_buffer=READ_BYTES)
    if server.plan.engine.parts(server.plan.limits) or server.plan.engine.bound == 1:
        pytest.skip(f"{engine} has no write buffer")
    good = dial(server)
    deaf = [dial(server, rcvbuf=4 * KIB) for _ in range(6)]
    for peer in deaf:
        fill(peer)
    statistics_reach(server, open=1 + len(deaf) - server.statistics().closed["overload"])
    assert server.statistics().closed["overload"] >= 1
    assert server.statistics().write_buffer_bytes <= READ_BYTES
    assert good.exchange(b"hello") == b"hello"
    for peer in deaf:
        peer.reset()
    settled(server)
