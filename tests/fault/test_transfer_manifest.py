"""Manifests of a forged sender: values out of range, and more than the receiver allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.protocol.frames import (
    FrameKind,
    pack_json,
)
from tests.support.forged_peer import (
    Forger,
    Row,
    file_row,
    flooding,
    folder_row,
    link_row,
    offer,
    receiving,
    refused,
    tree,
)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


NUMBERS = {
    "2^64 bytes": ["f", "a", 0o644, 1, 1 << 64, "id"],
    "2^64 - 1 bytes": ["f", "a", 0o644, 1, (1 << 64) - 1, "id"],
    "2^63 bytes": ["f", "a", 0o644, 1, 1 << 63, "id"],
    "-1 bytes": ["f", "a", 0o644, 1, -1, "id"],
    "a float": ["f", "a", 0o644, 1, 1.5, "id"],
    "a truth": ["f", "a", 0o644, 1, True, "id"],
    "a text": ["f", "a", 0o644, 1, "1", "id"],
    "nothing": ["f", "a", 0o644, 1, None, "id"],
    "2^64 ns": ["f", "a", 0o644, 1 << 64, 1, "id"],
    "-2^64 ns": ["f", "a", 0o644, -(1 << 64), 1, "id"],
    "a float mode": ["f", "a", 0.5, 1, 1, "id"],
    "a device": ["c", "a", 0o644, 1, 0, ""],
    "a FIFO": ["p", "a", 0o644, 1, 0, ""],
    "a kind that is a list": [["f"], "a", 0o644, 1, 0, ""],
    "a folder with bytes": ["d", "a", 0o755, 1, 10, ""],
    "a name that is a number": ["f", 5, 0o644, 1, 1, "id"],
    "a long identity": ["f", "a", 0o644, 1, 1, "x" * 5000],
    "five fields": ["f", "a", 0o644, 1, 1],
    "seven fields": ["f", "a", 0o644, 1, 1, "", ""],
    "no fields": [],
}


@pytest.mark.parametrize("row", NUMBERS.values(), ids=NUMBERS.keys())
def test_an_entry_out_of_all_range_is_refused(inside: Path, row: Row) -> None:
    with receiving(inside) as side:
        refused(offer(side, row))
    assert tree(inside) == {}


def test_more_bytes_than_the_disk_has_are_refused_however_they_are_summed(inside: Path) -> None:
    with receiving(inside) as side:
        refused(
            offer(side, *(["f", f"{i}", 0o644, 1, 1 << 62, "id"] for i in range(4))),
            ErrorCode.DISK_FULL,
        )
    assert tree(inside) == {}


BOMBS = {
    "too many files": (
        ReceivePolicy(files_max=100),
        [file_row(f"{i}") for i in range(101)],
        ErrorCode.LIMIT,
    ),
    "too many folders": (
        ReceivePolicy(files_max=100),
        [folder_row(f"{i}") for i in range(101)],
        ErrorCode.LIMIT,
    ),
    "too many links": (
        ReceivePolicy(files_max=100),
        [link_row(f"{i}", "x") for i in range(101)],
        ErrorCode.LIMIT,
    ),
    "too many bytes": (
        ReceivePolicy(bytes_max=100),
        [["f", "a", 0o644, 1, 101, ""]],
        ErrorCode.LIMIT,
    ),
    "too many bytes together": (
        ReceivePolicy(bytes_max=100),
        [file_row("a", b"x" * 60), file_row("b", b"x" * 60)],
        ErrorCode.LIMIT,
    ),
    "nothing at all": (ReceivePolicy(), [], ErrorCode.PROTOCOL),
}


@pytest.mark.parametrize(("policy", "rows", "code"), BOMBS.values(), ids=BOMBS.keys())
def test_a_manifest_beyond_the_limits_is_refused(
    inside: Path, policy: ReceivePolicy, rows: list[Row], code: str
) -> None:
    with receiving(inside, policy=policy) as side:
        refused(offer(side, *rows), code)
    assert tree(inside) == {}


def test_a_manifest_of_endless_parts_is_refused_at_its_limit(inside: Path) -> None:
    part = pack_json(FrameKind.MANIFEST, {"entries": [file_row("a")] * 1000})
    with (
        receiving(inside, policy=ReceivePolicy(files_max=5000)) as side,
        Forger(side.dial(), "send") as forger,
    ):
        with flooding(forger, part):
            refused(side.end(), ErrorCode.LIMIT)
