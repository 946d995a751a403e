"""The connection of fastnet/1: frames stay whole, whatever is said meanwhile, and deadlines hold,
whatever the peer says.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.protocol.frames import HEAD, Frame, Kind, ProtocolError, pack_json
from fastnet.apps.transfer.session.connection import Broken, Channel
from fastnet.apps.transfer.session.session import Options, Session
from fastnet.limits import HEARTBEAT_S
from tests.support.clients import DEADLINE_S

SHORT_S = 0.2


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    theirs.settimeout(DEADLINE_S)
    with ours, theirs:
        yield Channel(ours, "peer", DEADLINE_S), theirs


def test_no_sign_of_life_gets_into_the_middle_of_a_frame(
    pair: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = pair
    session = Session(channel, Algorithm("none"), Options(), lambda event: None)
    waits = threading.Event()

    def look() -> None:
        session._beat -= HEARTBEAT_S
        session.beat()
        waits.set()

    channel.on_slice = look
    frame = pack_json(Kind.PLAN, {"skip": list(range(50_000))})
    sending = threading.Thread(target=channel.send, args=(frame,))
    sending.start()
    try:
        assert waits.wait(DEADLINE_S)
        data = b""
        while len(data) < len(frame):
            data += theirs.recv(1 << 16)
    finally:
        sending.join()
        session.close()
    assert data == frame
    session.beat()
    assert theirs.recv(1) == b"B"


def read_for_ever(channel: Channel) -> None:
    while True:
        channel.read(1 << 16)


def test_a_deadline_holds_although_the_peer_never_lets_us_wait(
    pair: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = pair
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            try:
                theirs.send(bytes(1 << 16))
            except OSError:
                return

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        channel.discard_until(monotonic() + SHORT_S)
        channel.deadline = monotonic() + SHORT_S
        with pytest.raises(Broken):
            read_for_ever(channel)
    finally:
        stop.set()
        channel.close()
        flooding.join()


def test_a_frame_that_is_not_due_is_not_read(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    for kind in set(Kind) - {Kind.PLAN, Kind.ALIVE, Kind.ERROR}:
        theirs.sendall(HEAD.pack(kind, 2))
        with pytest.raises(ProtocolError, match="where P is due"):
            channel.read_frame(Kind.PLAN)
    theirs.sendall(pack_json(Kind.PLAN, {}))
    assert channel.read_frame(Kind.PLAN) == Frame(Kind.PLAN, b"{}")
    theirs.sendall(pack_json(Kind.PLAN, {}))
    with pytest.raises(ProtocolError):
        channel.read_frame(Kind.PLAN, bytes_max=1)
