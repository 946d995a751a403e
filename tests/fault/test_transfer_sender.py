"""A forged receiver: the sender trusts no number and keeps its deadlines.

It takes neither silence nor noise for an acknowledgement.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.frames import HEAD, FrameKind, pack_json
from fastnet.errors import TransferError, TransferUnconfirmed
from fastnet.limits import EXTENT_BYTES, PLAN_BYTES_MAX
from tests.support.clients import DEADLINE_S
from tests.support.forged_peer import Forger, Victim, digest_of, flooding, refused, sending

SMALL, LARGE = b"small", EXTENT_BYTES + 10


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Entries 0 to 3: the folder, large, link, small."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "small").write_bytes(SMALL)
    (folder / "large").write_bytes(bytes(LARGE))
    (folder / "link").symlink_to("small")
    return folder


@contextmanager
def asked(source: Path, **given: Any) -> Iterator[tuple[Victim, Forger]]:
    """A sender that has said what it would send, and waits for a plan."""
    with sending([source], **given) as side, Forger(side.dial(), "recv").after_hello() as forger:
        forger.receive_until(FrameKind.MANIFEST)
        yield side, forger


PLAN = {"skip": [], "held": [], "dry_run": False}
HEX = digest_of(bytes(EXTENT_BYTES)).hex()
PLANS: dict[str, dict[str, Any]] = {
    "skip what is not there": {"skip": [99]},
    "skip before the first": {"skip": [-1]},
    "skip the 2^64th": {"skip": [1 << 64]},
    "skip a text": {"skip": ["1"]},
    "skip a truth": {"skip": [True]},
    "skip no list": {"skip": {"1": 1}},
    "held what is not there": {"held": [[99, []]]},
    "held a folder": {"held": [[0, []]]},
    "held a link": {"held": [[2, [[0, 1, HEX]]]]},
    "held what it does not want": {"skip": [1], "held": [[1, [[0, EXTENT_BYTES, HEX]]]]},
    "held beyond the end": {"held": [[1, [[0, LARGE + 1, HEX]]]]},
    "held from beyond the end": {"held": [[1, [[LARGE + 1, 1, HEX]]]]},
    "held 2^64 bytes": {"held": [[1, [[0, 1 << 64, HEX]]]]},
    "held from -1": {"held": [[1, [[-1, 1, HEX]]]]},
    "held no bytes": {"held": [[1, [[0, 0, HEX]]]]},
    "held -1 bytes": {"held": [[1, [[5, -1, HEX]]]]},
    "held twice the same": {"held": [[1, [[0, 10, HEX], [0, 10, HEX]]]]},
    "held backwards": {"held": [[1, [[10, 10, HEX], [0, 10, HEX]]]]},
    "held with a short digest": {"held": [[1, [[0, 10, "00"]]]]},
    "held with no digest": {"held": [[1, [[0, 10, "xyz"]]]]},
    "held with a number": {"held": [[1, [[0, 10, 5]]]]},
    "held of floats": {"held": [[1, [[0.5, 10.5, HEX]]]]},
    "held of truths": {"held": [[1, [[False, True, HEX]]]]},
    "held of pairs": {"held": [[1, [[0, 10]]]]},
    "held of texts": {"held": [[1, ["abc"]]]},
    "held of an object": {"held": [[1, {"0": 10}]]},
    "held no pairs": {"held": [[1]]},
    "held no list": {"held": 5},
    "a dry run that is a number": {"dry_run": 1},
}


@pytest.mark.parametrize("lie", PLANS.values(), ids=PLANS.keys())
def test_a_plan_out_of_all_range_is_refused(source: Path, lie: dict[str, Any]) -> None:
    with asked(source) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN | lie)
        forger.drain()
        refused(side.end())


NO_PLANS = {
    "larger than a plan may be": HEAD.pack(FrameKind.PLAN, PLAN_BYTES_MAX + 1),
    "2^32 - 1 bytes": HEAD.pack(FrameKind.PLAN, (1 << 32) - 1),
    "an extent": HEAD.pack(FrameKind.EXTENT, 1 << 30),
    "the acknowledgement first": HEAD.pack(FrameKind.ACK, 100),
    "another kind": b"\0" * 5,
    "no JSON": HEAD.pack(FrameKind.PLAN, 5) + b"{nope",
    "no object": HEAD.pack(FrameKind.PLAN, 2) + b"[]",
    "nested": HEAD.pack(FrameKind.PLAN, 500_000) + b"[" * 500_000,
}


@pytest.mark.parametrize("frame", NO_PLANS.values(), ids=NO_PLANS.keys())
def test_what_is_no_plan_is_refused_before_more_of_it_is_read(source: Path, frame: bytes) -> None:
    with asked(source) as (side, forger):
        forger.send_bytes(frame)
        forger.drain()
        refused(side.end())


ACK = {
    "files": 2,
    "bytes": LARGE + len(SMALL),
    "transcript": "",
    "refused": 0,
    "refused_reason": "",
}


def test_a_word_that_comes_before_the_data_is_no_confirmation(source: Path) -> None:
    with asked(source) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN)
        forger.frame(FrameKind.ACK, ACK)
        forger.drain()
        refused(side.end())


def taken(forger: Forger) -> str:
    """Give the right plan, take everything to its end, and return the sender's proof."""
    forger.frame(FrameKind.PLAN, PLAN)
    proof: str = json.loads(forger.receive_until(FrameKind.FINISH))["transcript"]
    return proof


WORDS: dict[str, dict[str, Any]] = {
    "without a proof": {},
    "with another proof": {"transcript": "00" * 16},
    "with a proof that is none": {"transcript": 5},
}


@pytest.mark.parametrize("lie", WORDS.values(), ids=WORDS.keys())
def test_a_word_without_the_proof_is_no_confirmation(source: Path, lie: dict[str, Any]) -> None:
    with asked(source) as (side, forger):
        taken(forger)
        forger.frame(FrameKind.ACK, ACK | lie)
        forger.drain()
        assert isinstance(side.end(), TransferError)
        assert side.report is None


ODD: dict[str, dict[str, Any]] = {
    "endless CPU seconds": {"cpu_seconds": 10**400},
    "negative CPU seconds": {"cpu_seconds": -1},
    "no number of CPU seconds": {"cpu_seconds": float("nan")},
    "CPU seconds in words": {"cpu_seconds": "many"},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_a_true_word_with_odd_numbers_is_a_confirmation_without_them(
    source: Path, odd: dict[str, Any]
) -> None:
    with asked(source) as (side, forger):
        proof = taken(forger)
        forger.frame(FrameKind.ACK, ACK | {"transcript": proof} | odd)
        forger.drain()
        assert side.end() is None
    assert side.report is not None
    assert side.report.peer_cpu_seconds is None
    assert "NaN" not in str(side.report.as_dict())


@pytest.mark.parametrize("how", ["ends", "resets", "is silent", "says nonsense"])
def test_without_a_word_everything_sent_is_unconfirmed(source: Path, how: str) -> None:
    with asked(source, stall_s=1.0) as (side, forger):
        taken(forger)
        if how == "resets":
            forger.reset()
        elif how == "ends":
            forger.sock.close()
        elif how == "says nonsense":
            forger.send_bytes(b"\0" * 100)
        error = side.end()
    if how == "says nonsense":
        refused(error)
    else:
        assert isinstance(error, TransferUnconfirmed)
        assert error.exit_code == 6


def test_a_receiver_that_takes_nothing_is_left_at_the_time_out(source: Path) -> None:
    with asked(source, stall_s=1.0) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN)
        refused(side.end(), ErrorCode.STALLED)


def test_a_receiver_that_says_nothing_is_left_at_the_time_out(source: Path) -> None:
    with asked(source, stall_s=1.0) as (side, _):
        refused(side.end(), ErrorCode.STALLED)


def test_a_receiver_that_begins_a_frame_and_stops_is_left_at_the_time_out(source: Path) -> None:
    with asked(source, stall_s=1.0) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN)
        forger.send_bytes(HEAD.pack(FrameKind.ERROR, 100)[:3])
        reading = threading.Thread(target=forger.drain)
        reading.start()
        try:
            refused(side.end(), ErrorCode.STALLED)
        finally:
            reading.join(DEADLINE_S)


def test_a_receiver_that_floods_while_it_takes_does_not_stop_the_transfer(source: Path) -> None:
    alive = HEAD.pack(FrameKind.KEEPALIVE, 0) * 1000
    with asked(source) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN)
        with flooding(forger, alive):
            forger.receive_until(FrameKind.FINISH)
            side.stop()
            refused(side.end(), ErrorCode.INTERRUPTED)


def test_a_receiver_that_talks_on_after_it_was_refused_is_left(source: Path) -> None:
    with asked(source) as (side, forger):
        forger.frame(FrameKind.PLAN, PLAN | {"skip": [99]})
        with flooding(forger, bytes(1 << 16)):
            refused(side.end())


def test_what_a_receiver_says_is_kept_short_and_told(source: Path) -> None:
    with asked(source) as (side, forger):
        forger.frame(
            FrameKind.ERROR,
            {"code": "no such code", "text": "\x1b[2J" + "x" * 500_000, "hint": "y" * 500_000},
        )
        forger.drain()
        error = side.end()
    assert isinstance(error, TransferError)
    assert error.code == ErrorCode.FAILED
    assert len(str(error)) < 3000


@pytest.mark.parametrize(
    "fields", [{"text": 5}, {"code": []}, {"hint": {}}, {}, {"code": "exists\x00"}]
)
def test_an_error_that_is_badly_told_is_an_error_all_the_same(
    source: Path, fields: dict[str, Any]
) -> None:
    with asked(source) as (side, forger):
        forger.send_bytes(pack_json(FrameKind.ERROR, fields))
        forger.drain()
        assert isinstance(side.end(), TransferError)
