"""Many small files by fastnet/1: what a killed side leaves, and each way to create them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.session import pack_receiver
from fastnet.apps.transfer.smallfiles.contract import Scattered
from fastnet.apps.transfer.target.paths import PART_TAIL, part_name
from tests.support.cli_process import running
from tests.support.transfer import Proxy, listing, receiving, same_tree, transfer

FILES, FILE_BYTES = 600, 9000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for number in range(FILES):
        path = folder / f"{number % 7}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES))
    return folder


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(PART_TAIL)]


@pytest.mark.parametrize("more", [(), ("--fsync",)], ids=["without names", "with names"])
def test_a_killed_receiver_leaves_whole_files_and_the_next_run_nothing_else(
    source: Path, inbox: Path, more
) -> None:
    """--fsync makes files one by one, under a name of ours."""
    for after in (1_500_000, 3_000_000, -1):
        with running("recv", "--listen", 0, "--into", inbox, *more) as receiver:

            def kill(victim: int = receiver.pid) -> str:
                os.kill(victim, signal.SIGKILL)
                return "go on"

            with (
                Proxy(str(receiver.endpoint()), after, kill) as proxy,
                running("send", source, proxy.endpoint) as sender,
            ):
                code = sender.end(None)[0]
                assert receiver.end(None)[0] == (-signal.SIGKILL if after >= 0 else 0)
        assert (code == 0) == (after < 0)
        found = [path for path in inbox.rglob("*") if path.is_file()]
        left = unfinished(inbox)
        assert len(left) <= (1 if more and after >= 0 else 0)
        for path in set(found) - set(left):
            assert path.read_bytes() == (source.parent / path.relative_to(inbox)).read_bytes()
    assert same_tree(source, inbox / "source")


def test_what_a_killed_receiver_left_under_our_name_is_used_by_the_next(
    source: Path, inbox: Path
) -> None:
    left = inbox / "source" / "0" / part_name("0")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"longer than what comes" * 1000)
    transfer([source], into=inbox, policy=ReceivePolicy(fsync=True))
    assert same_tree(source, inbox / "source")


@pytest.mark.parametrize("backend", ["native", "python"])
def test_where_every_file_must_have_a_name_all_arrive_too(
    source: Path, inbox: Path, backend, monkeypatch
) -> None:
    """As on NFS: the one call makes nothing."""

    class NoCall:
        @staticmethod
        def scatter(*arguments: object) -> Scattered:
            return Scattered(0, 0, b"")

    monkeypatch.setattr(pack_receiver, "choose", lambda name, backend: (NoCall, "python"))
    transfer([source], into=inbox, backend=backend)
    assert same_tree(source, inbox / "source")


@pytest.mark.parametrize("overwrite", ["always", "older"])
def test_files_that_are_there_are_replaced_among_new_ones(
    source: Path, inbox: Path, overwrite: str
) -> None:
    for number in range(0, FILES, 5):
        path = inbox / "source" / f"{number % 7}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
        os.utime(path, ns=(1, 1))
    sent, _ = transfer([source], into=inbox, overwrite=overwrite)
    assert sent.files == FILES
    wanted, found = listing(source), listing(inbox / "source")
    assert {name: what[0] for name, what in wanted.items()} == {
        name: what[0] for name, what in found.items()
    }


def test_a_file_that_goes_in_the_middle_of_a_pack_costs_no_other_file(
    source: Path, inbox: Path
) -> None:
    gone = source / "3" / "3"

    def remove() -> str:
        gone.unlink()
        return "go on"

    with receiving(into=inbox) as receiver, Proxy(receiver.endpoint, 500, remove) as proxy:
        with running("send", source, proxy.endpoint) as sender:
            code, _, said = sender.end(None)
    assert code == 5, said
    assert str(gone) in said
    assert {path.name for path in (inbox / "source").rglob("*") if path.is_file()} == {
        f"{number}" for number in range(FILES) if number != 3
    }
