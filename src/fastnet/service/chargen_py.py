"""Character generator (RFC 864): lines of 72 printable characters, each line starting one character
later, without end.

Facts. The pattern repeats after 95 lines, as there are 95 printable ASCII characters: 95 lines of
74 bytes are 7030.
Consequence: a block of whole repetitions joins onto itself, so every block is the same constant.
Decision: a block of about one READ_BYTES is made once and sent for ever; input is dropped. A
half-close does not end the stream, for the RFC wants it to go on until the user closes the
connection. A datagram is answered with one of as many characters as it had, at least a line and at
most the 512 the RFC allows: a request with a forged sender is not worth sending.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.limits import READ_BYTES
from fastnet.service.contract import Address, Conn, Item, Service

LINE_CHARACTERS = 72
DATAGRAM_LEAST = LINE_CHARACTERS + 2
DATAGRAM_MOST = 512
"""Bytes of an answer to a datagram."""

PRINTABLE = bytes(range(0x20, 0x7F))


def pattern() -> bytes:
    """One repetition: each of the 95 rotations once, CRLF after each."""
    ring = PRINTABLE * 2
    return b"".join(ring[i : i + LINE_CHARACTERS] + b"\r\n" for i in range(len(PRINTABLE)))


def block() -> bytes:
    """As many whole repetitions as fit READ_BYTES."""
    once = pattern()
    return once * (READ_BYTES // len(once))


class Chargen(Service):
    reads = False
    speaks = True
    stable = True

    def __init__(self) -> None:
        self.block = block()

    def sent(self, conn: Conn) -> Sequence[Item]:
        return (self.block,)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview]:
        return (self.block[: max(DATAGRAM_LEAST, min(len(view), DATAGRAM_MOST))],)

    def eof(self, conn: Conn) -> Sequence[Item]:
        return ()


def create() -> Service:
    return Chargen()
