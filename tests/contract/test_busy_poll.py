"""`--busy-poll` changes when a byte arrives and what is counted, never what arrives."""

from __future__ import annotations

import pytest

from fastnet.load.contract import LoadPlan
from fastnet.load.run import run
from fastnet.registry import BACKENDS
from tests.support.cli_process import finish
from tests.support.clients import Peer, eventually, pattern

LONG_US = 1_000_000
"""Longer than a peer of the same machine takes to answer, however busy that is."""


def talk(peer: Peer, data: bytes) -> bytes:
    peer.send(data)
    return peer.read(len(data))


@pytest.mark.usefixtures("backend")
def test_a_peer_that_answers_in_time_is_waited_for_without_sleeping(
    engine, transport, serve, dial
) -> None:
    server = serve(busy_poll=LONG_US)
    peer = dial(server)
    for n in (1, 100, 10_000):
        assert talk(peer, pattern(n)) == pattern(n)
    found = server.statistics()
    # Not three: on a busy machine the peer may have spoken again before the server began to look.
    assert found.busy_poll_hits >= 1
    peer.half_close()
    assert peer.read_to_end() == b""


@pytest.mark.usefixtures("backend")
def test_a_spin_in_vain_ends_and_the_loop_sleeps(engine, serve, dial) -> None:
    server = serve(busy_poll=1)
    peer = dial(server)
    assert talk(peer, b"x") == b"x"
    eventually(lambda: server.statistics().busy_poll_misses >= 1)
    assert talk(peer, b"still served") == b"still served"


@pytest.mark.usefixtures("backend")
def test_without_it_no_loop_ever_spins(engine, serve, dial) -> None:
    server = serve()
    assert talk(dial(server), b"x") == b"x"
    found = server.statistics()
    assert (found.busy_poll_hits, found.busy_poll_misses) == (0, 0)


@pytest.mark.usefixtures("backend")
def test_a_busy_polling_server_still_stops_when_it_is_asked_to(engine, serve, dial) -> None:
    server = serve(busy_poll=LONG_US)
    peer = dial(server)
    assert talk(peer, b"x") == b"x"
    server.stop_now()
    assert server.wait(20)
    assert server.statistics().closed["stopped"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_spinning_load_gets_every_byte_it_sent(backend, serve) -> None:
    server = serve(backend=backend)
    for connections in (1, 3):
        report = run(
            LoadPlan(server.endpoint, connections, messages=300, busy_poll_us=1000), backend=backend
        )
        assert report.ok
        assert report.messages == 300


def test_a_spinning_client_passes_every_byte_on(serve) -> None:
    server = serve()
    text = "one\ntwo\n" * 1000
    done = finish("connect", server.endpoint, "--busy-poll", 500, stdin=None, input=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, "")
