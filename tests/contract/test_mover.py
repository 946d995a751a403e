"""The sentences of mover/contract.py, for every mover and backend."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastnet.limits import MIB
from fastnet.mover import MOVERS
from fastnet.mover.contract import NO_OFFSET
from fastnet.testing.mover import (
    EXTENTS,
    check_extent_is_sent,
    check_reset_is_raised,
    check_send_never_waits,
    check_shrunk_file_ends_early,
)
from tests.support.clients import eventually
from tests.support.connect_peers import ABORT
from tests.support.movers import made, opened, pair, rows

DATA = os.urandom(300_001)

sends = pytest.mark.parametrize("row", rows("send"))
receives = pytest.mark.parametrize("row", rows("receive"))
both = pytest.mark.parametrize("row", rows())
copies = pytest.mark.parametrize("row", [row for row in rows() if row.values[0][0] == "copy"])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path / "source") as fd:
        os.pwrite(fd, DATA, 0)
        yield fd


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path / "target") as fd:
        yield fd


@contextmanager
def reading(theirs: socket.socket) -> Iterator[list[bytes]]:
    """A peer that reads everything to the end; what it read is there when the block is left."""
    read: list[bytes] = []

    def run() -> None:
        parts = []
        while part := theirs.recv(65536):
            parts.append(part)
        read.append(b"".join(parts))

    thread = threading.Thread(target=run)
    thread.start()
    yield read
    thread.join()


def contents(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


@sends
@pytest.mark.parametrize(("offset", "count"), EXTENTS)
def test_exactly_the_extent_is_sent_and_the_files_own_offset_stays(
    row, source, offset, count
) -> None:
    """M1, M3, M4, M8."""
    check_extent_is_sent(MOVERS.load(*row).Mover, offset, count)


@sends
def test_a_socket_that_takes_nothing_is_not_waited_for(row, source) -> None:
    """M1, M2: each step is bounded, and the one too many says so."""
    check_send_never_waits(MOVERS.load(*row).Mover)


@sends
def test_a_file_that_shrank_ends_the_extent_early(row, source) -> None:
    """M4: 0 at the end, never an endless loop."""
    check_shrunk_file_ends_early(MOVERS.load(*row).Mover)


@sends
def test_a_peer_that_resets_is_an_error_of_the_socket(row, source) -> None:
    """M7, M9: also while waiting for room."""
    check_reset_is_raised(MOVERS.load(*row).Mover)


@both
@pytest.mark.parametrize("step", [1, 30, 65_536])
def test_a_stream_is_sent_from_where_it_stands(row, step) -> None:
    """M3, M6, M10: whatever the steps, nothing of a pipe is lost or sent twice."""
    out, into = os.pipe()
    with made(row) as mover, pair(buffer_bytes=4096) as (ours, theirs), reading(theirs) as read:
        with os.fdopen(out, "rb", 0) as reader:
            with pytest.raises(BlockingIOError):
                mover.send(ours.fileno(), reader.fileno(), NO_OFFSET, 100)
            os.write(into, DATA[:50_000])
            os.close(into)
            ended = False
            while not ended:
                _, ended = mover.send_some(ours.fileno(), reader.fileno(), NO_OFFSET, step, 10)
            assert mover.moved_bytes == 50_000
            assert mover.runs == "copy"
            assert bool(mover.reason) == (row[0] != "copy")
        ours.shutdown(socket.SHUT_WR)
    assert read[0] == DATA[:50_000]


@both
def test_a_silent_stream_does_not_hide_that_the_connection_is_gone(row) -> None:
    """M9."""
    out, into = os.pipe()
    with made(row) as mover, pair() as (ours, theirs), open(out, "rb"), open(into, "wb"):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        theirs.close()
        with pytest.raises(ConnectionResetError):
            mover.send_some(ours.fileno(), out, NO_OFFSET, 100, 10)


@both
@pytest.mark.parametrize("chunk", [1, 30, 4096, 200_000])
def test_what_arrives_stands_in_the_file_at_its_offset(row, target, chunk) -> None:
    """M3, M5, M8: the peer's chunks mean nothing; ended is the peer's FIN."""
    size = min(len(DATA), chunk * 3000)
    with made(row) as mover, pair() as (ours, theirs):

        def write() -> None:
            for at in range(0, size, chunk):
                theirs.sendall(DATA[at : min(at + chunk, size)])
            theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=write)
        thread.start()
        moved, ended = 0, False
        while not ended:
            n, ended = mover.receive_some(ours.fileno(), target, 10 + moved, MIB, 10)
            moved += n
        thread.join()
        assert moved == mover.moved_bytes == size
        assert mover.held_bytes == 0
    assert contents(target) == bytes(10) + DATA[:size]
    assert os.lseek(target, 0, os.SEEK_CUR) == 0


@receives
def test_never_more_than_asked_is_taken_from_the_socket(row, target) -> None:
    """M1: what follows an extent belongs to someone else."""
    with made(row) as mover, pair() as (ours, theirs):
        theirs.sendall(b"header" + DATA[:100])
        assert mover.receive_some(ours.fileno(), target, 0, 6, 10) == (6, False)
        assert (mover.runs, mover.reason) == (row[0], "")
        ours.setblocking(True)
        assert ours.recv(100, socket.MSG_WAITALL) == DATA[:100]
    assert contents(target) == b"header"


@both
def test_an_empty_socket_raises_immediately_and_a_silent_slice_is_no_end(row, target) -> None:
    """M2, M9."""
    with made(row) as mover, pair() as (ours, _):
        with pytest.raises(BlockingIOError):
            mover.receive(ours.fileno(), target, 0, 100)
        assert mover.receive_some(ours.fileno(), target, 0, 100, 0.02) == (0, False)


@receives
def test_a_few_bytes_are_in_the_file_at_the_end_of_the_slice(row, target) -> None:
    """M9. Bytes may be held back for larger writes, but no longer than the slice.

    The socket is as it was, so that the next reader is not affected.
    """
    with made(row) as mover, pair() as (ours, theirs):
        assert mover.receive_some(ours.fileno(), target, 0, MIB, 0.01) == (0, False)
        theirs.sendall(b"few")
        assert mover.receive_some(ours.fileno(), target, 0, MIB, 0.05) == (3, False)
        assert mover.receive_some(ours.fileno(), target, 3, MIB, 0.01) == (0, False)
        thread = threading.Thread(target=theirs.sendall, args=(b"more",))
        thread.start()
        assert mover.receive_some(ours.fileno(), target, 3, MIB, 0.3) == (4, False)
        thread.join()
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert contents(target) == b"fewmore"


@both
def test_a_full_disk_loses_nothing_that_was_taken_from_the_socket(row, target) -> None:
    """M6: the error comes each time, and when there is room again the file gets every byte."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with made(row) as mover, pair() as (ours, theirs):
        theirs.sendall(DATA[:40_000])
        theirs.shutdown(socket.SHUT_WR)
        eventually(lambda: len(ours.recv(40_000, socket.MSG_PEEK)) == 40_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        try:
            for _ in range(2):
                with pytest.raises(OSError) as caught:
                    list(
                        iter(
                            lambda: mover.receive(ours.fileno(), target, mover.moved_bytes, MIB), 0
                        )
                    )
                assert caught.value.errno == errno.EFBIG
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert mover.moved_bytes == 10_000
        assert mover.held_bytes > 0
        while mover.receive(ours.fileno(), target, mover.moved_bytes, 7777):
            pass
    assert contents(target) == DATA[:40_000]


@both
def test_a_stream_is_written_where_it_stands(row) -> None:
    """M3, M6: a reader that does not read is not waited for, and nothing is lost."""
    out, into = os.pipe()
    with (
        made(row) as mover,
        pair() as (ours, theirs),
        open(out, "rb", 0) as reader,
        open(into, "wb", 0),
    ):
        theirs.sendall(DATA[:200_000])
        theirs.shutdown(socket.SHUT_WR)
        read, ended = b"", False
        assert mover.receive_some(ours.fileno(), into, NO_OFFSET, MIB, 0.05)[1] is False
        while not ended:
            read += os.read(reader.fileno(), 65_536) if len(read) < mover.moved_bytes else b""
            _, ended = mover.receive_some(ours.fileno(), into, NO_OFFSET, MIB, 0.01)
        while len(read) < mover.moved_bytes:
            read += os.read(reader.fileno(), 65_536)
    assert read == DATA[:200_000]


@receives
def test_a_file_that_cannot_be_spliced_to_is_copied_to(row, tmp_path) -> None:
    """M10. EINVAL of a file opened with O_APPEND, after bytes were read from the socket."""
    with made(row) as mover, pair() as (ours, theirs):
        with opened(tmp_path / "appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as target:
            theirs.sendall(DATA[:50_000])
            theirs.shutdown(socket.SHUT_WR)
            assert mover.receive_some(ours.fileno(), target, 0, MIB, 10) == (50_000, True)
        assert mover.runs == "copy"
        assert mover.reason == ("" if row[0] == "copy" else "splice: invalid argument")
    assert (tmp_path / "appended").read_bytes() == DATA[:50_000]


@sends
def test_a_file_that_cannot_be_sent_the_fast_way_is_copied(row) -> None:
    """M10. Files of /proc have no page cache, so sendfile and splice cannot send all of them."""
    with made(row) as mover, pair() as (ours, theirs), reading(theirs) as read:
        with opened(Path("/proc/self/mountinfo"), os.O_RDONLY) as source:
            _, ended = mover.send_some(ours.fileno(), source, 0, MIB, 10)
            assert ended
        ours.shutdown(socket.SHUT_WR)
    assert read[0] == Path("/proc/self/mountinfo").read_bytes()


@copies
@pytest.mark.parametrize("buffer_bytes", [0, 4096])
def test_a_tap_is_given_every_byte_once_and_in_order(row, source, target, buffer_bytes) -> None:
    """M12. Also where the socket takes little at a time and the mover reads the file again."""
    with made(row) as out, made(row) as into, pair(buffer_bytes) as (ours, theirs):
        theirs.setblocking(False)
        sent, received = bytearray(), bytearray()
        out.tap, into.tap = sent.extend, received.extend
        here = there = 0
        while there < len(DATA):
            here += out.send_some(ours.fileno(), source, here, len(DATA) - here, 0.001)[0]
            there += into.receive_some(theirs.fileno(), target, there, len(DATA) - there, 0.001)[0]
        assert (sent, received, contents(target)) == (DATA, DATA, DATA)
        out.tap = None
        assert out.send(ours.fileno(), source, 0, 10) == 10
        assert len(sent) == len(DATA)


@copies
def test_a_tap_of_a_stream_is_given_what_the_socket_took(row) -> None:
    """M12, M6."""
    out, into = os.pipe()
    with (
        made(row) as mover,
        pair() as (ours, theirs),
        os.fdopen(out, "rb", 0) as reader,
        os.fdopen(into, "wb", 0) as writer,
    ):
        writer.write(b"some words")
        tapped: list[bytes] = []
        mover.tap = lambda piece: tapped.append(bytes(piece))
        assert mover.send(ours.fileno(), reader.fileno(), NO_OFFSET, 4) == 4
        assert mover.send(ours.fileno(), reader.fileno(), NO_OFFSET, 100) == 6
        assert tapped == [b"some", b" words"]
        assert theirs.recv(100) == b"some words"


@both
def test_closing_drops_what_is_held_and_may_be_done_twice(row, tmp_path) -> None:
    """M11."""
    with made(row) as mover, pair() as (ours, theirs):
        theirs.sendall(DATA[:1000])
        with (
            opened(tmp_path / "read-only", os.O_RDONLY | os.O_CREAT) as target,
            pytest.raises(OSError),
        ):
            mover.receive_some(ours.fileno(), target, 0, MIB, 10)
        assert mover.held_bytes == 1000
        mover.close()
        mover.close()
        assert mover.held_bytes == 0
