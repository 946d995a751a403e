"""Client side of datagram protocols: address fallback and a retransmission timer.

Facts. A datagram may be lost, so a client retransmits a request that has no reply; a network that
loses datagrams for want of room needs fewer of them, so the timeout doubles with each expiry
(exponential backoff, RFC 6298 section 5). A refusal is an ICMP message, reported as ECONNREFUSED
by a later call on a connected socket (udp(7)). A name may have an address that the server is not
bound to (localhost is ::1 and 127.0.0.1), and only a refusal shows it. A server that restarts
refuses datagrams for a moment.
Decision: a refusal before the first reply moves the client to the next address of the name; without
a next address it is an error. After the first reply a failed call is one lost datagram. Jitter
keeps clients that lost datagrams together from retransmitting together. The timeout is at least
two round trips.
Not taken: the smoothed round-trip time of RFC 6298 section 2; a client sends too few datagrams for
a variance.
"""

from __future__ import annotations

import errno
import random
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.transport.connect import dial_datagram
from fastnet.transport.connect_errors import hint_of
from fastnet.transport.resolve import Address, resolve

DOUBLINGS_MAX = 32
"""Keeps the power of two a finite number."""


class DatagramClient:
    """Connected datagram socket that falls back to the next address of its endpoint.

    Args:
        endpoint: Where the server is.
        addresses: Its addresses, best first; None resolves the endpoint.
    Raises:
        NetworkError: the name has no address.  ConfigError: it cannot be a name.
    """

    def __init__(self, endpoint: Endpoint, addresses: Iterable[Address] | None = None) -> None:
        self.endpoint = endpoint
        self.has_received = False
        """Whether a reply has arrived. Set by the caller, who knows an authentic one."""
        self._addresses = deque(resolve(endpoint) if addresses is None else addresses)
        """The next one to try is first; the connected one is last."""
        self._untried = len(self._addresses)
        self._sock: socket.socket | None = None

    @property
    def address_count(self) -> int:
        """Number of addresses of the endpoint."""
        return len(self._addresses)

    def connect(self) -> None:
        """Open a socket to the next untried address. Raises NetworkError when none is left."""
        self.close()
        candidates = deque(islice(self._addresses, self._untried))
        try:
            self._sock = dial_datagram(self.endpoint, candidates)
        finally:
            self._addresses.rotate(len(candidates) - self._untried)
            self._untried = len(candidates)
        self._sock.setblocking(False)

    def use_next_address(self) -> None:
        """Connect the next call to the next address, after the last one to the first again.

        The only address of an endpoint keeps its socket.
        """
        if self._sock is None or len(self._addresses) > 1:
            self._untried = self._untried or len(self._addresses)
            self.close()

    def renew(self) -> None:
        """Close the socket, so that late replies reach no socket; the address stays the first."""
        if self._sock is not None:
            self.close()
            self._addresses.rotate(1)
        self._untried = len(self._addresses)

    def fileno(self) -> int:
        """The descriptor to poll; changes with the address."""
        return self._connected().fileno()

    def send(self, data: bytes) -> bool:
        """Send a datagram. Returns False when the send buffer is full.

        Raises OSError, also for an earlier datagram.
        """
        try:
            self._connected().send(data)
        except BlockingIOError:
            return False
        return True

    def receive(self, bytes_max: int) -> bytes | None:
        """Receive a datagram, cut to `bytes_max`, or None when there is none. Raises OSError."""
        try:
            return self._connected().recv(bytes_max)
        except BlockingIOError:
            return None

    def wait(self, timeout_s: float) -> bool:
        """Wait until a datagram or an error can be read. Returns False on timeout."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))

    def fall_back(self, error: OSError) -> bool:
        """Connect to the next address if this one refused before the first reply.

        Returns:
            True: connected to the next address; send again.  False: nothing changed.
        """
        if error.errno != errno.ECONNREFUSED or self.has_received or not self._untried:
            return False
        self.connect()
        return True

    def handle_error(self, error: OSError) -> bool:
        """Handle the OSError of a call: fall back, or count it as a lost datagram.

        Returns:
            True: connected to the next address; send again.  False: a datagram was lost.
        Raises:
            NetworkError: it failed before the first reply, and no address is left.
        """
        if self.has_received:
            return False
        if self.fall_back(error):
            return True
        hint = hint_of(self.endpoint, error.errno)
        raise NetworkError(f"{self.endpoint}: {reason(error)}", hint, error.errno) from error

    def close(self) -> None:
        """Close the socket. May be called twice."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connected(self) -> socket.socket:
        if self._sock is None:
            self.connect()
        assert self._sock is not None
        return self._sock


class RetransmissionTimer:
    """Retransmission timeout (RTO) with exponential backoff and jitter (RFC 6298 section 5).

    Args:
        initial_s: The timeout before any expiry.
        max_s: Longest timeout, before jitter.
        jitter: Part of the timeout that is random, to both sides.
        uniform: random.uniform, or a fixed stand-in.
    """

    def __init__(
        self,
        initial_s: float,
        max_s: float = float("inf"),
        jitter: float = 0.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.expiries = 0
        """Timeouts since the last progress."""
        self.round_trip_s = 0.0
        """Last measured round-trip time."""
        self._initial_s = initial_s
        self._max_s = max_s
        self._jitter = jitter
        self._uniform = uniform

    def timeout_s(self) -> float:
        """Seconds to wait for a reply before the next retransmission."""
        doubled_s = self._initial_s * 2.0 ** min(self.expiries, DOUBLINGS_MAX)
        timeout_s = min(max(doubled_s, 2 * self.round_trip_s), self._max_s)
        return timeout_s * self._uniform(1 - self._jitter, 1 + self._jitter)

    def back_off(self) -> None:
        """Count an expiry: the next timeout is twice as long."""
        self.expiries += 1

    def reset(self, expiries: int = 0) -> None:
        """Start again from the initial timeout, or from what it is after `expiries`."""
        self.expiries = expiries
