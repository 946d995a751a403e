"""The final message of a raw receiver, and the stall timeout that only progress extends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from fastnet.apps.transfer.raw.final_message import NoEndOfStream, as_text, read_final_message
from fastnet.errors import printable
from fastnet.limits import FINAL_MESSAGE_BYTES, FINAL_MESSAGE_BYTES_MAX

STALL_S = 0.3
READS = 8


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender that has sent FIN, and a receiver whose receive buffer holds little of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as ours:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(20)
            ours.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    ours.send(bytes(65_536))
            ours.shutdown(socket.SHUT_WR)
            yield ours, theirs


def test_a_receiver_that_still_reads_may_take_longer_than_the_stall_timeout(ends) -> None:
    ours, theirs = ends
    slices = iter(range(READS))

    def one_slice() -> None:
        if next(slices, None) is not None:
            theirs.recv(65_536)  # one a slice, and a slice is nearly the timeout
            return
        while theirs.recv(65_536):
            pass
        theirs.sendall(b"Thank you")
        theirs.close()

    assert (
        read_final_message(ours, STALL_S, lambda: one_slice() if theirs.fileno() >= 0 else None)
        == b"Thank you"
    )
    assert next(slices, None) is None


def test_a_receiver_that_reads_nothing_times_out_and_its_message_is_kept(ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"wait")
    with pytest.raises(NoEndOfStream) as caught:
        read_final_message(ours, STALL_S, lambda: None)
    assert (caught.value.message, caught.value.is_too_long) == (b"wait", False)


def test_only_the_beginning_of_a_long_message_is_kept(ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"x" * FINAL_MESSAGE_BYTES_MAX)

    def drain() -> None:
        if theirs.fileno() >= 0:
            while theirs.recv(65_536):
                pass
            theirs.close()

    assert read_final_message(ours, 20, drain) == b"x" * FINAL_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"Thank you", "Thank you"),
        (b"Thank you\0\0\0padding", "Thank you"),
        (b"bye\r\n", "bye"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\x1b[2J\x9b31m".encode(), "\\x1b[2J\\x9b31m"),
        (b"", ""),
    ],
)
def test_a_message_becomes_one_line_of_printable_text(message, text) -> None:
    assert printable(as_text(message)) == text
