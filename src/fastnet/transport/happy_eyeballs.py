"""Happy Eyeballs (RFC 8305): staggered TCP connection attempts to all addresses of a name.

Facts. A name often has several addresses, and any of them may be unreachable: an IPv6 address
without a route, a server bound to 127.0.0.1 only. connect(2) to a black hole fails after two
minutes. Addresses tried one after the other would let the first black hole use up the timeout.
Decision: attempts start CONNECT_STAGGER_S apart (RFC 8305, section 5), the next one immediately
after a refusal; the first socket that connects is used.
Not taken: interleaving the families (RFC 8305, section 4); getaddrinfo(3) sorts by RFC 6724.
Cost: servers see the other attempts open and close.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from time import monotonic

from fastnet.endpoint import Endpoint
from fastnet.limits import CONNECT_STAGGER_S
from fastnet.transport.connect_errors import Failure, cannot_connect
from fastnet.transport.resolve import Address


class HappyEyeballs:
    """Connection attempts to the addresses of one endpoint, until the first succeeds."""

    def __init__(
        self, endpoint: Endpoint, addresses: Sequence[Address], deadline: float, timeout_s: float
    ) -> None:
        self.endpoint = endpoint
        self.waiting = deque(addresses)
        self.running: dict[int, tuple[socket.socket, Address]] = {}
        self.failures: list[Failure] = []
        self.poll = select.poll()
        self.deadline = deadline
        self.timeout_s = timeout_s

    def run(self) -> socket.socket:
        """The first socket that connected, blocking; every other one is closed."""
        try:
            winner = self.first_connected()
        finally:
            for sock, _ in self.running.values():
                sock.close()
        winner.setblocking(True)
        return winner

    def first_connected(self) -> socket.socket:
        next_start = monotonic()
        while self.waiting or self.running:
            now = monotonic()
            if now >= self.deadline:
                late = [Failure(address, timed_out_error()) for _, address in self.running.values()]
                raise cannot_connect(self.endpoint, [*self.failures, *late], self.timeout_s)
            if self.waiting and (now >= next_start or not self.running):
                self.start_attempt(self.waiting.popleft())
                next_start = now + CONNECT_STAGGER_S
                continue
            until = min(self.deadline, next_start) if self.waiting else self.deadline
            for fd, _ in self.poll.poll((until - now) * 1000):
                winner = self.on_writable(fd)
                if winner is not None:
                    return winner
        raise cannot_connect(self.endpoint, self.failures, self.timeout_s)

    def start_attempt(self, address: Address) -> None:
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
        except OSError as error:
            self.failures.append(Failure(address, error))
            return
        sock.setblocking(False)
        code = sock.connect_ex(address.name)
        if code in (0, errno.EINPROGRESS):
            self.running[sock.fileno()] = sock, address
            self.poll.register(sock, select.POLLOUT)
        else:
            sock.close()
            self.failures.append(Failure(address, OSError(code, os.strerror(code))))

    def on_writable(self, fd: int) -> socket.socket | None:
        """The socket if its attempt succeeded; otherwise record the failure."""
        sock, address = self.running.pop(fd)
        self.poll.unregister(fd)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and connected_to_itself(sock):
            code = errno.ECONNREFUSED
        if code == 0:
            return sock
        sock.close()
        self.failures.append(Failure(address, OSError(code, os.strerror(code))))
        return None


def timed_out_error() -> OSError:
    return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def connected_to_itself(sock: socket.socket) -> bool:
    """Whether the kernel chose the destination as the local port (simultaneous open).

    That can happen with an ephemeral port of this host on which no server listens (RFC 9293, 3.5).
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False
