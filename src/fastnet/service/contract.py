"""Contract of a service: bytes in, items out; it never touches a socket.

A service is called for each event of a connection and returns items, in order: bytes to send, or
END, after which nothing follows and the stream is half-closed.

 S1. `open` is called once, before anything was read.
 S2. `data` is called with bytes in the order they were received; chunk boundaries mean nothing. The
     view is valid only during the call, but items that refer to it may be returned.
 S3. With `accepts_input` false, input is discarded and counted, and `data` is never called.
 S4. With `produces_output` true, `sent` is called each time all output so far has been sent, until
     END.
 S5. `eof` is called once when the peer half-closes. The default returns END: everything received
     before is already answered, so the peer gets all of it, then our FIN. With `produces_output`
     false END follows whatever it returns.
 S6. `close` is called once when the connection is closed, for whatever reason.
 S7. `conn.state` belongs to the service; the rest of `conn` to the engine.
 S8. One service object serves all connections of a loop, and with several loops several threads.
 S9. With `static_output` true every item outlives the connection, so what is buffered of it for a
     slow reader costs nothing and is not counted.
S10. `datagram` is called with each datagram, by itself, and its peer's address as recvfrom(2) of
     Python returns it. The pieces it returns are sent as one datagram; None sends none. If it
     raises HandlerFailed, the user's handler has failed: counted, not answered.

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
"""Of a peer: host and port, with IPv6 also flow and scope; of a Unix socket its path, its abstract
name with a leading NUL byte, or None if it is not bound, and then no reply can be sent.
"""


class Content(NamedTuple):
    """What a service answers from, read from a file."""

    value: Any
    """The argument of the service's `replace`."""
    notes: list[tuple[int, str]]
    """Lines for the log: level and text."""


class HandlerFailed(Exception):
    """A handler raised, or returned a value that is no reply; it has been logged."""


class Conn(Protocol):
    """What a service may use of a connection."""

    state: Any
    """The service's own."""


class Service:
    """Base with the defaults; a service overrides what it needs."""

    accepts_input = True
    """False: input is discarded and `data` never called (S3)."""

    produces_output = False
    """True: `sent` is called until END (S4)."""

    static_output = False
    """True: every item outlives the connection (S9)."""

    def open(self, conn: Conn) -> Sequence[Item]:
        """A connection was made."""
        return ()

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        """Bytes were received."""
        return ()

    def sent(self, conn: Conn) -> Sequence[Item]:
        """All output so far has been sent."""
        return ()

    def eof(self, conn: Conn) -> Sequence[Item]:
        """The peer half-closed."""
        return (END,)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview] | None:
        """A datagram was received."""
        return None

    def close(self, conn: Conn) -> None:
        """The connection is closed."""
