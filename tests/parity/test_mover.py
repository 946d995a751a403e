"""M13: native and pure movers end with the same files and results.

Whatever the sizes, offsets, chunks and buffers are.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.mover import MOVERS
from tests.conftest import why_skip
from tests.support.movers import made, opened, pair

WHY = why_skip("native")
PATTERN = os.urandom(1 << 18)
SIZES = st.one_of(st.integers(0, 70), st.integers(0, len(PATTERN)))


def sent(
    row: tuple[str, str], size: int, offset: int, count: int, buffer_bytes: int
) -> tuple[object, ...]:
    """Send an extent of a file of `size` bytes.

    Returns the results of the mover and what the peer received.
    """
    got: list[bytes] = []

    def read(theirs: socket.socket) -> None:
        while part := theirs.recv(4096):
            got.append(part)

    with tempfile.TemporaryDirectory() as folder, opened(Path(folder, "source")) as source:
        os.pwrite(source, PATTERN[:size], 0)
        with made(row) as mover, pair(buffer_bytes) as (ours, theirs):
            thread = threading.Thread(target=read, args=(theirs,))
            thread.start()
            answer = mover.send_some(ours.fileno(), source, offset, count, 20)
            ours.shutdown(socket.SHUT_WR)
            thread.join()
            return (
                answer,
                mover.moved_bytes,
                mover.held_bytes,
                mover.runs,
                mover.reason,
                b"".join(got),
            )


def received(
    row: tuple[str, str], size: int, offset: int, count: int, chunk: int
) -> tuple[object, ...]:
    """Receive an extent from a peer that sends `size` bytes in chunks.

    Returns the results of the mover and the file.
    """
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder, "target")) as target:
        with made(row) as mover, pair() as (ours, theirs):

            def write() -> None:
                for at in range(0, size, chunk):
                    theirs.sendall(PATTERN[at : min(at + chunk, size)])
                theirs.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=write)
            thread.start()
            answer = mover.receive_some(ours.fileno(), target, offset, count, 20)
            thread.join()
            facts = answer, mover.moved_bytes, mover.held_bytes, mover.runs, mover.reason
        return *facts, os.pread(target, len(PATTERN) * 2, 0)


@pytest.mark.native
@pytest.mark.skipif(bool(WHY), reason=WHY)
@pytest.mark.parametrize("name", MOVERS)
@settings(max_examples=40, deadline=None, database=None)
@given(size=SIZES, offset=SIZES, count=SIZES, buffer_bytes=st.sampled_from([0, 4096]))
def test_both_send_the_same_extent(name, size, offset, count, buffer_bytes) -> None:
    native, pure = (
        sent((name, each), size, offset, count, buffer_bytes) for each in ("native", "python")
    )
    assert native == pure
    assert native[-1] == PATTERN[:size][offset : offset + count]


@pytest.mark.native
@pytest.mark.skipif(bool(WHY), reason=WHY)
@pytest.mark.parametrize("name", MOVERS)
@settings(max_examples=40, deadline=None, database=None)
@given(size=SIZES, offset=SIZES, count=SIZES, chunk=st.sampled_from([30, 1000, 1 << 18]))
def test_both_receive_the_same_extent(name, size, offset, count, chunk) -> None:
    native, pure = (
        received((name, each), size, offset, count, chunk) for each in ("native", "python")
    )
    assert native == pure
    kept = PATTERN[: min(size, count)]
    assert native[-1] == (bytes(offset) + kept if kept else b"")
