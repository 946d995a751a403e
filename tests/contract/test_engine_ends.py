"""How connections and servers end: idle, reset, drained, stopped.

What engine/stream/contract.py promises of it (E1, E8 to E12).
"""

from __future__ import annotations

import contextlib
import os
import random
import socket

import pytest

from fastnet.limits import KIB, MIB
from tests.conftest import Dial, Serve
from tests.support.clients import Peer, connect, eventually, pattern, settled, statistics_reach
from tests.support.engine import prepared, running

STORM = 300


def gone(peer: Peer) -> bool:
    """Whether the server has ended this connection; reads and drops what it still sent."""
    try:
        return peer.read_to_end() is not None
    except ConnectionResetError:
        return True


def echoes(peer: Peer, data: bytes = b"hello") -> bool:
    peer.send(data)
    return peer.read(len(data)) == data


@pytest.mark.usefixtures("transport")
def test_a_silent_connection_is_closed_and_a_talking_one_survives(
    engine, backend, serve: Serve, dial: Dial, concurrency
) -> None:
    """E8."""
    server = serve(idle_timeout=0.15)
    silent = dial(server)
    talking = dial(server)
    if concurrency(server) > 1:
        silent.sock.setblocking(False)
        eventually(
            lambda: echoes(talking) and server.statistics().closed["idle"], why=server.statistics
        )
        silent.sock.settimeout(10)
    assert gone(silent)
    assert echoes(talking)
    talking.half_close()
    assert gone(talking)
    now = settled(server)
    assert (now["closed"]["idle"], now["closed"]["finished"]) == (1, 1)


def test_a_peer_that_never_reads_is_idle_once_nothing_moves(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E8, E7."""
    server = serve("chargen", idle_timeout=0.1, sndbuf=16 * KIB)
    peer = dial(server, rcvbuf=4 * KIB)
    statistics_reach(server, idle=1, open=0)
    assert gone(peer)


@pytest.mark.usefixtures("transport")
def test_chatter_after_our_end_does_not_keep_a_connection_alive(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E8. The peer has had its daytime and our FIN, and sends for ever."""
    server = serve("daytime", idle_timeout=0.15)
    peer = dial(server)
    assert peer.read_to_end()

    def chatter_is_refused() -> bool:
        try:
            peer.send(b"x")
        except ConnectionError:
            return True
        return False

    eventually(chatter_is_refused, why=server.statistics)
    assert settled(server)["closed"]["idle"] == 1


@pytest.mark.parametrize(
    "moment", ["immediately", "after a byte", "after half-close", "in the middle of 8 MiB"]
)
def test_a_reset_ends_that_connection_and_is_counted(
    engine, backend, serve: Serve, dial: Dial, moment
) -> None:
    """E9."""
    server = serve()
    peer = dial(server)
    if moment == "after a byte":
        assert echoes(peer)
    if moment == "after half-close":
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        peer.send(pattern(64 * KIB))
        peer.half_close()
        peer.read(1)
    if moment == "in the middle of 8 MiB":
        with peer.sending(pattern(8 * MIB), half_close=False):
            peer.read(1 * MIB)
    peer.reset()
    statistics_reach(server, accepted=1, open=0)
    assert dial(server).exchange(b"next") == b"next"
    ends = settled(server)["closed"]
    if moment == "after half-close":  # by then the server may have finished
        assert ends["reset"] + ends["finished"] == 2
    else:
        assert (ends["reset"], ends["finished"]) == (1, 1)


@pytest.mark.usefixtures("transport")
def test_a_peer_that_vanishes_while_the_server_sends_delays_no_other(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E9."""
    server = serve("chargen")
    peer = dial(server)
    peer.read(100_000)
    peer.close()
    statistics_reach(server, open=0, reset=1)
    assert len(dial(server).read(1000)) == 1000


@pytest.mark.usefixtures("transport")
def test_a_storm_of_scans_and_rubbish_disturbs_no_other_peer(
    engine, backend, serve: Serve, dial: Dial, concurrency
) -> None:
    """E9, E1. Connect and close, or reset, or send random bytes, hundreds of times."""
    server = serve()
    rubbish = random.Random(7)
    witness = dial(server) if concurrency(server) > 1 else None
    for i in range(STORM):
        peer = dial(server)
        if i % 3 == 2:
            peer.send(rubbish.randbytes(rubbish.randrange(1, 5000)))
        (peer.close, peer.reset, peer.close)[i % 3]()
        if witness is not None and i % 50 == 0:
            assert echoes(witness)
    statistics_reach(server, accepted=STORM + (witness is not None))
    if witness is not None:
        assert witness.exchange(b"undisturbed") == b"undisturbed"
    assert dial(server).exchange(b"after the storm") == b"after the storm"
    ends = settled(server)["closed"]
    assert ends["finished"] + ends["reset"] == server.statistics().accepted, ends


def test_a_drain_serves_what_was_already_queued(engine, backend) -> None:
    """E10. The peers were connected and the stop asked for before the engine ever looked."""
    with prepared(engine, backend, accept_burst=2) as loop:
        peers = [connect(loop.endpoint) for _ in range(12)]
        for peer in peers:
            peer.send(b"queued")
            peer.half_close()
        loop.context.stop.drain()
        loop.start()
        assert [peer.read_to_end() for peer in peers] == [b"queued"] * len(peers)
        for peer in peers:
            peer.close()
        assert loop.wait(5)
        assert settled(loop)["closed"]["finished"] == len(peers)


@pytest.mark.usefixtures("transport")
def test_a_drain_lets_established_connections_finish_and_takes_no_more(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E10."""
    server = serve()
    peer = dial(server)
    assert echoes(peer)
    server.drain()
    for _ in range(20):
        assert echoes(peer)
    assert not server.wait(0)
    assert peer.exchange(b"final message") == b"final message"
    peer.close()
    assert server.wait(5)
    with pytest.raises(OSError):
        connect(server.endpoint).exchange(b"too late")
    assert settled(server)["closed"]["finished"] == 1


def test_a_drain_at_the_connection_limit_still_serves_the_queue(engine, backend) -> None:
    """E10, E3. However long those inside go on talking."""
    with prepared(engine, backend, max_connections=1) as loop:
        inside = connect(loop.endpoint)
        loop.start()
        assert echoes(inside)
        queued = [connect(loop.endpoint) for _ in range(2)]
        for peer in queued:
            peer.send(b"queued")
            peer.half_close()
        assert echoes(inside)
        loop.context.stop.drain()
        for _ in range(200):
            assert echoes(inside)
        pauses = loop.statistics().accept_pauses
        assert pauses <= 2, "a pause is counted when it begins, not each time it is looked at"
        assert inside.exchange(b"done") == b"done"
        assert [peer.read_to_end() for peer in queued] == [b"queued"] * 2
        for peer in [inside, *queued]:
            peer.close()
        assert loop.wait(5)


@pytest.mark.usefixtures("transport")
def test_stopping_now_closes_even_those_in_the_middle_of_something(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E10, E1."""
    server = serve("chargen", sndbuf=16 * KIB)
    deaf = dial(server, rcvbuf=4 * KIB)
    deaf.read(1000)
    server.drain()
    assert not server.wait(0.02), "a drain waits for the endless stream"
    server.stop_now()
    assert server.wait(5)
    assert gone(deaf)
    assert settled(server)["closed"]["stopped"] == 1


@pytest.mark.usefixtures("transport")
def test_a_stop_reaches_every_loop_of_a_server(engine, backend, serve: Serve, dial: Dial) -> None:
    """E11. Several loops sleep in their own waits and all share one request to stop."""
    server = serve(workers=3)
    assert dial(server).exchange(b"x") == b"x"
    server.drain()
    assert server.wait(5), "a loop slept through the request"
    settled(server)


def test_statistics_are_read_while_the_loop_writes_them(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """E11. Bytes are seen as they move, and no reader ever sees more ends than beginnings."""
    server = serve()
    peer = dial(server)
    for n in range(1, 50):
        assert echoes(peer)
        statistics_reach(server, bytes_in=5 * n, bytes_out=5 * n, open=1)
    for _ in range(20):
        dial(server).reset()
        now = server.statistics()
        assert now.accepted >= sum(now.closed.values())


def test_listeners_stay_open_for_who_made_them(engine, backend) -> None:
    """E12."""
    with running(engine, backend, listeners=2) as loop:
        peer = connect(loop.endpoint)
        assert peer.exchange(b"x") == b"x"
        peer.close()
        loop.context.stop.drain()
        assert loop.wait(5)
        for listener in loop.context.listeners:
            os.fstat(listener.fileno())
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM


def test_a_listener_that_cannot_accept_is_the_engines_own_failure(engine, backend) -> None:
    """E9. The error of a connection never ends the engine, that of the listener does."""
    with prepared(engine, backend) as loop:
        loop.context.listeners[0].shutdown(socket.SHUT_RDWR)
        loop.start()
        with pytest.raises(OSError), contextlib.suppress(TimeoutError):
            loop.wait(5)
