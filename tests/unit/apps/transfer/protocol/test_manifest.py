"""The manifest: what is written is read, and the bound of its entries bounds memory too."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from fastnet.apps.transfer.protocol import manifest
from fastnet.apps.transfer.protocol.entry import FILE, FOLDER, LINK, Entry
from fastnet.apps.transfer.protocol.frames import HEAD, Frame, FrameKind
from fastnet.apps.transfer.session.connection import TransferConnection
from fastnet.errors import TransferRefused
from tests.support.clients import DEADLINE_S


@pytest.fixture
def connection() -> Iterator[TransferConnection]:
    """Of which only the deadline is used."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield TransferConnection(ours, "peer", DEADLINE_S)


def frames_of(entries: list[Entry], dry_run: bool = False) -> list[Frame]:
    sent: list[bytes] = []
    manifest.write(manifest.Manifest(entries, 5, dry_run), sent.append)
    return [Frame(FrameKind(HEAD.unpack(each[: HEAD.size])[0]), each[HEAD.size :]) for each in sent]


def read(
    connection: TransferConnection, frames: list[Frame], files_max: int = 10**6
) -> manifest.Manifest:
    left = iter(frames)
    return manifest.read(connection, lambda kind: next(left), files_max, None)


def test_what_is_written_is_read(connection: TransferConnection) -> None:
    entries = [
        Entry(FOLDER, "a", 0o700, 1),
        Entry(FILE, "a/\udcff\n\U0001f600", 0o640, -5, 10, "id"),
        Entry(LINK, "l", 0o777, 2, 0, "a"),
    ]
    assert read(connection, frames_of(entries, True)) == manifest.Manifest(entries, 5, True)
    assert connection.deadline is None


def test_a_long_one_travels_in_parts_of_bounded_size(connection: TransferConnection) -> None:
    entries = [Entry(FILE, f"{i}" + "x" * 200) for i in range(5000)]
    frames = frames_of(entries)
    assert len(frames) > 1
    assert all(len(frame.payload) <= manifest.CONTROL_BYTES_MAX for frame in frames)
    assert read(connection, frames).entries == entries


@pytest.mark.parametrize(("name", "fits"), [("x" * 100, True), ("x" * 88 + "\U0001f600", False)])
def test_names_count_as_what_they_take_in_memory(
    connection: TransferConnection, monkeypatch: pytest.MonkeyPatch, name: str, fits: bool
) -> None:
    """An emoji makes every character of its name four bytes wide."""
    frames = frames_of([Entry(FILE, f"{i:03}{name}") for i in range(100)])
    monkeypatch.setattr(manifest, "MANIFEST_BYTES_MAX", 20_000)
    with contextlib.nullcontext() if fits else pytest.raises(TransferRefused):
        read(connection, frames)
