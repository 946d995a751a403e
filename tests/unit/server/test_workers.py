"""Last words of a raw receiver: patience with one that still reads, none with one that only sits
there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from fastnet.apps.transfer.raw.final_message import NoEnd, as_text, read_last_words
from fastnet.errors import printable
from fastnet.limits import LAST_WORDS_BYTES, LAST_WORDS_BYTES_MAX

STALL_S = 0.3
READS = 8


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender that has said all it had to say, and a receiver whose kernel holds little of it."""
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


def test_a_receiver_that_still_reads_may_take_longer_than_the_time_out(ends) -> None:
    ours, theirs = ends
    slices = iter(range(READS))

    def one_slice() -> None:
        if next(slices, None) is not None:
            theirs.recv(65_536)  # one a slice, and a slice is nearly the time-out
            return
        while theirs.recv(65_536):
            pass
        theirs.sendall(b"Thank you")
        theirs.close()

    assert (
        read_last_words(ours, STALL_S, lambda: one_slice() if theirs.fileno() >= 0 else None)
        == b"Thank you"
    )
    assert next(slices, None) is None


def test_a_receiver_that_reads_nothing_is_given_up_and_what_it_said_is_kept(ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"wait")
    with pytest.raises(NoEnd) as caught:
        read_last_words(ours, STALL_S, lambda: None)
    assert (caught.value.words, caught.value.talked) == (b"wait", False)


def test_only_the_beginning_of_a_long_speech_is_kept(ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"x" * LAST_WORDS_BYTES_MAX)

    def hear_out() -> None:
        if theirs.fileno() >= 0:
            while theirs.recv(65_536):
                pass
            theirs.close()

    assert read_last_words(ours, 20, hear_out) == b"x" * LAST_WORDS_BYTES


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (b"Thank you", "Thank you"),
        (b"Thank you\0\0\0padding", "Thank you"),
        (b"bye\r\n", "bye"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\x1b[2J\x9b31m".encode(), "\\x1b[2J\\x9b31m"),
        (b"", ""),
    ],
)
def test_words_become_one_line_of_printable_text(words, text) -> None:
    assert printable(as_text(words)) == text
