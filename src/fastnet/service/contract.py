"""What a service is: the answer to "what is done with the bytes?".

A service never touches a socket. It is told what happened on a connection and answers with items,
in order: bytes to send, or END, after which nothing follows and the stream is half-closed.

 S1. `open` is called once, before anything was read.
 S2. `data` is called with bytes in the order they came; the chunks mean nothing. The view is valid
     only during the call, but items that refer to it may be returned.
 S3. With `reads` false, input is dropped and counted, and `data` is never called.
 S4. With `speaks` true, `sent` is called each time everything ordered so far is out, until END.
 S5. `eof` is called once when the peer half-closes. The default answers END: everything received
     before is already answered, so the peer gets all of it, then our FIN. With `speaks` false END
     follows whatever it answers.
 S6. `close` is called once when the connection is over, however it ended.
 S7. `conn.state` belongs to the service; the rest of `conn` to the engine.
 S8. One service object serves all connections of a loop, and with several loops several threads.
 S9. With `stable` true every item outlives the connection, so what a slow reader parks of it costs
     nothing and is not counted.
S10. `datagram` is called with each datagram, by itself, and its peer's address as recvfrom(2) gives
     it. The pieces it returns go back as one datagram, None as none. If it raises HandlerFailed,
     somebody else's code failed: counted, not answered.

The native form of the same is a struct fn_service (csrc/fn_service.h).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class End(enum.Enum):
    """The last item of a stream."""

    END = "end"


END = End.END

Item = bytes | bytearray | memoryview | End


Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes | None
"""Of a peer: host and port, and with IPv6 flow and scope; of a Unix socket its path, its abstract
name
with the NUL at its front, or None if it has bound neither, and then nothing can go back."""


class Content(NamedTuple):
    """What a service answers from, read from a file."""

    value: Any
    """The argument of the service's `replace`."""
    notes: list[tuple[int, str]]
    """Lines for the log: level and text."""


class HandlerFailed(Exception):
    """A handler raised, or returned what is no reply; it has been logged."""


class Conn(Protocol):
    """What a service may know about a connection."""

    state: Any


class Service:
    """Base with the defaults; a service overrides what it cares about."""

    reads = True
    speaks = False
    stable = False

    def open(self, conn: Conn) -> Sequence[Item]:
        """The connection was made."""
        return ()

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        """Bytes arrived."""
        return ()

    def sent(self, conn: Conn) -> Sequence[Item]:
        """All that was ordered is out."""
        return ()

    def eof(self, conn: Conn) -> Sequence[Item]:
        """The peer half-closed."""
        return (END,)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview] | None:
        """A datagram arrived."""
        return None

    def close(self, conn: Conn) -> None:
        """The connection is over."""
