"""Conformance suite of a mover: sentences M1 to M8 of mover/contract.py."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from fastnet.limits import MOVER_STEP_BYTES
from fastnet.mover.contract import Mover

CONTENT = bytes(range(251)) * 1195
"""What the files of the checks hold."""
EXTENTS = ((0, 1), (7, 1000), (len(CONTENT) - 1, 1), (100_000, 150_001))
"""Offsets and sizes in bytes that are sent."""
SMALL_BUFFER_BYTES = 4096
SLICE_S = 10.0
"""Seconds that one slice may take."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close sends RST."""

Make = Callable[[], Mover]


@contextmanager
def socket_pair(buffer_bytes: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: ours, non-blocking, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        if buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                ours.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(2 * SLICE_S)
        yield ours, theirs


@contextmanager
def read_to_end(theirs: socket.socket) -> Iterator[list[bytes]]:
    """Read everything in a thread; the list holds it when the block has ended."""
    read: list[bytes] = []

    def body() -> None:
        parts = []
        while part := theirs.recv(65536):
            parts.append(part)
        read.append(b"".join(parts))

    thread = threading.Thread(target=body)
    thread.start()
    yield read
    thread.join()


@contextmanager
def source_file() -> Iterator[int]:
    """A descriptor of a file with CONTENT."""
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), CONTENT, 0)
        yield file.fileno()


def check_extent_is_sent(make: Make, offset: int, count: int) -> None:
    """M1, M3, M4, M8: exactly the extent is sent, and the file's own offset stays."""
    with source_file() as fd, closing(make()) as mover, socket_pair() as (ours, theirs):
        os.lseek(fd, 5, os.SEEK_SET)
        with read_to_end(theirs) as read:
            moved = mover.send_some(ours.fileno(), fd, offset, count, SLICE_S)
            ours.shutdown(socket.SHUT_WR)
        assert moved == (count, False), f"M4: send_some returned {moved}, not {(count, False)}"
        assert mover.moved_bytes == count, "M8: moved_bytes is not the sum of the steps"
        assert read[0] == CONTENT[offset : offset + count], "M1: other bytes arrived"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5, "M3: the file's own offset was changed"


def check_send_never_waits(make: Make) -> None:
    """M1, M2: steps are bounded, and a full socket raises BlockingIOError."""
    with source_file() as fd, closing(make()) as mover:
        with socket_pair(SMALL_BUFFER_BYTES) as (ours, _):
            step = partial(mover.send, ours.fileno(), fd, 0, MOVER_STEP_BYTES + 1)
            try:
                for moved in iter(step, 0):
                    assert 0 < moved <= MOVER_STEP_BYTES, f"M1: one step sent {moved} bytes"
            except BlockingIOError:
                return
    raise AssertionError("M2: a full socket raises BlockingIOError")


def check_shrunk_file_ends_early(make: Make) -> None:
    """M4: 0 at the end of the file, never an endless loop."""
    with source_file() as fd, closing(make()) as mover, socket_pair() as (ours, theirs):
        with read_to_end(theirs) as read:
            os.ftruncate(fd, 1000)
            moved = mover.send_some(ours.fileno(), fd, 0, len(CONTENT), SLICE_S)
            assert moved == (1000, True), f"M4: send_some returned {moved}, not {(1000, True)}"
            for offset in (1000, 5000):
                assert mover.send(ours.fileno(), fd, offset, 1) == 0, "M4: 0 at the end"
            ours.shutdown(socket.SHUT_WR)
        assert read[0] == CONTENT[:1000], "M4: other bytes arrived"


def check_reset_is_raised(make: Make) -> None:
    """M7, M8: an error of the socket is raised, and moved_bytes stays true."""
    with source_file() as fd, closing(make()) as mover:
        with socket_pair(SMALL_BUFFER_BYTES) as (ours, theirs):
            mover.send_some(ours.fileno(), fd, 0, len(CONTENT), 0.01)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            theirs.close()
            try:
                mover.send_some(ours.fileno(), fd, 0, len(CONTENT), SLICE_S)
            except (ConnectionResetError, BrokenPipeError):
                assert 0 < mover.moved_bytes < len(CONTENT), "M8: moved_bytes is wrong"
                return
    raise AssertionError("M7: a reset raises ConnectionResetError or BrokenPipeError")


def check_extent_is_received(make: Make, offset: int) -> None:
    """M3, M5, M8: bytes stand in the file at the offset; the peer's FIN is the end."""
    with tempfile.TemporaryFile() as file, closing(make()) as mover:
        with socket_pair() as (ours, theirs):
            sender = threading.Thread(target=send_content, args=(theirs,))
            sender.start()
            at, ended = offset, False
            while not ended:
                moved, ended = mover.receive_some(
                    ours.fileno(), file.fileno(), at, len(CONTENT) + 1, SLICE_S
                )
                assert moved or ended, "M9: nothing was received in a whole slice"
                at += moved
            sender.join()
        found = os.pread(file.fileno(), len(CONTENT) + 1, offset)
        assert found == CONTENT, "M3: the file holds other bytes at the offset"
        assert mover.moved_bytes == len(CONTENT), "M8: moved_bytes is not the sum of the steps"


def send_content(theirs: socket.socket) -> None:
    """The peer: all content, then FIN."""
    theirs.sendall(CONTENT)
    theirs.shutdown(socket.SHUT_WR)


def check_mover(make: Make, *, sends: bool = True, receives: bool = True) -> None:
    """Check a mover against mover/contract.py, with files and a TCP connection.

    Args:
        make: Makes a mover: the class, or a function; called for each check.
        sends: Check the direction from a file to a socket.
        receives: Check the direction from a socket to a file.

    Raises:
        AssertionError: A sentence of the contract is broken; the message starts with its number.

    Example:
        >>> check_mover(my_mover.Mover, receives=False)

    See also: docs/extending.md.
    """
    if sends:
        for offset, count in EXTENTS:
            check_extent_is_sent(make, offset, count)
        check_send_never_waits(make)
        check_shrunk_file_ends_early(make)
        check_reset_is_raised(make)
    if receives:
        for offset in (0, 12_345):
            check_extent_is_received(make, offset)
