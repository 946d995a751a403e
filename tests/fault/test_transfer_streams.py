"""Further connections of a transfer, held by a forged peer.

No wrong file gets its name, and no side waits for ever.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from fastnet.apps.transfer.protocol.frames import HEAD, MAGIC, FrameKind, ProtocolError, pack_json
from fastnet.errors import TransferError
from fastnet.limits import EXTENT_BYTES, STREAMS_MAX
from tests.support.clients import eventually
from tests.support.forged_peer import (
    Forger,
    Victim,
    digest_of,
    extent,
    file_row,
    finish,
    pack,
    receiving,
    tree,
)

FILE_BYTES = 2 * EXTENT_BYTES
DATA = bytes(FILE_BYTES)
NAME = "file"
TCP_CLOSE = 7
"""A state of tcp(7): after a FIN it would be CLOSE_WAIT."""


class Liar(Forger):
    """A sender whose manifest was accepted. session_id: for further connections."""

    def __init__(self, victim: Victim, *rows: list[object], streams: int = STREAMS_MAX) -> None:
        super().__init__(victim.dial(), "send", streams=streams)
        assert self.exactly(len(MAGIC)) == MAGIC
        self.session_id = json.loads(self.receive_until(FrameKind.HELLO))["session_id"]
        self.manifest(*(rows or [file_row(NAME, DATA)]), data_bytes=FILE_BYTES)
        self.receive_until(FrameKind.PLAN)

    def end(self, extents: int) -> None:
        self.frame(
            FrameKind.END, {"entry": 0, "size": FILE_BYTES, "digest": "", "extents": extents}
        )

    def finish(self, *files: tuple[int, bytes]) -> None:
        """An honest end."""
        self.send_bytes(finish(*files))
        self.receive_until(FrameKind.ACK)
        self.frame(FrameKind.FINISH, {})


def data_connection(victim: Victim, session_id: str) -> Forger:
    """A further connection."""
    return Forger(victim.dial(), "send", joins_session=session_id).after_hello()


def test_an_unknown_session_id_is_refused_and_does_not_disturb_the_transfer(
    tmp_path: Path,
) -> None:
    data = b"small"
    with receiving(tmp_path / "in") as victim, Liar(victim, file_row(NAME, data)) as liar:
        for session_id in ("no session_id", liar.session_id[:-1], liar.session_id + "0"):
            with data_connection(victim, session_id) as forger:
                assert b"no such transfer" in forger.receive_until(FrameKind.ERROR)
        liar.send_bytes(pack((0, data)))
        liar.finish((0, data))
        assert victim.end() is None
    assert tree(tmp_path / "in") == {NAME: data}


def test_one_that_comes_before_the_transfer_has_begun_belongs_to_it(tmp_path: Path) -> None:
    with receiving(tmp_path / "in") as victim, Forger(victim.dial(), "send", streams=2) as one:
        assert one.exactly(len(MAGIC)) == MAGIC
        with data_connection(
            victim, json.loads(one.receive_until(FrameKind.HELLO))["session_id"]
        ) as other:
            kind, _ = HEAD.unpack(other.exactly(HEAD.size))
            assert kind == FrameKind.KEEPALIVE


def test_connections_beyond_the_most_are_closed(tmp_path: Path) -> None:
    with receiving(tmp_path / "in") as victim, Liar(victim) as liar:
        further = [data_connection(victim, liar.session_id) for _ in range(STREAMS_MAX - 1)]
        with (
            data_connection(victim, liar.session_id) as one_more,
            pytest.raises((EOFError, ConnectionError)),
        ):
            one_more.receive_frame()
        for each in further:
            each.sock.close()


@pytest.mark.parametrize(
    "what",
    [
        pack((0, b"x")),
        pack_json(FrameKind.FINISH, {}),
        pack_json(FrameKind.END, {"entry": 0, "size": 0, "digest": ""}),
        extent(1, 0, b"of an entry that there is not"),
        extent(0, FILE_BYTES, b"beyond the end"),
        HEAD.pack(FrameKind.EXTENT, 0),
        b"GET / HTTP/1.0\r\n\r\n",
    ],
    ids=[
        "a pack",
        "a finish",
        "an end",
        "no entry",
        "beyond the end",
        "an empty extent",
        "no frame",
    ],
)
def test_what_no_further_connection_may_say_ends_the_transfer(what, tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "in") as victim,
        Liar(victim) as liar,
        data_connection(victim, liar.session_id) as other,
    ):
        other.send_bytes(what)
        assert isinstance(victim.end(), ProtocolError)
    assert NAME not in tree(tmp_path / "in")


def test_a_wrong_digest_in_a_further_connection_is_found(tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "in") as victim,
        Liar(victim) as liar,
        data_connection(victim, liar.session_id) as other,
    ):
        right = extent(0, 0, DATA[:1000])
        other.send_bytes(right[:-1], b"!")
        error = victim.end()
    assert isinstance(error, TransferError)
    assert "digests differ" in str(error)
    assert NAME not in tree(tmp_path / "in")


def test_extents_that_overlap_in_two_connections_are_found(tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "in") as victim,
        Liar(victim) as liar,
        data_connection(victim, liar.session_id) as other,
    ):
        liar.send_bytes(extent(0, 0, DATA[: EXTENT_BYTES + 1]))
        other.send_bytes(extent(0, EXTENT_BYTES, DATA[EXTENT_BYTES:]))
        liar.end(2)
        error = victim.end()
    assert isinstance(error, ProtocolError)
    assert "overlap" in str(error)
    assert NAME not in tree(tmp_path / "in")


def test_an_announced_extent_that_never_comes_is_awaited_up_to_the_timeout(
    tmp_path: Path,
) -> None:
    with (
        receiving(tmp_path / "in", stall_s=0.5) as victim,
        Liar(victim) as liar,
        data_connection(victim, liar.session_id),
    ):
        liar.send_bytes(extent(0, 0, DATA))
        liar.end(2)
        error = victim.end()
    assert isinstance(error, TransferError)
    assert "silent" in str(error)
    assert NAME not in tree(tmp_path / "in")


def test_more_extents_than_the_sender_counts_are_no_file(tmp_path: Path) -> None:
    with receiving(tmp_path / "in") as victim, Liar(victim) as liar:
        liar.send_bytes(
            extent(0, 0, DATA[:EXTENT_BYTES]), extent(0, EXTENT_BYTES, DATA[EXTENT_BYTES:])
        )
        liar.end(1)
        assert isinstance(victim.end(), ProtocolError)
    assert NAME not in tree(tmp_path / "in")


def test_a_further_connection_that_says_nothing_delays_no_transfer(tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "in", stall_s=0.5) as victim,
        Liar(victim) as liar,
        data_connection(victim, liar.session_id),
    ):
        liar.send_bytes(extent(0, 0, DATA))
        liar.frame(
            FrameKind.END,
            {"entry": 0, "size": FILE_BYTES, "digest": digest_of(DATA).hex(), "extents": 1},
        )
        liar.finish((0, DATA))
        assert victim.end() is None
    assert tree(tmp_path / "in") == {NAME: DATA}


def test_a_further_connection_needs_the_token_too(tmp_path: Path) -> None:
    with (
        receiving(tmp_path / "in", token=b"a token of sixteen") as victim,
        Forger(victim.dial(), "send", has_token=True) as one,
    ):
        assert one.exactly(len(MAGIC)) == MAGIC
        session_id = json.loads(one.receive_until(FrameKind.HELLO))["session_id"]
        with Forger(victim.dial(), "send", joins_session=session_id) as other:
            assert other.exactly(len(MAGIC)) == MAGIC
            assert b"token" in other.receive_until(FrameKind.ERROR)


def test_a_receiver_that_gives_up_resets_and_does_not_merely_end(tmp_path: Path) -> None:
    """A sender that waits for buffer space does not see a FIN, for up to a minute on Linux."""
    with receiving(tmp_path / "in") as victim, Liar(victim) as liar:
        with data_connection(victim, liar.session_id) as further:
            kind, length = HEAD.unpack(further.exactly(HEAD.size))
            assert (kind, len(further.exactly(length))) == (FrameKind.KEEPALIVE, length), (
                "it has joined"
            )
            liar.sock.close()
            eventually(
                lambda: (
                    further.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE
                )
            )
        assert isinstance(victim.end(), TransferError)
