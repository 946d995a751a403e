"""Opens the connections of a load, a bounded number at a time.

Facts. A non-blocking connect(2) over TCP returns EINPROGRESS and the socket becomes writable when
it is decided. Over a Unix socket it is decided immediately, except that a full backlog is EAGAIN
and no event reports when to try again. A TCP connect to a free port of the local ephemeral range
can meet itself (simultaneous open, RFC 9293, 3.5): it would be the perfect echo server.
Decision: both twins connect with this code. It runs before the window opens, so its speed is not
what is measured.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.load.contract import PENDING_CONNECTS_MAX
from fastnet.transport.happy_eyeballs import connected_to_itself
from fastnet.transport.resolve import Address, resolve

RETRY_S = 0.002
"""Interval at which a full Unix backlog is tried again."""


@dataclass
class OpenedConnections:
    """Result of opening the connections of a load."""

    connections: list[socket.socket] = field(default_factory=list)
    """Open and non-blocking; the caller closes them."""

    refused: int = 0
    """Connections that could not be opened."""

    first_refusal: OSError | None = None
    """Why the first of those could not."""

    def refuse(self, error: OSError) -> None:
        self.refused += 1
        self.first_refusal = self.first_refusal or error


def open_connections(endpoint: Endpoint, count: int, timeout_s: float) -> OpenedConnections:
    """Open connections to the first address of the endpoint that accepts one.

    Args:
        endpoint: Where the server listens.
        count: Number of connections.
        timeout_s: For the name look-up and for each connection.
    Returns:
        The open connections, at least one, and the number of refused ones.
    Raises:
        NetworkError: the name is unknown, or no connection could be opened.
    """
    refusal: OSError | None = None
    for address in resolve(endpoint, timeout_s=timeout_s):
        first = Connector(address, timeout_s).open(1)
        if first.connections:
            rest = Connector(address, timeout_s).open(count - 1)
            rest.connections[:0] = first.connections
            return rest
        refusal = refusal or first.first_refusal
    assert refusal is not None, "an endpoint has at least one address"
    raise NetworkError(
        f"cannot connect to {endpoint}: {reason(refusal)}",
        "Is a server listening there?",
        refusal.errno,
    ) from refusal


class Connector:
    """Opens connections to one address, PENDING_CONNECTS_MAX at a time."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.opened = OpenedConnections()
        self.pending: dict[int, tuple[socket.socket, float]] = {}
        """Sockets whose connect is in progress, by descriptor, with their deadlines."""

    def open(self, count: int) -> OpenedConnections:
        """Open `count` connections; returns when each is open or refused."""
        opened = self.opened
        try:
            with select.epoll() as poll:
                while (left := count - len(opened.connections) - opened.refused) > 0:
                    self.start(min(left, PENDING_CONNECTS_MAX) - len(self.pending), poll)
                    for sock, error in self.outcomes(poll):
                        poll.unregister(sock)
                        del self.pending[sock.fileno()]
                        self.finish(sock, error)
        except BaseException:
            for sock in [*opened.connections, *(sock for sock, _ in self.pending.values())]:
                sock.close()
            raise
        return opened

    def start(self, count: int, poll: select.epoll) -> None:
        """Start up to `count` connects; those decided immediately are finished here."""
        backlog_deadline = time.monotonic() + self.timeout_s
        for _ in range(count):
            try:
                sock = socket.socket(self.address.family, self.address.kind | socket.SOCK_NONBLOCK)
            except OSError as error:
                self.opened.refuse(error)
                continue
            status = self.connect(sock, backlog_deadline)
            if status == errno.EINPROGRESS:
                self.pending[sock.fileno()] = sock, time.monotonic() + self.timeout_s
                poll.register(sock, select.EPOLLOUT)
            else:
                self.finish(sock, status)

    def connect(self, sock: socket.socket, backlog_deadline: float) -> int:
        """One connect(2), repeated while a Unix backlog is full. Returns its error number."""
        is_local = sock.family == socket.AF_UNIX
        if is_local and sock.type == socket.SOCK_DGRAM:
            sock.bind("")  # an abstract name: without one it could not be answered
        status = sock.connect_ex(self.address.name)
        while status == errno.EAGAIN and is_local and time.monotonic() < backlog_deadline:
            time.sleep(RETRY_S)
            status = sock.connect_ex(self.address.name)
        return status

    def outcomes(self, poll: select.epoll) -> Iterator[tuple[socket.socket, int]]:
        """Wait for at least one connect to be decided or to time out.

        Yields each with its error number, 0 for none.
        """
        if not self.pending:
            return
        earliest = min(deadline for _, deadline in self.pending.values())
        for descriptor, _ in poll.poll(max(earliest - time.monotonic(), 0)):
            sock = self.pending[descriptor][0]
            yield sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        now = time.monotonic()
        for sock, deadline in list(self.pending.values()):
            if deadline <= now:
                yield sock, errno.ETIMEDOUT

    def finish(self, sock: socket.socket, error: int) -> None:
        """Keep a socket whose connect was decided, or close it and count why."""
        if not error and sock.family != socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as reset:
                error = reset.errno or errno.ECONNRESET
            if not error and connected_to_itself(sock):
                error = errno.ECONNREFUSED
        if not error:
            self.opened.connections.append(sock)
            return
        sock.close()
        self.opened.refuse(OSError(error, os.strerror(error)))
