"""Dictionary service: a word in, its translation or `unknown` out.

Each word is one datagram, or over connections one line.

Facts. Textbook clients send padded buffers, `nc` a line. A peer that gets a reply may reply in
turn: an echo server sends it back as a request, and `unknown` is no word either, so two servers
could exchange datagrams without end.
Decision: a text ends at its first NUL, blanks around it do not count, and a request with a newline
gets one back. A datagram that is byte for byte our own `unknown` gets no reply; a client that means
that word pads it or adds a blank. A translation longer than an unvalidated address may be sent is
cut between two characters and ends with an ellipsis; a client that wants more of it pads the
request to the length of the reply. Over connections, and where no address can be forged (Unix
sockets), nothing is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.limits import DICTIONARY_LINE_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.service.contract import END, Address, Conn, Item, Service

UNKNOWN = b"unknown"
OWN_REPLIES = (UNKNOWN, UNKNOWN + b"\n")
"""Datagrams that may be our own replies, sent back."""

ELLIPSIS = "…".encode()
BLANKS = b" \t\r\n"


def word_of(text: bytes) -> bytes:
    """The word in a request."""
    return text.partition(b"\0")[0].strip(BLANKS)


def cut(translation: bytes, room: int) -> bytes:
    """As many whole characters as fit into `room` bytes with an ellipsis after them."""
    end = room - len(ELLIPSIS)
    while end and translation[end] & 0xC0 == 0x80:
        end -= 1
    return translation[:end] + ELLIPSIS


class DictionaryService(Service):
    """Replies from one table of words, which `replace` exchanges whole."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.unvalidated_reply_bytes_max = UNVALIDATED_REPLY_BYTES_MAX

    def answer_up_to(self, unvalidated_reply_bytes_max: int) -> None:
        """Cut replies longer than this and than their request."""
        self.unvalidated_reply_bytes_max = unvalidated_reply_bytes_max

    def replace(self, entries: dict[bytes, bytes]) -> None:
        """Reply from other entries from now on."""
        self.entries = entries

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes] | None:
        text = bytes(view)
        if text in OWN_REPLIES:
            return None
        translation = self.entries.get(word_of(text), UNKNOWN)
        newline = b"\n" if text.partition(b"\0")[0].endswith(b"\n") else b""
        room = max(len(text), self.unvalidated_reply_bytes_max) - len(newline)
        return (translation if len(translation) <= room else cut(translation, room), newline)

    def open(self, conn: Conn) -> Sequence[Item]:
        conn.state = b""  # the beginning of a line that has not ended
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
    return DictionaryService()
