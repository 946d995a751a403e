"""Files and folders by fastnet/1: what arrives is what was sent, and both sides say so."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from pathlib import Path

import pytest

import fastnet
from fastnet.apps.transfer.digest import ALGORITHMS
from fastnet.apps.transfer.options import ReceivePolicy
from fastnet.apps.transfer.smallfiles import SMALL
from fastnet.apps.transfer.source.walk import Filter
from fastnet.errors import ConfigError, TransferError, TransferRefused
from fastnet.limits import EXTENT_BYTES, MIB, PACKED_FILE_BYTES
from fastnet.transport.tls import TlsOptions
from tests.support.transfer import Side, listing, receiving, same_tree, transfer

SIZES = [
    *(0, 1, 29, 30, 31, 4096),
    *(PACKED_FILE_BYTES - 1, PACKED_FILE_BYTES, PACKED_FILE_BYTES + 1),
    *(EXTENT_BYTES - 1, EXTENT_BYTES, EXTENT_BYTES + 1, 3 * EXTENT_BYTES + 7),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def written(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


@pytest.fixture
def tree(source: Path) -> Path:
    """One of everything."""
    for name, size in (("small", 5), ("large", EXTENT_BYTES + 3), ("empty", 0)):
        written(source / name, size)
    (source / "deep" / "deeper").mkdir(parents=True)
    written(source / "deep" / "deeper" / "file", 1000).chmod(0o640)
    (source / "deep" / "deeper").chmod(0o750)
    (source / "no files").mkdir()
    (source / "link").symlink_to("deep/deeper/file")
    (source / "dangling").symlink_to("deep/nowhere")
    written(source / os.fsdecode(b"not \xff utf-8 \n"), 10)
    os.utime(source / "small", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source / "deep", ns=(1, 987_654_321_000_000_000))
    return source


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_arrives(size, source, inbox) -> None:
    file = written(source / "file", size)
    sent, received = transfer([file], into=inbox)
    assert (inbox / "file").read_bytes() == file.read_bytes()
    assert (
        sent.moved_bytes
        == received.moved_bytes
        == sent.confirmed_bytes
        == received.confirmed_bytes
        == size
    )
    assert sent.digest == received.digest is not None
    assert os.listdir(inbox) == ["file"]


def test_a_tree_arrives_with_modes_times_links_and_names_in_any_bytes(tree, inbox) -> None:
    sent, received = transfer([tree], into=inbox)
    assert same_tree(tree, inbox / "source")
    assert sent.files == received.files == 5


def test_several_arguments_are_one_transfer(tree, inbox) -> None:
    sent, _ = transfer([tree / "small", tree / "deep", tree / "large"], into=inbox)
    assert sorted(os.listdir(inbox)) == ["deep", "large", "small"]
    assert sent.files == 3


def test_a_named_link_is_followed_and_one_below_a_folder_is_not(tree, inbox) -> None:
    transfer([tree / "link"], into=inbox)
    assert not (inbox / "link").is_symlink()
    assert (inbox / "link").read_bytes() == (tree / "deep" / "deeper" / "file").read_bytes()


def test_a_link_that_leads_out_is_not_made_and_both_sides_say_so(source, inbox) -> None:
    written(source / "file", 10)
    (source / "bad").symlink_to("/etc/passwd")
    with receiving(into=inbox) as receiver:
        with pytest.raises(TransferError, match="source/bad") as told:
            fastnet.send(source, receiver.endpoint)
        with pytest.raises(TransferError, match="source/bad"):
            receiver.join()
    assert told.value.report.confirmed_bytes == 10
    assert os.listdir(inbox / "source") == ["file"]


def test_ten_thousand_files_need_no_round_trip_each(source, inbox) -> None:
    for number in range(2000):
        (source / f"{number}").write_bytes(b"%d" % number)
    sent, _ = transfer([source], into=inbox)
    assert sent.files == 2000
    assert same_tree(source, inbox / "source")


def test_holes_stay_holes(source, inbox) -> None:
    file = source / "sparse"
    with file.open("wb") as out:
        for place in (0, 20 * MIB, 50 * MIB):
            out.seek(place)
            out.write(os.urandom(MIB))
        out.truncate(80 * MIB)
    sent, _ = transfer([file], into=inbox)
    assert (inbox / "sparse").read_bytes() == file.read_bytes()
    assert (inbox / "sparse").stat().st_blocks == file.stat().st_blocks
    assert sent.moved_bytes == 3 * MIB
    assert sent.confirmed_bytes == 80 * MIB


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_digest_carries_a_tree(algorithm, tree, inbox) -> None:
    transfer([tree], into=inbox, sending={"digest": algorithm})
    assert same_tree(tree, inbox / "source")


def test_compressed_frames_carry_a_tree(tree, inbox) -> None:
    (tree / "text").write_bytes(b"the same words again and again\n" * 200_000)
    sent, received = transfer([tree], into=inbox, sending={"compress": "zstd"})
    assert same_tree(tree, inbox / "source")
    assert sent.mover_reason == received.mover_reason == "zstd"


@pytest.mark.parametrize("mover", ["sendfile", "splice", "copy"])
@pytest.mark.parametrize("backend", ["native", "python"])
def test_every_mover_carries_a_large_file(mover, backend, source, inbox) -> None:
    from fastnet.mover import MOVERS

    if MOVERS.why_not(mover, backend):
        pytest.skip(f"no {backend} {mover}: {MOVERS.why_not(mover, backend)}")
    file = written(source / "file", 2 * EXTENT_BYTES + 11)
    receives = "splice" if mover == "sendfile" else mover
    sent, received = transfer(
        [file],
        into=inbox,
        mover=receives,
        backend=backend,
        sending={"mover": mover, "backend": backend},
    )
    assert (inbox / "file").read_bytes() == file.read_bytes()
    assert sent.mover == f"{mover}-{backend}"
    assert received.mover.startswith(receives)


@pytest.mark.parametrize(
    ("digest", "ways"),
    [
        ("xxh3-128", ("copy", "copy")),
        ("blake2b", ("sendfile", "splice")),
        ("none", ("sendfile", "splice")),
    ],
)
def test_a_fast_digest_is_computed_in_a_copys_buffer_a_slow_one_without_copy(
    digest, ways, source, inbox
) -> None:
    file = written(source / "file", 2 * EXTENT_BYTES + 11)
    for side, way in zip(
        transfer([file], into=inbox, sending={"digest": digest}), ways, strict=True
    ):
        assert side.mover.partition("-")[0] == way
        assert (side.mover_reason == "digest in the same buffer") == (way == "copy")


def test_small_files_are_said_to_be_such(source, inbox) -> None:
    written(source / "file", 11)
    sent, received = transfer([source], into=inbox, sending={"backend": "python"})
    receives = "python" if SMALL.why_not("scatter", "native") else "native"
    assert (sent.mover, received.mover) == ("copy-python", f"copy-{receives}")
    assert sent.mover_reason == received.mover_reason == "small files"


def test_a_sender_that_listens_serves_several_concurrently(tree, tmp_path) -> None:
    sender = Side(fastnet.serve_files, (tree, "tcp://127.0.0.1:0"), {}).start()
    where = sender.endpoint
    sides = [
        Side(fastnet.receive, (where,), {"into": tmp_path / f"inbox{n}", "listen": False}).start()
        for n in range(4)
    ]
    for side in sides:
        side.join()
    sender.stopping = True
    sender.join()
    assert all(same_tree(tree, tmp_path / f"inbox{n}" / "source") for n in range(4))
    assert len([event for event in sender.events if event.kind == "report"]) == 4


def test_over_a_unix_socket(tree, inbox, tmp_path) -> None:
    receiver = Side(fastnet.receive, (f"unix:{tmp_path}/socket",), {"into": inbox}).start()
    fastnet.send(tree, receiver.endpoint)
    receiver.join()
    assert same_tree(tree, inbox / "source")


def test_with_tls_and_a_token(tree, inbox, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    token = b"a token that both sides have"
    with receiving(into=inbox, token=token, tls=TlsOptions()) as receiver:
        where = receiver.endpoint
        pin = next(text for text in receiver.texts() if "--tls-fingerprint" in text).rpartition(
            " "
        )[2]
        sent = fastnet.send(tree, where, token=token, tls=TlsOptions(fingerprint=pin))
        receiver.join()
    assert same_tree(tree, inbox / "source")
    assert sent is not None
    assert "TLS" in sent.mover_reason


@pytest.mark.parametrize(
    ("ours", "theirs"), [(b"one token of mine", b"another, of theirs"), (b"a token of mine", b"")]
)
def test_without_the_same_token_nothing_is_sent_and_the_listener_waits_on(
    ours, theirs, tree, inbox
) -> None:
    with receiving(into=inbox, token=ours) as receiver:
        where = receiver.endpoint
        with pytest.raises(TransferRefused, match="token"):
            fastnet.send(tree, where, token=theirs)
        fastnet.send(tree, where, token=ours)
        receiver.join()
    assert same_tree(tree, inbox / "source")
    assert any("was rejected" in text for text in receiver.texts())


def test_unauthenticated_peers_disturb_neither_the_wait_nor_the_transfer(tree, inbox) -> None:
    with receiving(into=inbox) as receiver:
        where = receiver.endpoint
        address = ("127.0.0.1", int(where.rpartition(":")[2]))
        silent = socket.create_connection(address)
        with silent, socket.create_connection(address) as rude:
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
            socket.create_connection(address).close()
            fastnet.send(tree, where, limit_rate_bytes_s=30e6)
            receiver.join()
    assert same_tree(tree, inbox / "source")


def test_both_sides_with_one_role_are_told(tree, tmp_path) -> None:
    sender = Side(fastnet.send, (tree, "tcp://127.0.0.1:0"), {"listen": True}).start()
    with pytest.raises(TransferRefused, match="both sides want to send"):
        fastnet.send(tree, sender.endpoint)
    sender.stopping = True
    with pytest.raises(TransferError, match="stopped"):
        sender.join()


# What is there already


def test_what_exists_and_differs_refuses_everything_before_a_byte_travels(tree, inbox) -> None:
    transfer([tree / "deep"], into=inbox)
    (inbox / "deep" / "deeper" / "file").write_bytes(b"other")
    with pytest.raises(TransferRefused, match="deep/deeper/file exists already and differs"):
        transfer([tree / "large", tree / "deep"], into=inbox)
    assert (inbox / "deep" / "deeper" / "file").read_bytes() == b"other"
    assert os.listdir(inbox) == ["deep"]


def test_what_is_there_unchanged_does_not_travel_again(tree, inbox) -> None:
    transfer([tree], into=inbox)
    sent, received = transfer([tree], into=inbox)
    assert sent.moved_bytes == received.moved_bytes == 0
    assert (
        sent.skipped_bytes
        == received.skipped_bytes
        == sum(len(what[0]) for what in listing(tree).values() if isinstance(what[0], bytes))
    )


def test_always_replaces(tree, inbox) -> None:
    inbox.mkdir()
    (inbox / "small").write_bytes(b"old and longer than the new one")
    transfer([tree / "small"], into=inbox, overwrite="always")
    assert (inbox / "small").read_bytes() == (tree / "small").read_bytes()


@pytest.mark.parametrize(("mtime_s", "replaced"), [(1_000_000_000, True), (2_000_000_000, False)])
def test_older_replaces_what_is_older_and_skips_the_rest(mtime_s, replaced, tree, inbox) -> None:
    inbox.mkdir()
    (inbox / "small").write_bytes(b"there")
    os.utime(inbox / "small", (mtime_s, mtime_s))
    transfer([tree / "small"], into=inbox, overwrite="older")
    assert ((inbox / "small").read_bytes() == (tree / "small").read_bytes()) == replaced


def test_rename_finds_another_name(tree, inbox) -> None:
    inbox.mkdir()
    (inbox / "small").write_bytes(b"there")
    transfer([tree / "small"], into=inbox, overwrite="rename")
    assert (inbox / "small").read_bytes() == b"there"
    assert (inbox / "small (2)").read_bytes() == (tree / "small").read_bytes()


def test_a_dry_run_says_what_would_travel_and_moves_nothing(tree, inbox) -> None:
    with receiving(into=inbox) as receiver:
        sender = Side(fastnet.send, (tree, receiver.endpoint), {"dry_run": True}).start()
        assert sender.join().moved_bytes == 0
        receiver.join()
    assert any("dry run: 5 files" in text for text in sender.texts())
    assert not inbox.exists()


def test_filters_choose_below_folders(tree, inbox) -> None:
    transfer(
        [tree],
        into=inbox,
        sending={"file_filter": Filter(exclude=("large", "no files", "*utf-8*"))},
    )
    assert sorted(os.listdir(inbox / "source")) == ["dangling", "deep", "empty", "link", "small"]


def test_what_is_no_file_is_left_out_and_told(source, inbox) -> None:
    written(source / "file", 3)
    os.mkfifo(source / "fifo")
    with receiving(into=inbox) as receiver:
        sender = Side(fastnet.send, (source, receiver.endpoint), {}).start()
        sender.join()
        receiver.join()
    assert any("fifo is left out" in text for text in sender.texts())
    assert os.listdir(inbox / "source") == ["file"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (ReceivePolicy(bytes_max=100), "100 are allowed"),
        (ReceivePolicy(files_max=3), "more than 3"),
        (ReceivePolicy(ask=lambda *_: False), "said no"),
    ],
)
def test_a_receiver_takes_no_more_than_it_allows(policy, says, tree, inbox) -> None:
    with pytest.raises(TransferRefused, match=says):
        transfer([tree], into=inbox, policy=policy)
    assert not inbox.exists()


def test_with_fsync_everything_is_synced_before_the_word(tree, inbox, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    transfer([tree], into=inbox, policy=ReceivePolicy(fsync=True))
    assert synced.count(False) == 5
    assert True in synced


def test_a_limited_rate_is_kept(source, inbox) -> None:
    file = written(source / "file", 3 * MIB)
    began = time.monotonic()
    transfer([file], into=inbox, sending={"limit_rate_bytes_s": 4 * MIB})
    assert time.monotonic() - began >= 0.5  # 3 MiB at 4 MiB/s, less the burst


def test_a_disk_without_room_is_said_before_a_byte_travels(tree, inbox, monkeypatch) -> None:
    from fastnet.apps.transfer.protocol import manifest

    write = manifest.write
    # A sender whose files are larger than any disk here; only its word is forged.
    monkeypatch.setattr(manifest, "write", lambda given, send: write(forged(given), send))

    def forged(given: manifest.Manifest) -> manifest.Manifest:
        entries = [entry._replace(size=1 << 55) if entry.size else entry for entry in given.entries]
        return given._replace(entries=entries, data_bytes=1 << 60)

    with pytest.raises(TransferRefused, match="has room for"):
        transfer([tree], into=inbox)
    assert not inbox.exists()


def test_a_file_of_holes_may_be_larger_than_the_disk(source, inbox) -> None:
    file = source / "sparse"
    with file.open("wb") as out:
        out.write(b"data")
        out.truncate(1 << 42)
    sent, _ = transfer([file], into=inbox)
    assert sent.confirmed_bytes == 1 << 42
    assert (inbox / "sparse").stat().st_blocks == file.stat().st_blocks


def test_no_peer_within_the_timeout_is_a_network_error(inbox) -> None:
    with pytest.raises(fastnet.NetworkError) as told:
        fastnet.receive("tcp://127.0.0.1:0", into=inbox, wait_s=0.1)
    assert told.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("was_there", [False, True])
def test_a_folder_made_for_what_never_came_is_gone_again(was_there, tree, inbox) -> None:
    if was_there:
        inbox.mkdir()
    with pytest.raises(fastnet.NetworkError):
        fastnet.receive("tcp://127.0.0.1:0", into=inbox, wait_s=0.1)
    assert inbox.exists() == was_there
    transfer([tree], into=inbox, dry_run=True)
    assert inbox.exists() == was_there


@pytest.mark.parametrize("options", [{"digest": "crc"}, {"speed": 1}])
def test_a_wrong_option_is_a_configuration_error(options, tree) -> None:
    with pytest.raises(ConfigError):
        fastnet.send(tree, "tcp://127.0.0.1:1", **options)
