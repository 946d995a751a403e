"""A dictionary: a word comes, its translation goes back, or `unknown`. One datagram a word, or over
connections one line.

Facts. Textbook clients send padded buffers, `nc` a line. Whoever gets an answer may answer in turn:
an echo server sends the answer back as a question, and `unknown` is no word either, so two servers
could go on for ever.
Decision: a text ends at its first NUL, blanks around it do not count, and who sent a newline gets
one back. What is byte for byte our own `unknown` is not answered; who asks for that word pads it or
adds a blank. A translation longer than an unproven address may be sent is cut between two
characters and ends with an ellipsis; who wants more of it pads the question to the length of the
answer. Over connections, and where no address can be forged (Unix sockets), nothing is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.limits import DICTIONARY_LINE_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.service.contract import END, Address, Conn, Item, Service

UNKNOWN = b"unknown"
OWN_WORDS = (UNKNOWN, UNKNOWN + b"\n")
"""Datagrams that may be our own answers, come back."""

ELLIPSIS = "…".encode()
BLANKS = b" \t\r\n"


def word_of(text: bytes) -> bytes:
    """What is asked for."""
    return text.partition(b"\0")[0].strip(BLANKS)


def cut(translation: bytes, room: int) -> bytes:
    """As many whole characters as fit room bytes, then an ellipsis."""
    end = room - len(ELLIPSIS)
    while end and translation[end] & 0xC0 == 0x80:
        end -= 1
    return translation[:end] + ELLIPSIS


class Dictionary(Service):
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.unvalidated_reply_bytes_max = UNVALIDATED_REPLY_BYTES_MAX

    def answer_up_to(self, unvalidated_reply_bytes_max: int) -> None:
        """Cut what is longer than this and than its question."""
        self.unvalidated_reply_bytes_max = unvalidated_reply_bytes_max

    def replace(self, entries: dict[bytes, bytes]) -> None:
        """Answer from other entries from now on."""
        self.entries = entries

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes] | None:
        text = bytes(view)
        if text in OWN_WORDS:
            return None
        translation = self.entries.get(word_of(text), UNKNOWN)
        newline = b"\n" if text.partition(b"\0")[0].endswith(b"\n") else b""
        room = max(len(text), self.unvalidated_reply_bytes_max) - len(newline)
        return (translation if len(translation) <= room else cut(translation, room), newline)

    def open(self, conn: Conn) -> Sequence[Item]:
        conn.state = b""  # what came of a line that has not ended
        return ()

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        *lines, conn.state = (conn.state + bytes(view)).split(b"\n")
        entries = self.entries
        answers: list[Item] = []
        for line in lines:
            answers += (entries.get(word_of(line), UNKNOWN), b"\n")
        if len(conn.state) > DICTIONARY_LINE_BYTES_MAX:
            answers += (UNKNOWN, b"\n", END)
        return answers

    def eof(self, conn: Conn) -> Sequence[Item]:
        if not conn.state:
            return (END,)
        return (self.entries.get(word_of(conn.state), UNKNOWN), b"\n", END)


def create() -> Service:
    return Dictionary()
