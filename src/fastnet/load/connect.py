"""Open many connections, a bounded number at a time.

Facts. A non-blocking connect(2) over TCP says EINPROGRESS and the socket becomes writable when it
is decided. Over a unix socket it is decided at once, except that a full backlog says EAGAIN and
nothing will tell when to try again. A TCP connect to a free port of the local ephemeral range can
meet itself (simultaneous open, RFC 9293, 3.5): it would be the perfect echo server.
Decision: both twins dial with this code. It runs before the window opens, so its speed is not what
is measured.
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
from fastnet.load.contract import DIALS_MAX
from fastnet.transport import TRANSPORTS
from fastnet.transport.resolve import look_up, unix_address

RETRY_S = 0.002
"""Rest before a full unix backlog is tried again."""

Address = tuple[socket.AddressFamily, bytes | tuple[object, ...]]


@dataclass
class Dialled:
    """connections: open, non-blocking. refused: how many could not be opened; first_refusal: why
    the first one.
    """

    connections: list[socket.socket] = field(default_factory=list)
    refused: int = 0
    first_refusal: OSError | None = None

    def refuse(self, error: OSError) -> None:
        self.refused += 1
        self.first_refusal = self.first_refusal or error


def dial(endpoint: Endpoint, connections: int, timeout_s: float) -> Dialled:
    """Open `connections` to the first address of the endpoint that answers, each within timeout_s.

    Raises NetworkError when the name is unknown or not even one connection could be opened.
    """
    refusal: OSError | None = None
    kind = socket.SOCK_DGRAM if TRANSPORTS[endpoint.transport].datagrams else socket.SOCK_STREAM
    for family, address in addresses(endpoint, kind):
        first = dial_address(kind, family, address, 1, timeout_s)
        if first.connections:
            rest = dial_address(kind, family, address, connections - 1, timeout_s)
            return Dialled(first.connections + rest.connections, rest.refused, rest.first_refusal)
        refusal = refusal or first.first_refusal
    assert refusal is not None, "an endpoint has at least one address"
    raise NetworkError(
        f"cannot connect to {endpoint}: {reason(refusal)}",
        "Is a server listening there?",
        refusal.errno,
    ) from refusal


def addresses(endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[Address]:
    if endpoint.is_local:
        return [(socket.AF_UNIX, unix_address(endpoint.path))]
    try:
        found = look_up(endpoint.host, endpoint.port, kind)
    except socket.gaierror as error:
        raise NetworkError(
            f"cannot resolve {endpoint}: {error.strerror}", "Check the host name"
        ) from error
    return [(socket.AddressFamily(each.family), each.name) for each in found]


def dial_address(
    kind: socket.SocketKind,
    family: socket.AddressFamily,
    address: bytes | tuple[object, ...],
    count: int,
    timeout_s: float,
) -> Dialled:
    """Open `count` connections to one address."""
    done = Dialled()
    deciding: dict[int, tuple[socket.socket, float]] = {}
    try:
        with select.epoll() as poll:
            while (left := count - len(done.connections) - done.refused) > 0:
                begin(
                    kind,
                    family,
                    address,
                    min(left, DIALS_MAX) - len(deciding),
                    deciding,
                    done,
                    poll,
                    timeout_s,
                )
                for decided, error in outcomes(deciding, poll):
                    poll.unregister(decided)
                    settle(deciding.pop(decided.fileno())[0], error, done)
    except BaseException:
        for open_socket in [*done.connections, *(dialling for dialling, _ in deciding.values())]:
            open_socket.close()
        raise
    return done


def begin(
    kind: socket.SocketKind,
    family: socket.AddressFamily,
    address: bytes | tuple[object, ...],
    count: int,
    deciding: dict[int, tuple[socket.socket, float]],
    done: Dialled,
    poll: select.epoll,
    timeout_s: float,
) -> None:
    """Start up to `count` connects; what is decided at once goes to `done`."""
    full_until = time.monotonic() + timeout_s
    while count > 0:
        try:
            dialling = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        except OSError as error:
            done.refuse(error)
            count -= 1
            continue
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            dialling.bind("")  # an abstract name, or nobody could answer
        status = dialling.connect_ex(address)
        while status == errno.EAGAIN and family == socket.AF_UNIX and time.monotonic() < full_until:
            time.sleep(RETRY_S)
            status = dialling.connect_ex(address)
        if status == errno.EINPROGRESS:
            deciding[dialling.fileno()] = dialling, time.monotonic() + timeout_s
            poll.register(dialling, select.EPOLLOUT)
        else:
            settle(dialling, status, done)
        count -= 1


def outcomes(
    deciding: dict[int, tuple[socket.socket, float]], poll: select.epoll
) -> Iterator[tuple[socket.socket, int]]:
    """Wait until at least one connect is decided or late; yields each with its error number, 0 for
    none.
    """
    if not deciding:
        return
    earliest = min(deadline for _, deadline in deciding.values())
    for descriptor, _ in poll.poll(max(earliest - time.monotonic(), 0)):
        dialling = deciding[descriptor][0]
        yield dialling, dialling.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    now = time.monotonic()
    for dialling, deadline in list(deciding.values()):
        if deadline <= now:
            yield dialling, errno.ETIMEDOUT


def settle(dialling: socket.socket, error: int, done: Dialled) -> None:
    """Keep a socket whose connect was decided, or close it and count why."""
    if not error and dialling.family != socket.AF_UNIX and dialling.type == socket.SOCK_STREAM:
        try:
            dialling.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if dialling.getsockname() == dialling.getpeername():
                error = errno.ECONNREFUSED
        except OSError as late:
            error = late.errno or errno.ECONNRESET
    if not error:
        done.connections.append(dialling)
        return
    dialling.close()
    done.refuse(OSError(error, os.strerror(error)))
