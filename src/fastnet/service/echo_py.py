"""Echo (RFC 862): every byte is sent back; after the peer's FIN the rest, then our FIN.

A suffix is appended to each reply, like the textbook server's "[server echo]". TCP has no messages:
a reply answers one read, so only a peer that waits for each reply before it sends again sees one
suffix a message.
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
