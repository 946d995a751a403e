"""Client connections: endpoints to connected sockets, within one timeout.

Facts. connect(2) on a Unix socket with a full backlog fails immediately with EAGAIN when
non-blocking, but waits for SO_SNDTIMEO when blocking (socket(7)).
Decision: names are resolved first (resolve.py); TCP addresses are tried with Happy Eyeballs
(happy_eyeballs.py), datagram addresses one after the other, because connecting a datagram socket
sends nothing.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
from collections import deque
from time import monotonic

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import CONNECT_TIMEOUT_S, UNIXGRAM_BYTES_MAX
from fastnet.transport.connect_errors import Failure, cannot_connect, hint_of, no_answer
from fastnet.transport.happy_eyeballs import HappyEyeballs
from fastnet.transport.resolve import KINDS, Address, resolve, unix_address


def dial(endpoint: Endpoint, *, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """Connect to an endpoint; the socket is blocking and has no timeout.

    A UDP socket is connected too, so that an ICMP refusal of a datagram is reported as an error
    (udp(7)). A Unix datagram socket is bound to an abstract address that the kernel picks
    (unix(7)), because a server cannot reply to an unbound one.

    Args:
        timeout_s: Limit for the name lookup and all connection attempts together.
    Raises:
        NetworkError: Refused, timed out, unreachable, no such name or socket file, not permitted.
        ConfigError: No socket can be connected to this endpoint.
    """
    if endpoint.transport == "unix":
        return dial_unix(endpoint, timeout_s)
    deadline = monotonic() + timeout_s
    addresses = resolve(endpoint, timeout_s=timeout_s)
    if KINDS[endpoint.transport] == socket.SOCK_DGRAM:
        return dial_datagram(endpoint, deque(addresses))
    return HappyEyeballs(endpoint, addresses, deadline, timeout_s).run()


def dial_datagram(endpoint: Endpoint, addresses: deque[Address]) -> socket.socket:
    """Remove addresses from the front until a datagram socket connects to one.

    Connecting sends nothing, so it does not show that a server is there: the addresses that are
    left can be tried when the first datagram is refused. Raises NetworkError when none is left.
    """
    failures = []
    while addresses:
        address = addresses.popleft()
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
        except OSError as error:
            failures.append(Failure(address, error))
            continue
        try:
            if address.family == socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIXGRAM_BYTES_MAX)
                sock.bind("")
            sock.connect(address.name)
        except OSError as error:
            sock.close()
            failures.append(Failure(address, error))
            continue
        return sock
    raise cannot_connect(endpoint, failures)


def dial_unix(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    name = unix_address(endpoint.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(timeout_s))
        sock.connect(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0))
    except OSError as error:
        sock.close()
        why = no_answer(timeout_s) if error.errno == errno.EAGAIN else reason(error)
        raise NetworkError(
            f"cannot connect to {endpoint}: {why}", hint_of(endpoint, error.errno), error.errno
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def timeval(seconds: float) -> bytes:
    """A struct timeval; at least one microsecond, because zero disables the timeout."""
    microseconds = math.ceil(seconds * 1e6)
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))
