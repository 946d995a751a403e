"""What a transport is: how a listening socket is made and how it is named afterwards.

T1. `listen` returns a bound, listening, non-blocking socket, close-on-exec, with the options set on
    it. Linux hands every option of SocketOptions down to accepted sockets, so engines make no
    system call for them.
T2. It raises NetworkError, with the cause and a hint, when the address cannot be had.
T3. `name` is the endpoint as bound: the port the kernel picked, not the 0 that was asked for.
T4. `release` removes what closing the socket leaves behind.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

from fastnet.endpoint import Endpoint
from fastnet.limits import BACKLOG


@dataclass(frozen=True)
class SocketOptions:
    """Options of a listener and, through it, of its connections. Bytes and counts as named; None:
    the
    kernel's default.

    claim: the port must be free, though it will be shared from then on; for the first of several
    loops of one server.
    """

    backlog: int = BACKLOG
    reuse_port: bool = False
    claim: bool = False
    nodelay: bool = True
    keepalive: bool = False
    rcvbuf: int | None = None
    sndbuf: int | None = None
    ttl: int | None = None
    congestion: str | None = None


class Transport(Protocol):
    """The module of one row."""

    def listen(self, endpoint: Endpoint, options: SocketOptions) -> socket.socket: ...

    def name(self, listener: socket.socket, endpoint: Endpoint) -> Endpoint: ...

    def release(self, listener: socket.socket, endpoint: Endpoint) -> None: ...
