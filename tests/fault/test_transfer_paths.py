"""A sender of forbidden names.

Nothing is ever created outside of the receiver's folder, or through a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

import fastnet
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.protocol.frames import FrameKind
from fastnet.errors import FastnetError, TransferError
from tests.support.clients import DEADLINE_S
from tests.support.forged_peer import (
    Forger,
    Row,
    extent,
    file_row,
    finish,
    folder_row,
    link_row,
    offer,
    pack,
    receiving,
    refused,
    tree,
)
from tests.support.symlink_swap import Swapping

LONG = "x" * 255


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must not be touched: beside the receiver's folder."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_bytes(b"kept")
    os.utime(folder, ns=(1, 1))
    return folder


PATHS = {
    "absolute": "/tmp/fastnet-hostile",
    "up": "../outside/new",
    "up within": "a/../../outside/new",
    "up at the end": "a/..",
    "only up": "..",
    "here": "./a",
    "empty": "",
    "doubled slash": "a//b",
    "slash at the end": "a/",
    "NUL": "a\0b",
    "NUL hides up": "a\0/../../outside/new",
    "escaped up": "\udc2e\udc2e/outside/new",
    "no bytes": "\ud800",
    "long name": "x" * 256,
    "long path": "/".join([LONG] * 17),
    "very long": "x" * 500_000,
    "deep": "/".join("a" * 65),
    "very deep": "/".join("a" * 100_000),
    "our part": ".a.fastnet-part",
    "our journal": "a/.b.fastnet-journal",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("kind", ["f", "d", "l"])
def test_a_name_that_leads_elsewhere_refuses_everything(
    inside: Path, outside: Path, path: str, kind: str
) -> None:
    row = {"f": file_row(path), "d": folder_row(path), "l": link_row(path, "kept")}[kind]
    before = os.stat(outside).st_mtime_ns
    with receiving(inside, overwrite="always") as side:
        refused(
            offer(side, folder_row("a"), file_row("good"), row, files=pack((1, b"x"), (2, b"x")))
        )
    assert tree(inside) == {}
    assert os.stat(outside).st_mtime_ns == before


UNDER_LINKS = {
    "link, then a file of its name": [link_row("a", "../outside"), file_row("a")],
    "file, then a link of its name": [file_row("a"), link_row("a", "kept")],
    "link, then a file below": [link_row("a", "."), file_row("a/new")],
    "link, then a file far below": [link_row("a", "."), file_row("a/b/new")],
    "file below, then the link": [folder_row("a"), file_row("a/new"), link_row("a", ".")],
    "link, then a folder of its name": [link_row("a", "."), folder_row("a"), file_row("a/new")],
    "a file below a file": [file_row("a"), file_row("a/b")],
    "a file far below a file": [file_row("a"), file_row("a/b/c")],
    "the same name twice": [file_row("a"), file_row("a")],
    "the same bytes twice": [file_row("é"), file_row("\udcc3\udca9")],
    "the same folder twice": [folder_row("a"), folder_row("a")],
    "below a folder that is not named": [file_row("a/b/c")],
    "a folder after what is in it": [file_row("a/b"), folder_row("a")],
}


@pytest.mark.parametrize("rows", UNDER_LINKS.values(), ids=UNDER_LINKS.keys())
@pytest.mark.parametrize("overwrite", ["never", "always", "rename"])
def test_a_manifest_that_no_tree_makes_is_refused(
    inside: Path, outside: Path, rows: list[Row], overwrite: str
) -> None:
    with receiving(inside, overwrite=overwrite) as side:
        refused(offer(side, *rows, files=pack((0, b"x"), (1, b"x"))))
    assert tree(inside) == {}
    assert os.listdir(outside) == ["kept"]


def test_ten_thousand_folders_without_an_entry_are_not_made(inside: Path) -> None:
    """A file brings as many folders as its name is deep, and no limit of files counts them."""
    rows = [file_row("/".join([f"{i:x}", *"abcdefgh", "file"])) for i in range(1000)]
    with receiving(inside, policy=ReceivePolicy(files_max=1000)) as side:
        refused(offer(side, *rows))
    assert tree(inside) == {}


LINKS = {
    "absolute": "/etc/passwd",
    "up": "../outside/kept",
    "up through a link": "here/../../outside/kept",
    "empty": "",
    "NUL": "a\0b",
    "long": "a" * 4096,
    "no bytes": "\ud800",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS.keys())
def test_a_link_that_leads_out_is_not_made_and_the_rest_is(
    inside: Path, outside: Path, target: str
) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(link_row("bad", target), link_row("here", "."), file_row("a"))
            forger.receive_until(FrameKind.PLAN)
            forger.send_bytes(pack((2, b"x")), finish((2, b"x")))
            forger.receive_until(FrameKind.ACK)
        assert isinstance(side.end(), TransferError)
    assert tree(inside) == {"here": ".", "a": b"x"}


@pytest.mark.parametrize("overwrite", ["never", "always", "older", "rename"])
@pytest.mark.parametrize("path", ["link/new", "link/kept", "link"])
def test_a_link_that_is_there_already_is_not_followed(
    inside: Path, outside: Path, path: str, overwrite: str
) -> None:
    (inside / "link").symlink_to(outside if "/" in path else outside / "kept")
    rows = [folder_row("link"), file_row(path)] if "/" in path else [file_row(path)]
    index = len(rows) - 1
    with receiving(inside, overwrite=overwrite) as side:
        with Forger(side.dial(), "send") as forger:
            forger.manifest(*rows)
            forger.send_bytes(pack((index, b"x")), finish((index, b"x")))
            forger.drain()
        side.end()
        assert side.error is None or isinstance(side.error, FastnetError), side.error
    assert tree(outside) == {"kept": b"kept"}


@pytest.mark.parametrize("overwrite", ["never", "older", "rename"])
def test_a_folder_that_exists_gets_no_wider_mode(inside: Path, overwrite: str) -> None:
    (inside / "private").mkdir(mode=0o700)
    (inside / "shared").mkdir(mode=0o700)
    (inside / "shared").chmod(0o750)
    with receiving(inside, overwrite=overwrite) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(
                folder_row("private", 0o777), folder_row("shared", 0o007), folder_row("new", 0o707)
            )
            forger.send_bytes(finish())
            forger.receive_until(FrameKind.ACK)
        assert side.end() is None
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in inside.iterdir()} == {
        "private": 0o700,
        "shared": 0o700,
        "new": 0o707,
    }


def test_no_entry_brings_a_privilege(inside: Path) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(
                folder_row("d", 0o7777), file_row("f", mode=0o6755), file_row("g", mode=-1)
            )
            forger.send_bytes(pack((1, b"x"), (2, b"x")), finish((1, b"x"), (2, b"x")))
            forger.receive_until(FrameKind.ACK)
        assert side.end() is None
    assert [path for path in inside.iterdir() if path.stat().st_mode & 0o7000] == []


def test_a_file_and_the_number_that_another_one_would_get_both_arrive(inside: Path) -> None:
    (inside / "a.jpg").write_bytes(b"old")
    with receiving(inside, overwrite="rename") as side:
        with Forger(side.dial(), "send").after_hello() as forger:
            forger.manifest(file_row("a.jpg", b"one"), file_row("a (2).jpg", b"two"))
            files = (0, b"one"), (1, b"two")
            forger.send_bytes(pack(*files), finish(*files))
            forger.receive_until(FrameKind.ACK)
        assert side.end() is None
    assert tree(inside) == {"a.jpg": b"old", "a (3).jpg": b"one", "a (2).jpg": b"two"}


def plant_link(part: Path, kept: Path) -> None:
    part.symlink_to(kept)


def plant_hard_link(part: Path, kept: Path) -> None:
    part.hardlink_to(kept)


def plant_fifo(part: Path, kept: Path) -> None:
    os.mkfifo(part)


def plant_folder(part: Path, kept: Path) -> None:
    part.mkdir()


@pytest.mark.parametrize("plant", [plant_link, plant_hard_link, plant_fifo, plant_folder])
def test_what_another_user_put_at_our_unfinished_file_is_not_written_to(
    inside: Path, outside: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(inside / ".big.fastnet-part", outside / "kept")
    big = bytes(200_000)
    with receiving(inside) as side, Forger(side.dial(), "send") as forger:
        forger.manifest(file_row("big", big))
        forger.send_bytes(extent(0, 0, big))
        forger.drain()
        assert isinstance(side.end(), TransferError)
    assert (outside / "kept").read_bytes() == b"kept"
    assert not (inside / "big").exists()


def test_after_a_kill_during_the_rename_the_named_file_is_not_written_again(
    inside: Path,
) -> None:
    """Then the file has both names; truncating the unfinished one would truncate both."""
    old, new = b"o" * 200_000, b"n" * 200_000
    (inside / "big").write_bytes(old)
    (inside / ".big.fastnet-part").hardlink_to(inside / "big")
    with receiving(inside, overwrite="always") as side, Forger(side.dial(), "send") as forger:
        forger.manifest(file_row("big", new))
        forger.send_bytes(extent(0, 0, new[:100_000]))
        forger.drain()
        assert isinstance(side.end(), TransferError)
    assert (inside / "big").read_bytes() == old


def test_a_folder_that_becomes_a_link_during_a_transfer_leads_no_file_out(
    inside: Path, outside: Path
) -> None:
    """Repeated, because most transfers find a folder, and some find a link and are refused."""
    (inside / "a").mkdir()
    before = tree(outside)
    source = inside.parent / "a"
    source.mkdir()
    for i in range(50):
        (source / f"{i}").write_bytes(b"x")
    (source / "big").write_bytes(bytes(200_000))
    refusals = arrivals = 0
    ends_s = monotonic() + DEADLINE_S
    with Swapping(inside / "a", outside):
        while monotonic() < ends_s and (refusals < 10 or arrivals < 10):
            with receiving(inside, overwrite="always") as side:
                with contextlib.suppress(FastnetError):
                    fastnet.send(source, str(side.where))
                error = side.end()
            assert error is None or isinstance(error, FastnetError), error
            refusals, arrivals = refusals + (error is not None), arrivals + (error is None)
    assert refusals
    assert tree(outside) == before
