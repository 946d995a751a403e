"""A sender that lies: the receiver keeps to its folder, its memory and its time, and says what was wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastnet.errors import FastnetError, TransferError
from fastnet.transfer.events import ErrorCode
from fastnet.transfer.frames import Kind
from tests.fault.forger import Forger, Row, Side, file_row, folder_row, link_row, pack, receiving

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


def tree(folder: Path) -> dict[str, Any]:
    """Everything in a folder, links not followed."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else os.stat(path).st_mode
        )
        for path in folder.rglob("*")
    }


def offer(side: Side, *rows: Row, files: bytes = b"") -> BaseException | None:
    """Offer these entries, send what goes with them, read to the end and return what the receiver raised."""
    with Forger(side.dial(), "send") as forger:
        forger.manifest(*rows)
        forger.say(files)
        forger.drain()
    return side.end()


def refused(error: BaseException | None, code: str = ErrorCode.PROTOCOL) -> str:
    """That it was refused, in a sentence that can be shown as it is. Returns that."""
    assert isinstance(error, TransferError), error
    assert error.code == code, error
    assert len(str(error)) < 1000
    assert str(error).isascii() or str(error).isprintable()
    return str(error)


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
def test_a_name_that_leads_elsewhere_refuses_everything(inside: Path, outside: Path, path: str, kind: str) -> None:
    row = {"f": file_row(path), "d": folder_row(path), "l": link_row(path, "kept")}[kind]
    before = os.stat(outside).st_mtime_ns
    with receiving(inside, overwrite="always") as side:
        refused(offer(side, folder_row("a"), file_row("good"), row, files=pack((1, b"x"), (2, b"x"))))
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
def test_a_manifest_that_no_tree_makes_is_refused(inside: Path, outside: Path, rows: list[Row], overwrite: str) -> None:
    with receiving(inside, overwrite=overwrite) as side:
        refused(offer(side, *rows, files=pack((0, b"x"), (1, b"x"))))
    assert tree(inside) == {}
    assert os.listdir(outside) == ["kept"]


def test_ten_thousand_folders_that_nobody_named_are_not_made(inside: Path) -> None:
    """Each file alone would bring as many folders as its name is deep, and no limit of files counts them."""
    rows = [file_row("/".join([f"{i:x}", *"abcdefgh", "file"])) for i in range(1000)]
    with receiving(inside, policy=api_policy(files_max=1000)) as side:
        refused(offer(side, *rows))
    assert tree(inside) == {}


def api_policy(**given: Any) -> Any:
    from fastnet.transfer.receiver import Policy

    return Policy(**given)


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
def test_a_link_that_leads_out_is_not_made_and_the_rest_is(inside: Path, outside: Path, target: str) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").greeted() as forger:
            forger.manifest(link_row("bad", target), link_row("here", "."), file_row("a"))
            forger.hear_until(Kind.PLAN)
            forger.say(pack((2, b"x")), finish((2, b"x")))
            forger.hear_until(Kind.DONE)
        assert isinstance(side.end(), TransferError)
    assert tree(inside) == {"here": ".", "a": b"x"}


def finish(*files: tuple[int, bytes]) -> bytes:
    """The end of a transfer of these files, with the right proof."""
    from fastnet.transfer.digest import Algorithm
    from fastnet.transfer.frames import pack_json
    from fastnet.transfer.proof import Proof
    from tests.fault.forger import digest_of

    proof = Proof(Algorithm("xxh3-128"))
    for entry, data in files:
        proof.add(entry, len(data), digest_of(data))
    return pack_json(Kind.FINISH, {"proof": proof.digest().hex(), "files": len(files)})


@pytest.mark.parametrize("overwrite", ["never", "always", "older", "rename"])
@pytest.mark.parametrize("path", ["link/new", "link/kept", "link"])
def test_a_link_that_is_there_already_is_not_followed(inside: Path, outside: Path, path: str, overwrite: str) -> None:
    (inside / "link").symlink_to(outside if "/" in path else outside / "kept")
    rows = [folder_row("link"), file_row(path)] if "/" in path else [file_row(path)]
    index = len(rows) - 1
    with receiving(inside, overwrite=overwrite) as side:
        with Forger(side.dial(), "send") as forger:
            forger.manifest(*rows)
            forger.say(pack((index, b"x")), finish((index, b"x")))
            forger.drain()
        side.end()
        assert side.error is None or isinstance(side.error, FastnetError), side.error
    assert tree(outside) == {"kept": b"kept"}
