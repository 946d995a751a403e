"""The fastnet/1 connection: frames stay whole, deadlines hold, whatever the peer sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.options import TransferOptions
from fastnet.apps.transfer.protocol.frames import HEAD, Frame, FrameKind, ProtocolError, pack_json
from fastnet.apps.transfer.session.connection import ConnectionLost, TransferConnection
from fastnet.apps.transfer.session.session import SessionParameters, TransferSession
from fastnet.limits import HEARTBEAT_S
from tests.support.clients import DEADLINE_S

SHORT_S = 0.2


@pytest.fixture
def pair() -> Iterator[tuple[TransferConnection, socket.socket]]:
    """A connection and the socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    theirs.settimeout(DEADLINE_S)
    with ours, theirs:
        yield TransferConnection(ours, "peer", DEADLINE_S), theirs


def test_no_keepalive_is_sent_in_the_middle_of_a_frame(
    pair: tuple[TransferConnection, socket.socket],
) -> None:
    connection, theirs = pair
    session = TransferSession(
        SessionParameters(connection, Algorithm("none"), TransferOptions(), lambda event: None)
    )
    waits = threading.Event()

    def poll() -> None:
        session._keepalive_at -= HEARTBEAT_S
        session.send_keepalive()
        waits.set()

    connection.on_slice = poll
    frame = pack_json(FrameKind.PLAN, {"skip": list(range(50_000))})
    sending = threading.Thread(target=connection.send, args=(frame,))
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
    session.send_keepalive()
    assert theirs.recv(1) == b"L"


def read_for_ever(connection: TransferConnection) -> None:
    while True:
        connection.read(1 << 16)


def test_a_deadline_holds_although_the_peer_never_lets_us_wait(
    pair: tuple[TransferConnection, socket.socket],
) -> None:
    connection, theirs = pair
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
        connection.discard_until(monotonic() + SHORT_S)
        connection.deadline = monotonic() + SHORT_S
        with pytest.raises(ConnectionLost):
            read_for_ever(connection)
    finally:
        stop.set()
        connection.close()
        flooding.join()


def test_a_frame_that_is_not_due_is_not_read(
    pair: tuple[TransferConnection, socket.socket],
) -> None:
    connection, theirs = pair
    for kind in set(FrameKind) - {FrameKind.PLAN, FrameKind.KEEPALIVE, FrameKind.ERROR}:
        theirs.sendall(HEAD.pack(kind, 2))
        with pytest.raises(ProtocolError, match="where P is due"):
            connection.read_frame(FrameKind.PLAN)
    theirs.sendall(pack_json(FrameKind.PLAN, {}))
    assert connection.read_frame(FrameKind.PLAN) == Frame(FrameKind.PLAN, b"{}")
    theirs.sendall(pack_json(FrameKind.PLAN, {}))
    with pytest.raises(ProtocolError):
        connection.read_frame(FrameKind.PLAN, bytes_max=1)
