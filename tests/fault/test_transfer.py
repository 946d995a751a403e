"""Faults of a transfer by fastnet/1.

Afterwards there is the whole file, or a state to resume from and a clear error.
Never a wrong file under the final name, and never a hang past the time-out. What a campaign does
often under `make soak` is done a few times here.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastnet
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.target import journal
from fastnet.errors import TransferError, TransferRefused
from fastnet.limits import EXTENT_BYTES, MIB
from tests.support.cli_process import Running, eventually, running
from tests.support.transfer import Proxy, Side, receiving, same_tree, transfer

FILE_BYTES = 5 * EXTENT_BYTES + 12_345
PART, JOURNAL = ".file.fastnet-part", ".file.fastnet-journal"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(random.Random(1).randbytes(FILE_BYTES))
    return folder / "file"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def broken_off(
    source: Path, inbox: Path, after: int, trouble: Callable[[], str]
) -> tuple[Side, Side]:
    """A transfer through a proxy that makes trouble at a byte. Both sides, ended."""
    with (
        receiving(into=inbox, stall_s=0.7) as receiver,
        Proxy(receiver.endpoint, after, trouble) as proxy,
    ):
        sender = Side(fastnet.send, (source, proxy.endpoint), {"stall_s": 0.7}).start()
        for side in (sender, receiver):
            side.thread.join(30)
            assert not side.thread.is_alive()
    return sender, receiver


def resumes(source: Path, inbox: Path) -> int:
    """The same again, which must succeed. Returns the bytes that did not travel a second time."""
    sent, received = transfer([source], into=inbox)
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert os.listdir(inbox) == ["file"]
    assert (
        sent.moved_bytes + sent.skipped_bytes
        == FILE_BYTES
        == received.moved_bytes + received.skipped_bytes
    )
    return sent.skipped_bytes


@pytest.mark.parametrize("word", ["cut", "reset", "stall"])
@pytest.mark.parametrize("after", [700, EXTENT_BYTES + 999, FILE_BYTES - 1000])
def test_a_connection_that_breaks_leaves_a_state_to_go_on_from(word, after, source, inbox) -> None:
    sender, receiver = broken_off(source, inbox, after, lambda: word)
    assert isinstance(sender.error, TransferError)
    assert isinstance(receiver.error, TransferError)
    assert not (inbox / "file").exists()
    assert resumes(source, inbox) >= (after // EXTENT_BYTES - 1) * EXTENT_BYTES


@pytest.mark.parametrize("word", ["cut", "reset", "stall"])
def test_a_peer_that_breaks_off_before_it_has_greeted_takes_nobodys_place(
    word, source, inbox
) -> None:
    with receiving(into=inbox) as receiver:
        where = receiver.endpoint
        with (
            Proxy(where, 5, lambda: word) as proxy,
            pytest.raises(TransferError, match="before its hello"),
        ):
            fastnet.send(source, proxy.endpoint)
        fastnet.send(source, where)
        receiver.join()
    assert (inbox / "file").read_bytes() == source.read_bytes()


class Commands:
    """Both sides as processes, and a proxy that kills one of them."""

    def __init__(self, source: Path, inbox: Path) -> None:
        self.source, self.inbox = source, inbox

    def run(self, victim: str = "", after: int = -1) -> tuple[int, int, dict[str, Any]]:
        """Exit codes of sender and receiver, and the sender's report."""
        with running("recv", "--listen", 0, "--into", self.inbox, "--wait", 10) as receiver:
            sides: dict[str, Running] = {"recv": receiver}

            def kill() -> str:
                sides[victim].process.send_signal(signal.SIGKILL)
                return "go on"

            with Proxy(
                str(receiver.endpoint()), after, kill if victim else lambda: "go on"
            ) as proxy:
                with running("send", self.source, proxy.endpoint, "--json") as sender:
                    sides["send"] = sender
                    code, out, _ = sender.end(None)
                    last = json.loads(out.splitlines()[-1]) if out.strip() else {}
                    return code, receiver.end(None)[0], last.get("report", {})


def campaign(source: Path, inbox: Path, kills: int, seed: int) -> None:
    """Kill a side at random bytes `kills` times, with an undisturbed run now and then."""
    chance = random.Random(seed)
    commands = Commands(source, inbox)
    while kills:
        for _ in range(min(kills, chance.randint(1, 4))):
            victim = chance.choice(("send", "recv"))
            codes = commands.run(victim, chance.randrange(20, FILE_BYTES))
            kills -= 1
            assert -signal.SIGKILL in codes[:2] or (inbox / "file").exists()
            if (inbox / "file").exists():
                break
            assert set(codes[:2]) <= {5, 6, -signal.SIGKILL}
        code, other, _ = commands.run()
        assert (code, other) == (0, 0)
        assert (inbox / "file").read_bytes() == source.read_bytes()
        assert os.listdir(inbox) == ["file"]
        (inbox / "file").unlink()


def test_killed_sides_go_on_where_they_ended(source, inbox) -> None:
    campaign(source, inbox, kills=6, seed=7)


@pytest.mark.soak
def test_a_hundred_killed_sides_go_on_where_they_ended(source, inbox) -> None:
    campaign(source, inbox, kills=100, seed=random.randrange(1 << 30))


# The source


def changing(source: Path, inbox: Path, change: Callable[[], None]) -> tuple[Side, Side]:
    def trouble() -> str:
        change()
        return "go on"

    return broken_off(source, inbox, EXTENT_BYTES, trouble)


def test_a_source_that_shrinks_fails_on_both_sides_and_leaves_no_file(source, inbox) -> None:
    sender, receiver = changing(source, inbox, lambda: os.truncate(source, 2 * EXTENT_BYTES))
    for side in (sender, receiver):
        assert isinstance(side.error, TransferError)
        assert "shrank" in str(side.error)
    assert not inbox.exists()


def test_a_source_that_is_written_to_fails_on_both_sides_and_leaves_no_file(source, inbox) -> None:
    def write() -> None:
        with source.open("r+b") as file:
            file.write(b"new")

    sender, receiver = changing(source, inbox, write)
    for side in (sender, receiver):
        assert isinstance(side.error, TransferError)
    assert not (inbox / "file").exists()


def test_a_source_that_grows_arrives_as_it_was_with_a_note(source, inbox) -> None:
    before = source.read_bytes()

    def append() -> None:
        with source.open("ab") as file:
            file.write(b"new")

    sender, receiver = changing(source, inbox, append)
    sender.join()
    receiver.join()
    assert (inbox / "file").read_bytes() == before
    assert any("has grown" in text for text in sender.texts())


def test_one_file_that_cannot_be_sent_does_not_keep_the_others(tmp_path, inbox) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(os.urandom(EXTENT_BYTES + 1))
    sender, receiver = changing(folder, inbox, lambda: os.truncate(folder / "b", 1))
    assert "b" in str(sender.error)
    assert "b" in str(receiver.error)
    assert sorted(os.listdir(inbox / "many")) == ["a", "c"]
    (folder / "b").unlink()
    os.utime(inbox / "many", ns=(1, (folder).stat().st_mtime_ns))
    assert same_tree(folder, inbox / "many")


def test_a_changed_source_starts_over(source, inbox) -> None:
    broken_off(source, inbox, 3 * EXTENT_BYTES, lambda: "cut")
    source.write_bytes(random.Random(2).randbytes(FILE_BYTES))
    assert resumes(source, inbox) == 0


# The target


def test_a_full_disk_is_said_on_both_sides_and_another_run_resumes(source, inbox) -> None:
    inbox.mkdir()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * EXTENT_BYTES, 3 * EXTENT_BYTES))

    with running("recv", "--listen", 0, "--into", inbox, preexec_fn=little_room) as receiver:
        with pytest.raises(TransferError, match="file too large") as told:
            fastnet.send(source, str(receiver.endpoint()))
        code, _, err = receiver.end(None)
    assert (code, told.value.code) == (5, "disk_full")
    assert "Free some space" in err
    assert resumes(source, inbox) >= EXTENT_BYTES


def test_a_small_file_that_a_full_disk_cuts_short_does_not_get_its_name(source, inbox) -> None:
    source.write_bytes(os.urandom(10_000))
    inbox.mkdir()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    with running("recv", "--listen", 0, "--into", inbox, preexec_fn=little_room) as receiver:
        with pytest.raises(TransferError, match="file too large"):
            fastnet.send(source, str(receiver.endpoint()))
        assert receiver.end(None)[0] == 5
    assert os.listdir(inbox) == []


def damaged(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "garbage":
        data[:] = os.urandom(len(data))
    elif how == "cut":
        del data[-7:]
    elif how == "empty":
        data.clear()
    elif how == "last record":
        data[-1] ^= 1
    elif how == "first record":
        data[data.index(b"\n") + 3] ^= 1
    elif how == "twice":
        data += data[data.index(b"\n") + 1 :]
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["garbage", "cut", "empty", "last record", "first record", "twice"])
def test_a_damaged_journal_costs_time_and_nothing_else(how, source, inbox) -> None:
    broken_off(source, inbox, 4 * EXTENT_BYTES, lambda: "cut")
    damaged(inbox / JOURNAL, how)
    kept = resumes(source, inbox)
    assert (kept > 0) == (how in ("cut", "last record", "twice"))


@pytest.mark.parametrize("size", [0, EXTENT_BYTES + 5])
def test_a_part_file_that_lost_its_end_is_believed_only_so_far(size, source, inbox) -> None:
    broken_off(source, inbox, 4 * EXTENT_BYTES, lambda: "cut")
    os.truncate(inbox / PART, size)
    assert resumes(source, inbox) == size // EXTENT_BYTES * EXTENT_BYTES


def test_after_a_reboot_what_is_on_the_disk_is_verified_before_it_is_used(
    source, inbox, monkeypatch
) -> None:
    broken_off(source, inbox, 4 * EXTENT_BYTES, lambda: "cut")
    with (inbox / PART).open("r+b") as file:
        file.seek(EXTENT_BYTES + 5)
        file.write(b"lost when the power failed")
    monkeypatch.setattr(journal, "boot", lambda: "another")
    kept = resumes(source, inbox)
    assert kept >= EXTENT_BYTES
    assert kept % EXTENT_BYTES == 0


def test_a_second_receiver_of_one_target_is_refused(source, inbox) -> None:
    with receiving(into=inbox) as first:
        slow = Side(
            fastnet.send, (source, first.endpoint), {"limit_rate_bytes_s": 4.0 * MIB}
        ).start()
        while not (inbox / PART).exists():
            assert slow.thread.is_alive()
        with pytest.raises(TransferRefused, match="another receiver is writing file"):
            transfer([source], into=inbox)
        slow.stopping = True
        with pytest.raises(TransferError, match="stopped"):
            slow.join()
    resumes(source, inbox)


def test_a_receiver_that_gives_up_is_noticed_in_the_middle_of_an_extent(source, inbox) -> None:
    with receiving(into=inbox) as receiver:
        sender = Side(
            fastnet.send, (source, receiver.endpoint), {"limit_rate_bytes_s": MIB / 4}
        ).start()
        eventually(lambda: any(event.kind == "start" for event in receiver.events), "the start")
        receiver.stopping = True
        with pytest.raises(TransferError, match="says: the transfer was stopped"):
            sender.join()


def test_a_disk_that_takes_longer_than_the_time_out_is_no_silence(
    tmp_path, inbox, monkeypatch
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(os.urandom(4 * EXTENT_BYTES))
    slow = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda fd: slow.wait(1.5))
    options = {"stall_s": 1.2, "limit_rate_bytes_s": None}
    transfer([folder], into=inbox, stall_s=1.2, policy=ReceivePolicy(fsync=True), sending=options)
    assert same_tree(folder, inbox / "source")


def test_a_name_that_is_taken_meanwhile_is_not_replaced(source, inbox) -> None:
    def take() -> str:
        (inbox / "file").write_bytes(b"another user's")
        return "go on"

    sender, receiver = broken_off(source, inbox, 3 * EXTENT_BYTES, take)
    assert "came into being" in str(receiver.error)
    assert "came into being" in str(sender.error)
    assert (inbox / "file").read_bytes() == b"another user's"


def test_a_stream_that_breaks_leaves_nothing(inbox) -> None:
    inbox.mkdir()
    with running("recv", "--listen", 0, "--output", inbox / "got") as receiver:
        reading, writing = os.pipe()
        with running("send", "-", receiver.endpoint(), stdin=reading) as sender:
            os.close(reading)
            os.write(writing, bytes(60_000))
            eventually(
                lambda: [path for path in inbox.iterdir() if path.stat().st_size == 60_000],
                "the bytes there",
            )
            sender.process.kill()
            assert receiver.end(None)[0] == 5
        os.close(writing)
    assert os.listdir(inbox) == []


KEPT = ["a name that looks alike.fastnet-part", ".other.fastnet-part"]


@pytest.mark.parametrize("became", ["small", "whole"])
def test_what_a_killed_receiver_left_goes_when_no_run_will_go_on_with_it(
    became, source, inbox
) -> None:
    broken_off(source, inbox, 2 * EXTENT_BYTES, lambda: "cut")
    for name in KEPT:
        (inbox / name).write_bytes(b"kept")
    assert {PART, JOURNAL} < set(os.listdir(inbox))
    if became == "small":
        source.write_bytes(b"short now")
    else:
        shutil.copy2(source, inbox / "file")
    transfer([source], into=inbox, dry_run=True)
    assert {PART, JOURNAL} < set(os.listdir(inbox)), "a dry run changes nothing"
    transfer([source], into=inbox)
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert sorted(os.listdir(inbox)) == sorted([*KEPT, "file"])


def test_what_another_receiver_is_writing_is_not_taken_for_left_over(source, inbox) -> None:
    broken_off(source, inbox, 2 * EXTENT_BYTES, lambda: "cut")
    source.write_bytes(b"short now")
    with open(inbox / PART, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        transfer([source], into=inbox)
    assert {PART, JOURNAL, "file"} == set(os.listdir(inbox))
