"""Transport contract: a module with one function, `listen`, which returns a Listener.

T1. `listen` returns a bound, listening, non-blocking socket, close-on-exec, with the options set on
    it. Linux copies every option of SocketOptions to accepted sockets, so engines make no system
    call for them.
T2. It raises NetworkError, with the cause and a hint, when the address cannot be bound.
T3. `Listener.endpoint` is the endpoint as bound: the port the kernel picked, not the 0 that was
    requested.
T4. `Listener.release` removes what closing the socket leaves behind.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Protocol

from fastnet.endpoint import Endpoint
from fastnet.limits import BACKLOG


@dataclass(frozen=True)
class SocketOptions:
    """Options of a listener and, through it, of its connections; None is the kernel's default."""

    backlog: int = BACKLOG
    """Connections that the kernel queues until they are accepted (listen(2))."""
    reuse_port: bool = False
    """SO_REUSEPORT: the port may be bound several times."""
    claim: bool = False
    """The port must be free now, though it is shared from then on: for the first of several
    loops of one server.
    """
    nodelay: bool = True
    """TCP_NODELAY."""
    keepalive: bool = False
    """SO_KEEPALIVE."""
    rcvbuf: int | None = None
    """SO_RCVBUF, in bytes."""
    sndbuf: int | None = None
    """SO_SNDBUF, in bytes."""
    ttl: int | None = None
    """IP_TTL or IPV6_UNICAST_HOPS."""
    congestion: str | None = None
    """TCP_CONGESTION: the name of an algorithm."""


@dataclass(frozen=True)
class Listener:
    """A bound socket. Closing it as a context, or with `close`, releases it first."""

    sock: socket.socket
    endpoint: Endpoint
    """Where it is bound."""
    identity: tuple[int, int] | None = None
    """Device and inode of the socket file of a Unix path."""

    def release(self) -> None:
        """Remove the socket file if it is still the one that was bound."""
        if self.identity is None:
            return
        try:
            found = os.lstat(self.endpoint.path)
            if (found.st_dev, found.st_ino) == self.identity:
                os.unlink(self.endpoint.path)
        except OSError:
            return

    def close(self) -> None:
        """Release it and close the socket."""
        self.release()
        self.sock.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Transport(Protocol):
    """The module of one row."""

    def listen(self, endpoint: Endpoint, options: SocketOptions) -> Listener: ...
