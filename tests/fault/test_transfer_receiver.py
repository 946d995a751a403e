"""A forged sender: the receiver keeps its limits of memory and time, and names the fault."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import threading
from pathlib import Path
from time import monotonic

import pytest

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.frames import (
    HEAD,
    MAGIC,
    FrameKind,
    pack_digest,
    pack_extent,
    pack_json,
)
from fastnet.errors import NetworkError, TransferError
from fastnet.limits import FAREWELL_S
from tests.support.clients import DEADLINE_S, eventually
from tests.support.forged_peer import (
    STALL_S,
    Forger,
    Row,
    digest_of,
    extent,
    file_row,
    finish,
    flooding,
    pack,
    receiving,
    refused,
    tree,
)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


def head(kind: int, length: int) -> bytes:
    return HEAD.pack(kind, length)


GIB = 1 << 30
HEADS = {
    "an extent of a GiB": head(FrameKind.EXTENT, GIB),
    "a compressed extent": head(FrameKind.COMPRESSED, GIB),
    "a pack": head(FrameKind.PACK, 1 << 20),
    "a plan": head(FrameKind.PLAN, 1 << 20),
    "a word of done": head(FrameKind.ACK, 10),
    "2^32 - 1 bytes": head(FrameKind.MANIFEST, (1 << 32) - 1),
    "no kind": head(0, 0),
    "another kind": head(ord("Q"), 5),
    "all ones": b"\xff" * 5,
}


DUE = [("data", "an extent of a GiB"), ("data", "a pack")]
NOT_DUE = [
    pytest.param(when, frame, id=f"{when}-{name}")
    for when in ("hello", "manifest", "data")
    for name, frame in HEADS.items()
    if (when, name) not in DUE
]


@pytest.mark.parametrize(("when", "frame"), NOT_DUE)
def test_a_frame_that_is_not_due_is_refused_before_any_of_it_is_kept(
    inside: Path, when: str, frame: bytes
) -> None:
    """Its head alone is sent; a receiver that waits for the rest would wait to the timeout."""
    with receiving(inside, wait_s=1.0 if when == "hello" else None) as side:
        with side.dial() as sock:
            if when == "hello":
                sock.sendall(MAGIC + frame)
            else:
                forger = Forger(sock, "send")
                if when == "data":
                    forger.manifest(file_row("a"))
                forger.send_bytes(frame)
            began_s = monotonic()
            with contextlib.suppress(ConnectionError):
                while sock.recv(1 << 16):
                    pass
            assert monotonic() - began_s < STALL_S / 2
        error = side.end()
    if when == "hello":
        assert isinstance(error, NetworkError), "an unauthenticated peer took the place"
    else:
        refused(error)
    assert tree(inside) == {}


KEEPALIVE = head(FrameKind.KEEPALIVE, 0) * 1000


def test_a_peer_that_floods_with_signs_of_life_instead_of_a_manifest_is_left(inside: Path) -> None:
    with (
        receiving(inside, stall_s=1.0) as side,
        Forger(side.dial(), "send") as forger,
        flooding(forger, KEEPALIVE),
    ):
        error = side.end()
    refused(error, ErrorCode.STALLED)


def test_a_transfer_that_is_flooded_with_signs_of_life_can_be_stopped(inside: Path) -> None:
    with receiving(inside) as side, Forger(side.dial(), "send").after_hello() as forger:
        forger.manifest(file_row("a"))
        forger.receive_until(FrameKind.PLAN)
        with flooding(forger, KEEPALIVE):
            side.stop()
            refused(side.end(), ErrorCode.INTERRUPTED)


def test_a_refused_peer_that_talks_on_for_ever_is_left(inside: Path) -> None:
    with receiving(inside) as side, Forger(side.dial(), "send") as forger:
        forger.manifest(file_row("../a"))
        with flooding(forger, bytes(1 << 16)):
            refused(side.end(FAREWELL_S + DEADLINE_S))


def test_a_manifest_that_comes_byte_by_byte_is_not_waited_for(inside: Path) -> None:
    frame = pack_json(FrameKind.MANIFEST, {"entries": [file_row("a" * 200)] * 100})
    with receiving(inside, stall_s=1.0) as side, Forger(side.dial(), "send") as forger:
        waited = threading.Event()
        for i in range(len(frame)):
            forger.send_bytes(frame[i : i + 1])
            if side.is_over() or waited.wait(0.05):
                break
        assert i < len(frame) - 1
        refused(side.end(), ErrorCode.STALLED)


def test_a_sender_that_has_our_word_and_never_ends_does_not_hold_us(inside: Path) -> None:
    with (
        receiving(inside, stall_s=1.0) as side,
        Forger(side.dial(), "send").after_hello() as forger,
    ):
        forger.manifest(file_row("a"))
        forger.send_bytes(pack((0, b"x")), finish((0, b"x")))
        forger.receive_until(FrameKind.ACK)
        with flooding(forger, KEEPALIVE):
            assert side.end() is None
    assert tree(inside) == {"a": b"x"}


JSON = {
    "nested lists": b'{"entries":' + b"[" * 500_000,
    "nested objects": b'{"a":' * 100_000,
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"",
    "half of it": b'{"entries": [',
    "digits": b'{"entries": ' + b"9" * 500_000 + b"}",
    "not a number": b'{"entries": NaN}',
    "no UTF-8": b'{"entries": "\xff"}',
    "UTF-16": '{"entries": []}'.encode("utf-16"),
    "entries that are none": b'{"entries": {"a": 1}}',
    "an empty part": b'{"entries": []}',
    "last that is no truth": b'{"entries": [], "last": 1}',
}


@pytest.mark.parametrize("payload", JSON.values(), ids=JSON.keys())
def test_a_control_frame_that_is_no_such_object_is_refused(inside: Path, payload: bytes) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send") as forger:
            forger.send_bytes(head(FrameKind.MANIFEST, len(payload)), payload)
            forger.drain()
        refused(side.end())
    assert tree(inside) == {}


BIG = bytes(200_000)
BIG_ROW = file_row("big", BIG)
LIES = {
    "another entry": extent(1, 0, BIG),
    "an entry that is not there": extent(7, 0, BIG),
    "beyond its end": extent(0, 1, BIG),
    "far beyond its end": pack_extent(0, (1 << 64) - 1, 10) + bytes(10),
    "an offset of 2^63": pack_extent(0, 1 << 63, 10) + bytes(10),
    "no bytes": pack_extent(0, 0, 0),
    "a head cut short": head(FrameKind.EXTENT, 5) + bytes(5),
    "twice the same": extent(0, 0, BIG[:10]) * 2,
    "without a digest": pack_extent(0, 0, 10) + bytes(10) + pack_extent(0, 10, 10) + bytes(10),
    "a digest of nothing": pack_digest(0, 0, 10, bytes(16)),
    "a digest of another extent": pack_extent(0, 0, 10)
    + bytes(10)
    + pack_digest(0, 0, 11, bytes(16)),
    "a digest cut short": head(FrameKind.DIGEST, 3) + bytes(3),
    "the end before all of it": pack_json(
        FrameKind.END, {"entry": 0, "size": 10, "digest": digest_of(BIG[:10]).hex()}
    ),
    "an end without a size": pack_json(FrameKind.END, {"entry": 0}),
    "an end of 2^64 bytes": pack_json(FrameKind.END, {"entry": 0, "size": 1 << 64, "digest": ""}),
    "the end of another one": pack_json(
        FrameKind.END, {"entry": 1, "size": 1, "digest": digest_of(b"x").hex()}
    ),
    "all over": finish(),
    "all over, with the proof of nothing": pack_json(
        FrameKind.FINISH, {"transcript": "", "files": 2}
    ),
    "a pack out of order": pack((1, b"x")),
    "a pack of another size": pack((0, b"x")),
    "a pack with a table of 2^32 files": head(FrameKind.PACK, 4) + b"\xff" * 4,
    "a pack shorter than its files": head(FrameKind.PACK, 28)
    + (1).to_bytes(4, "big")
    + bytes(4)
    + b"\xff" * 4
    + bytes(16),
    "a pack longer than its files": head(FrameKind.PACK, 10) + bytes(10),
}


@pytest.mark.parametrize("frames", LIES.values(), ids=LIES.keys())
def test_data_other_than_announced_is_refused_and_no_file_gets_its_name(
    inside: Path, frames: bytes
) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(BIG_ROW, file_row("small"))
            forger.receive_until(FrameKind.PLAN)
            forger.send_bytes(frames)
            forger.drain()
        refused(side.end())
    assert set(tree(inside)) <= {".big.fastnet-part", ".big.fastnet-journal"}


SMALL = bytearray(pack((0, b"x")))
SMALL[-1] ^= 1
WRONG = {
    "an extent": (
        BIG_ROW,
        pack_extent(0, 0, len(BIG)) + BIG + pack_digest(0, 0, len(BIG), bytes(16)),
    ),
    "a packed file": (file_row("a"), bytes(SMALL)),
    "the whole": (
        BIG_ROW,
        extent(0, 0, BIG)
        + pack_json(FrameKind.END, {"entry": 0, "size": len(BIG), "digest": "00"}),
    ),
}


@pytest.mark.parametrize(("row", "frames"), WRONG.values(), ids=WRONG.keys())
def test_bytes_with_another_digest_get_no_name(inside: Path, row: Row, frames: bytes) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(row)
            forger.send_bytes(
                frames,
                pack_json(
                    FrameKind.END, {"entry": 0, "size": row[4], "digest": digest_of(BIG).hex()}
                ),
            )
            forger.drain()
        refused(side.end(), ErrorCode.MISMATCH)
    assert row[1] not in tree(inside)


def test_reasons_for_files_that_do_not_come_are_kept_short(inside: Path) -> None:
    many = 200
    with receiving(inside) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(*(file_row(f"{i}") for i in range(many)))
            for i in range(many):
                forger.frame(
                    FrameKind.END, {"entry": i, "code": "source", "text": "\x1b[2J" + "x" * 100_000}
                )
            forger.send_bytes(finish())
            forger.receive_until(FrameKind.ACK)
        error = side.end()
    assert isinstance(error, TransferError)
    assert f"and {many - 1} more" in str(error)
    assert sum(map(len, side.texts())) < many * 2000


def test_a_peer_receives_nothing_before_its_own_hello(inside: Path) -> None:
    with receiving(inside, wait_s=0.5) as side, side.dial() as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        side.stop()
        side.end()


@pytest.mark.parametrize("how", ["the sender ends", "it is stopped"])
def test_a_stream_whose_reader_reads_nothing_delays_no_end(tmp_path: Path, how: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with (
            receiving(None, output=tmp_path / "fifo") as side,
            Forger(side.dial(), "send").after_hello() as forger,
        ):
            forger.manifest(["s", "stdin", 0o600, 1, 0, ""])
            forger.receive_until(FrameKind.PLAN)
            forger.send_bytes(extent(0, 0, bytes(1 << 20))[: 1 << 20])
            eventually(
                lambda: (
                    struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] > 60_000
                )
            )
            if how == "the sender ends":
                forger.reset()
            else:
                side.stop()
            refused(
                side.end(), ErrorCode.RESET if how == "the sender ends" else ErrorCode.INTERRUPTED
            )
    finally:
        os.close(reader)
