"""Resolver: endpoints to socket addresses, for connecting and for binding.

Facts. getaddrinfo(3) has no timeout. A name may have several addresses, sorted by preference
(RFC 6724). An abstract Unix address starts with a NUL byte (unix(7)).
Decision: numeric hosts are parsed in the calling thread; a name is looked up in a daemon thread
that is abandoned at the timeout.
Cost: one thread for each name that is not an address.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
from typing import NamedTuple

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError
from fastnet.limits import CONNECT_TIMEOUT_S

KINDS = {
    "tcp": socket.SOCK_STREAM,
    "unix": socket.SOCK_STREAM,
    "udp": socket.SOCK_DGRAM,
    "unixgram": socket.SOCK_DGRAM,
}
"""Socket type by transport."""

InetName = tuple[str, int] | tuple[str, int, int, int]


class Address(NamedTuple):
    """A socket address, as socket(2) and connect(2) need it."""

    family: int
    kind: int
    """Socket type: SOCK_STREAM or SOCK_DGRAM."""
    protocol: int
    name: InetName | bytes
    """Host and port, with IPv6 also flow and scope; of a Unix socket its path."""

    def __str__(self) -> str:
        return os.fsdecode(self.name) if isinstance(self.name, bytes) else self.name[0]


def unix_address(path: str) -> bytes:
    """The sun_path of a path; `@NAME` is the abstract address NAME."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else os.fsencode(path)


def look_up(host: str, port: int, kind: int, flags: int = 0) -> list[Address]:
    """getaddrinfo(3): the addresses of a host, best first, each once.

    Args:
        host: Name or address; "" is the loopback, or with AI_PASSIVE the wildcard address.
        kind: Socket type.
    Raises:
        socket.gaierror: The lookup failed.
        ValueError: The name cannot be encoded, or contains a NUL byte.
    """
    if "\0" in host:
        raise ValueError("NUL in a host name")
    # An address as bytes: for text, Python loads the codec of international names, which checks
    # the labels of a name and which an address does not need.
    as_bytes = flags & socket.AI_NUMERICHOST and host.isascii()
    name = (host.encode() if as_bytes else host) or None
    found = socket.getaddrinfo(name, port, type=kind, flags=flags)
    return list(
        dict.fromkeys(
            Address(family, kind, protocol, address)  # type: ignore[arg-type]
            for family, _, protocol, _, address in found
        )
    )


def bind_address(endpoint: Endpoint) -> tuple[int, InetName]:
    """Family and address to bind; no host is the wildcard address. Raises NetworkError."""
    if not endpoint.host:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", endpoint.port)
        return socket.AF_INET, ("0.0.0.0", endpoint.port)
    try:
        found = look_up(endpoint.host, endpoint.port, socket.SOCK_STREAM, socket.AI_PASSIVE)
    except (socket.gaierror, ValueError) as error:
        why = (
            error.strerror.lower()
            if isinstance(error, socket.gaierror) and error.strerror
            else "not a host name"
        )
        hint = "Use an address of this host, such as 127.0.0.1, ::1 or 0.0.0.0"
        raise NetworkError(f"cannot listen on {endpoint}: {why}", hint) from error
    name = found[0].name
    assert not isinstance(name, bytes)
    return found[0].family, name


def resolve(endpoint: Endpoint, *, timeout_s: float = CONNECT_TIMEOUT_S) -> list[Address]:
    """All addresses to connect to, best first; no host is the loopback, a path is one address.

    Raises:
        NetworkError: The name has no address, or the lookup timed out.
        ConfigError: The host cannot be a name, or the port is 0.
    """
    kind = KINDS[endpoint.transport]
    if endpoint.is_local:
        return [Address(socket.AF_UNIX, kind, 0, unix_address(endpoint.path))]
    if endpoint.port == 0:
        raise ConfigError(
            f"cannot connect to {endpoint}: no server has port 0",
            "Give the port the server printed",
        )
    try:
        try:
            return look_up(endpoint.host, endpoint.port, kind, socket.AI_NUMERICHOST)
        except socket.gaierror:
            return look_up_name(endpoint, kind, timeout_s)
    except socket.gaierror as error:
        raise unknown_name(endpoint, error) from error
    # a name that the idna codec cannot encode, or that getaddrinfo(3) would truncate
    except ValueError as error:
        raise ConfigError(
            f"{endpoint.host!r} cannot be a host name", "A label has 1 to 63 characters"
        ) from error


def look_up_name(endpoint: Endpoint, kind: int, timeout_s: float) -> list[Address]:
    """`look_up` with a timeout, in a thread. Raises NetworkError after timeout_s."""
    answer: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answer.put(look_up(endpoint.host, endpoint.port, kind))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=work, name="fastnet-resolve", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty:
        raise NetworkError(
            f"cannot connect to {endpoint}: the name lookup took longer than {timeout_s:g} s",
            "Check the name servers of this host (/etc/resolv.conf), or use an address",
            errno.ETIMEDOUT,
        ) from None
    if isinstance(found, Exception):
        raise found
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
