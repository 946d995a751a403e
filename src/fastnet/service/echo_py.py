"""Echo (RFC 862): every byte goes back to its sender, after the peer's half-close the rest too,
then
ours.

A suffix is appended to each reply, as the textbook server's "[server echo]" is. TCP has no
messages: a reply is the answer to one read, so a peer that waits for each answer before it speaks
again sees one suffix a message, and nobody else should count on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.service.contract import Address, Conn, Item, Service


class Echo(Service):
    def __init__(self, suffix: bytes) -> None:
        self.tail = (suffix,) if suffix else ()

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        return (view, *self.tail)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview]:
        return (view, *self.tail)


def create(suffix: bytes = b"") -> Service:
    return Echo(suffix)
