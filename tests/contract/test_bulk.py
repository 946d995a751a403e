"""Connections that alternate between short and long messages, and their ends in either.

The uring engine reads them in two ways: one-shot receives, and bulk receives.
"""

from __future__ import annotations

import pytest

from fastnet.limits import KIB, RING_BULK_BYTES, RING_BULK_READS
from tests.support.clients import Peer, pattern, settled

LONG = pattern(4 * RING_BULK_BYTES)
SHORT = pattern(100)


def talk(peer: Peer, data: bytes) -> None:
    peer.send(data)
    assert peer.read(len(data)) == data


def short_ones(peer: Peer, n: int) -> None:
    for _ in range(n):
        talk(peer, SHORT)


@pytest.mark.usefixtures("backend", "transport")
def test_short_and_long_messages_take_turns_and_no_byte_is_lost(engine, serve, dial) -> None:
    """E5. Long messages make it a bulk connection.

    RING_BULK_READS short ones in a row make it an ordinary one again.
    """
    server = serve()
    peer = dial(server)
    for n in (1, RING_BULK_READS // 2, 2 * RING_BULK_READS, 0, 1):
        talk(peer, LONG)
        talk(peer, LONG)
        short_ones(peer, n)
    assert peer.exchange(LONG) == LONG
    peer.close()
    now = settled(server)
    sent = 11 * len(LONG) + (2 + RING_BULK_READS // 2 + 2 * RING_BULK_READS) * len(SHORT)
    assert (now["bytes_in"], now["bytes_out"], now["closed"]["finished"]) == (sent, sent, 1)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("short", [0, RING_BULK_READS], ids=["while bulk", "after it"])
@pytest.mark.parametrize("end", ["half-close", "reset", "stop", "idle"])
def test_a_bulk_connection_ends_like_any_other(engine, serve, dial, short, end) -> None:
    """E1, E8, E9."""
    server = serve(idle_timeout=0.2 if end == "idle" else 0)
    peer = dial(server)
    talk(peer, LONG)
    short_ones(peer, short)
    if end == "half-close":
        assert peer.exchange(SHORT) == SHORT
    elif end == "reset":
        peer.reset()
    elif end == "stop":
        server.stop_now()
        assert server.wait(20)
    peer.read_to_end() if end == "idle" else peer.close()
    reasons = {"half-close": "finished", "reset": "reset", "stop": "stopped", "idle": "idle"}
    found = settled(server)
    assert found["closed"][reasons[end]] == 1, found


@pytest.mark.usefixtures("backend")
def test_a_bulk_peer_that_does_not_read_is_not_read_and_resumes(engine, serve, dial) -> None:
    """E7. The peer sends much more than all buffers hold.

    It reads nothing until the server has stopped reading.
    """
    data = pattern(3_000 * KIB)
    server = serve(sndbuf=16 * KIB)
    peer = dial(server, rcvbuf=4 * KIB)
    talk(peer, LONG)
    with peer.sending(data):
        assert peer.read_to_end() == data
    peer.close()
    assert settled(server)["closed"]["finished"] == 1
