"""A sender that lies: the receiver keeps to its folder, its memory and its time, and says what was wrong."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from fastnet.errors import FastnetError, NetworkError, TransferError
from fastnet.limits import FAREWELL_S
from fastnet.transfer.events import ErrorCode
from fastnet.transfer.frames import HEAD, MAGIC, Kind, pack_json
from fastnet.transfer.receiver import Policy
from tests.fault.forger import STALL_S, Forger, Row, Victim, file_row, finish, folder_row, link_row, pack, receiving
from tests.peers import DEADLINE_S

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


def offer(side: Victim, *rows: Row, files: bytes = b"") -> BaseException | None:
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
    with receiving(inside, policy=Policy(files_max=1000)) as side:
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
def test_a_link_that_leads_out_is_not_made_and_the_rest_is(inside: Path, outside: Path, target: str) -> None:
    with receiving(inside) as side:
        with Forger(side.dial(), "send").greeted() as forger:
            forger.manifest(link_row("bad", target), link_row("here", "."), file_row("a"))
            forger.hear_until(Kind.PLAN)
            forger.say(pack((2, b"x")), finish((2, b"x")))
            forger.hear_until(Kind.DONE)
        assert isinstance(side.end(), TransferError)
    assert tree(inside) == {"here": ".", "a": b"x"}


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


def head(kind: int, length: int) -> bytes:
    return HEAD.pack(kind, length)


GIB = 1 << 30
HEADS = {
    "an extent of a GiB": head(Kind.EXTENT, GIB),
    "a compressed extent": head(Kind.COMPRESSED, GIB),
    "a pack": head(Kind.PACK, 1 << 20),
    "a plan": head(Kind.PLAN, 1 << 20),
    "a word of done": head(Kind.DONE, 10),
    "2^32 - 1 bytes": head(Kind.MANIFEST, (1 << 32) - 1),
    "no kind": head(0, 0),
    "another kind": head(ord("Q"), 5),
    "all ones": b"\xff" * 5,
}


@pytest.mark.parametrize("frame", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("when", ["greeting", "manifest", "data"])
def test_a_frame_that_is_not_due_is_refused_before_any_of_it_is_kept(inside: Path, frame: bytes, when: str) -> None:
    """Its head alone is sent, so whoever waited for the rest would wait until the time-out."""
    if when == "data" and frame in (HEADS["an extent of a GiB"], HEADS["a pack"]):
        pytest.skip("these are due then")
    with receiving(inside, wait_s=1.0 if when == "greeting" else None) as side:
        with side.dial() as sock:
            if when == "greeting":
                sock.sendall(MAGIC + frame)
            else:
                forger = Forger(sock, "send")
                if when == "data":
                    forger.manifest(file_row("a"))
                forger.say(frame)
            began_s = monotonic()
            Forger.drain(SimpleNamespace(sock=sock))  # type: ignore[arg-type]
            assert monotonic() - began_s < STALL_S / 2
        error = side.end()
    if when == "greeting":
        assert isinstance(error, NetworkError), "a stranger took somebody's place"
    else:
        refused(error)
    assert tree(inside) == {}


class Flooding:
    """A thread that says the same for ever, until the other side ends it or the block does."""

    def __init__(self, forger: Forger, data: bytes) -> None:
        self.forger, self.data, self.stopped = forger, data, False
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while not self.stopped:
                self.forger.sock.sendall(self.data)

    def __enter__(self) -> Flooding:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.thread.join(DEADLINE_S)


ALIVE = head(Kind.ALIVE, 0) * 1000


def test_a_peer_that_floods_with_signs_of_life_instead_of_a_manifest_is_left(inside: Path) -> None:
    with receiving(inside, stall_s=1.0) as side, Forger(side.dial(), "send") as forger, Flooding(forger, ALIVE):
        error = side.end()
    refused(error, ErrorCode.STALLED)


def test_a_transfer_that_is_flooded_with_signs_of_life_can_be_stopped(inside: Path) -> None:
    with receiving(inside) as side, Forger(side.dial(), "send").greeted() as forger:
        forger.manifest(file_row("a"))
        forger.hear_until(Kind.PLAN)
        with Flooding(forger, ALIVE):
            side.stop()
            refused(side.end(), ErrorCode.INTERRUPTED)


def test_a_refused_peer_that_talks_on_for_ever_is_left(inside: Path) -> None:
    with receiving(inside) as side, Forger(side.dial(), "send") as forger:
        forger.manifest(file_row("../a"))
        with Flooding(forger, bytes(1 << 16)):
            refused(side.end(FAREWELL_S + DEADLINE_S))


def test_a_manifest_that_comes_byte_by_byte_is_not_waited_for(inside: Path) -> None:
    frame = pack_json(Kind.MANIFEST, {"entries": [file_row("a" * 200)] * 100})
    with receiving(inside, stall_s=1.0) as side, Forger(side.dial(), "send") as forger:
        waited = threading.Event()
        for i in range(len(frame)):
            forger.say(frame[i : i + 1])
            if side.is_over() or waited.wait(0.05):
                break
        assert i < len(frame) - 1
        refused(side.end(), ErrorCode.STALLED)


def test_a_sender_that_has_our_word_and_never_ends_does_not_hold_us(inside: Path) -> None:
    with receiving(inside, stall_s=1.0) as side, Forger(side.dial(), "send").greeted() as forger:
        forger.manifest(file_row("a"))
        forger.say(pack((0, b"x")), finish((0, b"x")))
        forger.hear_until(Kind.DONE)
        with Flooding(forger, ALIVE):
            assert side.end() is None
    assert tree(inside) == {"a": b"x"}
