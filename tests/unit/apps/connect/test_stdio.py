"""Standard input and output of the client: the rare results of read(2) and write(2)."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from fastnet.apps.connect.stdio import StandardInput, StandardOutput
from fastnet.apps.connect.stream import StreamPump
from fastnet.endpoint import Endpoint
from tests.support.connect_peers import DEADLINE_S, swallow


def test_an_input_whose_bytes_another_reader_took_is_not_at_its_end() -> None:
    source, sink = os.pipe()
    try:
        os.set_blocking(source, False)
        assert StandardInput(source).read_into(memoryview(bytearray(10))) is None
    finally:
        os.close(source)
        os.close(sink)


def test_a_terminal_that_gives_input_errors_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, fd = os.openpty()

    def readv(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    try:
        source = StandardInput(fd)
        monkeypatch.setattr(os, "readv", readv)
        assert source.read_into(memoryview(bytearray(10))) == 0
    finally:
        os.close(keyboard)
        os.close(fd)


def test_a_pipe_takes_what_fits_and_never_waits() -> None:
    back, target = os.pipe()
    output = StandardOutput(target)
    try:
        taken = output.write(memoryview(bytes(1_000_000)))
        assert 0 < taken <= 65536
        assert output.write(memoryview(b"x")) == 0
        assert len(os.read(back, 1_000_000)) == taken
        assert output.write(memoryview(b"x")) == 1
    finally:
        output.close()
        os.close(back)
        os.close(target)


def test_an_end_of_input_read_with_its_last_bytes_follows_them() -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    far.settimeout(DEADLINE_S)
    (source_fd, sink), (back, target) = os.pipe(), os.pipe()
    text = b"x" * 50_000 + b"\n"
    os.write(sink, text + b"q\n")
    source = StandardInput(source_fd)
    source.is_terminal = True  # one in raw mode, where a read may hold several lines
    received: list[bytes] = []

    def drain() -> None:
        received.append(swallow(far))
        far.close()

    reader = threading.Thread(target=drain)
    output = StandardOutput(target)
    conversation = StreamPump(near, Endpoint("unix", path="@x"), source, output)
    near.setblocking(False)
    conversation.run_once()  # fills the socket before the peer reads from it
    reader.start()
    try:
        assert conversation.run().ended_by == "both"
        reader.join(DEADLINE_S)
        assert received == [text]
    finally:
        near.close()
        output.close()
        for fd in (source_fd, sink, back, target):
            os.close(fd)
