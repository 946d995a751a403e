"""Character generator (RFC 864): lines of 72 printable characters, without end.

Each line starts one character later than the one before.

Facts. The pattern repeats after 95 lines, as there are 95 printable ASCII characters: 95 lines of
74 bytes are 7030.
Consequence: a block of whole repetitions joins onto itself, so every block is the same constant.
Decision: a block of about one READ_BYTES is made once and sent for ever; input is discarded. A
half-close does not end the stream, for by the RFC it lasts until the user closes the connection. A
datagram is answered with one of the same length, at least a line and at most the 512 characters the
RFC allows, so that a request with a forged source address gains no amplification.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.limits import READ_BYTES
from fastnet.service.contract import Address, Conn, Item, Service

LINE_CHARACTERS = 72
DATAGRAM_BYTES_MIN = LINE_CHARACTERS + 2
DATAGRAM_BYTES_MAX = 512
"""Bounds of the reply to a datagram."""

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
    accepts_input = False
    produces_output = True
    static_output = True

    def __init__(self) -> None:
        self.block = block()

    def sent(self, conn: Conn) -> Sequence[Item]:
        return (self.block,)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview]:
        return (self.block[: max(DATAGRAM_BYTES_MIN, min(len(view), DATAGRAM_BYTES_MAX))],)

    def eof(self, conn: Conn) -> Sequence[Item]:
        return ()


def create() -> Service:
    return Chargen()
