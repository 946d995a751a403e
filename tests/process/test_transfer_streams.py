"""`--streams N`: large files over several connections, and the faults of one of them."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import fastnet
from fastnet.apps.transfer import compression
from fastnet.apps.transfer.api import state_folder
from fastnet.apps.transfer.report import TransferReport
from fastnet.errors import ConfigError, TransferError
from fastnet.limits import EXTENT_BYTES, STREAMS_MAX
from fastnet.security.certificate import certificate_in, own_certificate
from fastnet.transport.tls import TlsOptions, fingerprint_of
from tests.support.clients import eventually
from tests.support.transfer import ANY_PORT, Proxy, Side, receiving, same_tree, transfer

FILE_BYTES = 7 * EXTENT_BYTES + 12_345
TOKEN = b"a token of sixteen"


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(2).randbytes(FILE_BYTES)


@pytest.fixture
def source(content: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(content)
    return folder / "file"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def shared(
    source: Path, inbox: Path, streams: int, sending: dict[str, Any], **options: Any
) -> tuple[TransferReport, TransferReport, Proxy]:
    """A transfer of which one connection is held up until the others have carried the rest."""

    def hold() -> str:
        eventually(lambda: proxy.carried > FILE_BYTES - 2 * EXTENT_BYTES)
        return "go on"

    with receiving(into=inbox, **options) as receiver:
        with Proxy(receiver.endpoint, 100_000, hold, many=True) as proxy:
            sender = Side(
                fastnet.send, (source, proxy.endpoint), {"streams": streams} | sending
            ).start()
            return sender.join(), receiver.join(), proxy


@pytest.mark.parametrize("streams", [2, 4, STREAMS_MAX])
def test_a_large_file_is_shared_by_all_connections_and_comes_whole(streams, source, inbox) -> None:
    sent, received, proxy = shared(source, inbox, streams, {})
    assert 1 < proxy.connections <= streams
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert os.listdir(inbox) == ["file"]
    assert sent.moved_bytes == received.moved_bytes == FILE_BYTES
    assert sent.digest == received.digest
    assert sent.streams > 1 < received.streams


def test_the_digest_of_a_file_is_independent_of_the_number_of_connections(source, tmp_path) -> None:
    one, _ = transfer([source], into=tmp_path / "one")
    four, _ = transfer([source], into=tmp_path / "four", sending={"streams": 4})
    assert one.digest == four.digest


def test_a_receiver_that_connects_opens_the_connections_the_sender_asks_for(source, inbox) -> None:
    slow = {"limit_rate_bytes_s": FILE_BYTES}
    sender = Side(fastnet.send, (source, ANY_PORT), {"listen": True, "streams": 3} | slow).start()
    with Proxy(sender.endpoint, many=True) as proxy:
        fastnet.receive(proxy.endpoint, into=inbox, listen=False)
        sender.join()
        assert proxy.connections == 3
    assert (inbox / "file").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "both",
    [
        {"token": TOKEN},
        {"tls": True},
        {"tls": True, "token": TOKEN},
        pytest.param(
            {"compress": "zstd"},
            marks=pytest.mark.skipif(bool(compression.why_not()), reason="no zstandard here"),
        ),
    ],
    ids=["token", "tls", "tls and token", "zstd"],
)
def test_every_connection_proves_itself_and_is_encrypted_or_compressed_alike(
    both, source, inbox, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(source.parent / "state"))
    receiving_options: dict[str, Any] = {k: v for k, v in both.items() if k == "token"}
    sending_options = {k: v for k, v in both.items() if k != "tls"}
    if "tls" in both:
        receiving_options["tls"] = TlsOptions()
        der = certificate_in(own_certificate(state_folder()))
        sending_options["tls"] = TlsOptions(fingerprint=fingerprint_of(der))
    sent, received, _ = shared(source, inbox, 3, sending_options, **receiving_options)
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert sent.streams > 1 < received.streams


def test_many_large_small_and_sparse_files_keep_their_order_and_holes(
    source, content, inbox
) -> None:
    folder = source.parent
    (folder / "again").write_bytes(content[::-1])
    (folder / "empty").write_bytes(b"")
    for number in range(50):
        (folder / f"small-{number}").write_bytes(content[number : 2 * number])
    with (folder / "sparse").open("wb") as file:
        for place in range(4):
            file.seek(place * 3 * EXTENT_BYTES)
            file.write(content[:5000])
        file.truncate(12 * EXTENT_BYTES)
    transfer([folder], into=inbox, sending={"streams": 4})
    assert same_tree(folder, inbox / "source")
    assert (inbox / "source" / "sparse").stat().st_blocks * 512 < EXTENT_BYTES


def test_standard_output_takes_one_connection_whatever_the_sender_asks_for(
    source, tmp_path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    taken: list[bytes] = []
    reader = threading.Thread(target=lambda: taken.append(fifo.read_bytes()))
    reader.start()
    sent, _ = transfer([source], output=fifo, sending={"streams": 4})
    reader.join()
    assert taken == [source.read_bytes()]
    assert sent.streams == 1


@pytest.mark.parametrize("word", ["cut", "reset", "stall"])
@pytest.mark.parametrize("after", [700, EXTENT_BYTES + 999, 3 * EXTENT_BYTES, FILE_BYTES - 1000])
def test_one_connection_that_breaks_leaves_a_state_to_go_on_from(
    word, after, source, inbox
) -> None:
    with receiving(into=inbox, stall_s=0.7) as receiver:
        with Proxy(receiver.endpoint, after, lambda: word, many=True) as proxy:
            sender = Side(
                fastnet.send, (source, proxy.endpoint), {"stall_s": 0.7, "streams": 4}
            ).start()
            for side in (sender, receiver):
                side.thread.join(30)
                assert not side.thread.is_alive()
        assert sender.error is None or isinstance(sender.error, TransferError)
    if (inbox / "file").exists():  # it broke before it had anything to carry, or when all was there
        assert (inbox / "file").read_bytes() == source.read_bytes()
        return
    sent, received = transfer([source], into=inbox, sending={"streams": 2})
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert os.listdir(inbox) == ["file"]
    assert (
        sent.moved_bytes + sent.skipped_bytes
        == FILE_BYTES
        == received.moved_bytes + received.skipped_bytes
    )


def test_a_source_that_shrinks_is_called_off_and_the_files_after_it_come(
    source, content, inbox
) -> None:
    folder = source.parent
    (folder / "later").write_bytes(content)

    def shrink() -> str:
        os.truncate(source, 2 * EXTENT_BYTES)
        return "go on"

    with receiving(into=inbox) as receiver:
        with Proxy(receiver.endpoint, EXTENT_BYTES, shrink, many=True) as proxy:
            sender = Side(fastnet.send, (folder, proxy.endpoint), {"streams": 3}).start()
            with pytest.raises(TransferError, match=r"shrank|written to"):
                sender.join()
        with pytest.raises(TransferError, match="not everything came"):
            receiver.join()
    assert os.listdir(inbox / "source") == ["later"]
    assert (inbox / "source" / "later").read_bytes() == content


def test_a_limit_of_the_rate_is_one_for_all_connections(source, inbox) -> None:
    rate = FILE_BYTES
    sent, _ = transfer([source], into=inbox, sending={"streams": 4, "limit_rate_bytes_s": rate})
    assert sent.seconds > 0.5


def test_a_listener_that_lets_no_more_connections_in_gets_all_through_one(source, inbox) -> None:
    with receiving(into=inbox) as receiver, Proxy(receiver.endpoint) as proxy:
        sender = Side(fastnet.send, (source, proxy.endpoint), {"streams": 3}).start()
        sent, received = sender.join(), receiver.join()
    assert (inbox / "file").read_bytes() == source.read_bytes()
    assert sent.streams == received.streams == 1


@pytest.mark.parametrize("streams", [0, -1, STREAMS_MAX + 1])
def test_a_number_of_streams_that_cannot_be_is_said_so(streams, source) -> None:
    with pytest.raises(ConfigError, match="streams"):
        fastnet.send(source, "tcp://127.0.0.1:9", streams=streams)
