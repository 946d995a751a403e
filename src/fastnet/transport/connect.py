"""Make a connection: names to addresses, addresses to one connected socket, within one time-out.

Facts. A name often has several addresses and any of them may be dead: an IPv6 address without a
route, a server bound to 127.0.0.1 only. A dead address does not always say so: connect(2) to a
black hole is silent for two minutes. getaddrinfo(3) has no time-out at all. connect(2) on a Unix
socket with a full backlog fails at once with EAGAIN when non-blocking, but waits as long as
SO_SNDTIMEO says when blocking (socket(7)).
Consequence: addresses tried one after the other would let the first black hole use up the time of
all others.
Decision: TCP addresses race with a stagger of CONNECT_STAGGER_S (RFC 8305), a refusal starts the
next one at once; names are looked up in a daemon thread that is abandoned when the time is over.
Cost: a thread for each name that is not an address; the losers of the race are connections the
server sees open and close.
"""

from __future__ import annotations

import errno
import math
import os
import queue
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError, reason
from fastnet.limits import CONNECT_STAGGER_S, CONNECT_TIMEOUT_S, UNIXGRAM_BYTES_MAX

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "unixgram": socket.SOCK_DGRAM}

HINTS = {
    errno.ECONNREFUSED: "Nothing listens there: check host and port, or start the server first",
    errno.ETIMEDOUT: "The host is down, a firewall drops the packets, or it needs a longer --timeout",
    errno.EHOSTUNREACH: "Check the address and the route to it: ip route get ADDRESS",
    errno.ENETUNREACH: "Check the address and the route to it: ip route get ADDRESS",
    errno.EACCES: "A firewall or the address forbids it; a broadcast address cannot be connected to",
    errno.EPERM: "A firewall of this host forbids it",
    errno.EADDRNOTAVAIL: "This host has no address or no free port to connect from",
    errno.EAFNOSUPPORT: "This host does not have that address family; try the other IP version",
    errno.EMFILE: "This process has too many open files: raise ulimit -n",
    errno.ENFILE: "This host has too many open files",
}

UNIX_HINTS = {
    errno.ENOENT: "The server makes the socket file when it starts: check the path, or start the server first",
    errno.ECONNREFUSED: "No server has it open: the file is a left-over, or not a socket; start the server",
    errno.EACCES: "It takes write permission on the socket file and search permission on its folders",
    errno.EPROTOTYPE: "It is a socket of the other kind: unix:PATH is for streams, unixgram:PATH for datagrams",
    errno.EPERM: "That socket takes datagrams of one peer only",
    errno.EMSGSIZE: "A datagram over a Unix socket must fit SO_SNDBUF; net.core.wmem_max bounds it",
    errno.EAGAIN: "The server does not accept: it is stopped or overloaded; try again or give a longer --timeout",
}


class Address(NamedTuple):
    """One answer of getaddrinfo(3), or the name of a Unix socket, ready for socket(2) and
    connect(2).
    """

    family: int
    kind: int
    protocol: int
    name: tuple[str, int] | tuple[str, int, int, int] | bytes

    def __str__(self) -> str:
        return os.fsdecode(self.name) if isinstance(self.name, bytes) else self.name[0]


class Failure(NamedTuple):
    """One address and why it could not be connected to."""

    address: Address
    error: OSError


def dial(endpoint: Endpoint, *, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """Connect to an endpoint and return the socket, in blocking mode and without a time-out of its
    own.

    timeout_s: for everything together: the name look-up and all addresses of the name. A UDP socket
    is connected too, so that an ICMP refusal of a datagram comes back as an error (udp(7)). A Unix
    socket of datagrams has a name of its own, abstract and picked by the kernel (unix(7)), or
    nobody could answer it. Raises NetworkError (refused, timed out, unreachable, no such name or
    socket file, permission denied), or ConfigError for an endpoint that nothing can be connected
    to.
    """
    if endpoint.transport == "unix":
        return dial_unix(endpoint, timeout_s)
    deadline = monotonic() + timeout_s
    addresses = resolve(endpoint, timeout_s=timeout_s)
    if KINDS[endpoint.transport] == socket.SOCK_DGRAM:
        return dial_datagram(endpoint, deque(addresses))
    return Race(endpoint, addresses, deadline, timeout_s).run()


def dial_datagram(endpoint: Endpoint, addresses: deque[Address]) -> socket.socket:
    """Take addresses from the front until one can be connected to.

    That sends nothing, so it proves nothing about the server: what is left in `addresses` can be
    tried when the first datagram is refused. Raises NetworkError when none is left.
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


def unix_name(path: str) -> bytes:
    """A path as the kernel wants it: an abstract name starts with NUL."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else os.fsencode(path)


def dial_unix(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    name = unix_name(endpoint.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(timeout_s))
        sock.connect(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0))
    except OSError as error:
        sock.close()
        why = silence(timeout_s) if error.errno == errno.EAGAIN else reason(error)
        raise NetworkError(
            f"cannot connect to {endpoint}: {why}", hint_of(endpoint, error.errno), error.errno
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def timeval(seconds: float) -> bytes:
    """A struct timeval; the smallest time is one microsecond, because zero means for ever."""
    microseconds = math.ceil(seconds * 1e6)
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


# Names


def resolve(endpoint: Endpoint, *, timeout_s: float = CONNECT_TIMEOUT_S) -> list[Address]:
    """All addresses of an endpoint, best first (RFC 6724). No host means this host's loopback; a
    path
    is its one address.

    Raises NetworkError when the name has no address or nobody answers in time, ConfigError when it
    cannot be a name.
    """
    if endpoint.is_local:
        return [Address(socket.AF_UNIX, KINDS[endpoint.transport], 0, unix_name(endpoint.path))]
    if endpoint.port == 0:
        raise ConfigError(
            f"cannot connect to {endpoint}: no server has port 0",
            "Give the port the server printed",
        )
    kind = KINDS[endpoint.transport]
    try:
        found = look_up(endpoint, kind, timeout_s)
    except socket.gaierror as error:
        raise unknown_name(endpoint, error) from error
    # a name that the idna codec cannot write, or that getaddrinfo(3) would cut short
    except ValueError as error:
        raise ConfigError(
            f"{endpoint.host!r} cannot be a host name", "A label has 1 to 63 characters"
        ) from error
    known = dict.fromkeys(
        Address(family, kind, protocol, name) for family, kind, protocol, _, name in found
    )
    return list(known)


def look_up(endpoint: Endpoint, kind: int, timeout_s: float) -> Sequence[tuple]:  # type: ignore[type-arg]
    """getaddrinfo(3) with a time-out."""
    host, port = endpoint.host or None, endpoint.port
    if host and "\0" in host:
        raise ValueError("NUL in a host name")
    try:
        # As bytes, because for text Python loads the rules of international names, which no address
        # needs.
        address = host.encode() if host and host.isascii() else host
        return socket.getaddrinfo(address, port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name, not an address
    answer: queue.SimpleQueue[object] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=kind))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, name="fastnet-look-up", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty:
        raise NetworkError(
            f"cannot connect to {endpoint}: the name look-up took longer than {timeout_s:g} s",
            "Check the name servers of this host (/etc/resolv.conf), or use an address",
            errno.ETIMEDOUT,
        ) from None
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, list)
    return found


def unknown_name(endpoint: Endpoint, error: socket.gaierror) -> NetworkError:
    if error.errno == socket.EAI_AGAIN:
        why, hint = (
            "no name server answers",
            "Check the network and /etc/resolv.conf, or use an address",
        )
    elif error.errno == socket.EAI_NONAME:
        why, hint = f"no host is called {endpoint.host!r}", "Check the spelling, or use an address"
    else:
        why, hint = str(error.strerror).lower(), "Check the name, or use an address"
    return NetworkError(f"cannot connect to {endpoint}: {why}", hint)


# Addresses


class Race:
    """Connects to several addresses at once, each with a head start over the next; the first to
    answer wins.
    """

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
        """The winner, connected and blocking. Every other socket is closed."""
        try:
            winner = self.first()
        finally:
            for sock, _ in self.running.values():
                sock.close()
        winner.setblocking(True)
        return winner

    def first(self) -> socket.socket:
        next_start = monotonic()
        while self.waiting or self.running:
            now = monotonic()
            if now >= self.deadline:
                late = [Failure(address, self.late()) for _, address in self.running.values()]
                raise cannot_connect(self.endpoint, [*self.failures, *late], self.timeout_s)
            if self.waiting and (now >= next_start or not self.running):
                self.start(self.waiting.popleft())
                next_start = now + CONNECT_STAGGER_S
                continue
            until = min(self.deadline, next_start) if self.waiting else self.deadline
            for fd, _ in self.poll.poll((until - now) * 1000):
                winner = self.settle(fd)
                if winner is not None:
                    return winner
        raise cannot_connect(self.endpoint, self.failures, self.timeout_s)

    def start(self, address: Address) -> None:
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

    def settle(self, fd: int) -> socket.socket | None:
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

    def late(self) -> OSError:
        return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def connected_to_itself(sock: socket.socket) -> bool:
    """A port of the ephemeral range on this host can be picked as our own: TCP then connects the
    socket to itself.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False


def cannot_connect(
    endpoint: Endpoint, failures: Sequence[Failure], timeout_s: float = 0
) -> NetworkError:
    """One sentence for all addresses that failed. The hint is that of the last one, which had the
    most time.
    """
    said = {
        str(address): silence(timeout_s) if timed_out(error) else reason(error)
        for address, error in failures
    }
    if len(set(said.values())) == 1:
        why = next(iter(said.values()))
        if len(said) > 1:
            why = f"{why} (tried {', '.join(said)})"
    else:
        why = ", ".join(f"{address}: {each}" for address, each in said.items())
    code = failures[-1].error.errno if failures else None
    return NetworkError(
        f"cannot connect to {endpoint}: {why or 'no address'}", hint_of(endpoint, code), code
    )


def hint_of(endpoint: Endpoint, code: int | None) -> str:
    return (UNIX_HINTS if endpoint.is_local else HINTS).get(code or 0, "")


def timed_out(error: OSError) -> bool:
    return error.errno == errno.ETIMEDOUT


def silence(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s" if timeout_s else "no answer"
