"""The library's blocking functions serve and connect; apps.transfer has send and receive.

Decision: an option is a typed keyword (PEP 692), so that help(), an editor and a type checker
show and check it; what they let through is checked again when the function is called.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

from fastnet.config.fields import options as config_options
from fastnet.config.serve_options import ServeOptions
from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.limits import CONNECT_TIMEOUT_S
from fastnet.server.plan import make_plan
from fastnet.server.server import Server
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial
from fastnet.transport.options import set_buffers, set_tcp, set_udp

Handler = Callable[[memoryview, Any], bytes | None]
"""Answers one datagram: called with its bytes and its sender's address, returns the reply or None.

The address is what recvfrom of Python's socket module gives: a tuple, or the name of a Unix socket.
"""


class ConnectOptions(TypedDict, total=False):
    """Keyword options of :func:`fastnet.connect`, set on the connected socket."""

    nodelay: bool
    """Send small segments without waiting for an acknowledgement (TCP_NODELAY). Default: True."""

    keepalive: bool
    """Probe an idle peer (SO_KEEPALIVE). Default: False."""

    rcvbuf: int
    """Receive buffer in bytes (SO_RCVBUF). The window scale of TCP is fixed before it is set."""

    sndbuf: int
    """Send buffer in bytes (SO_SNDBUF)."""

    ttl: int
    """Time to live, or hop limit of IPv6, of packets: 1 to 255."""

    congestion: str
    """TCP congestion control algorithm by name (TCP_CONGESTION)."""


def serve(
    service: str | Handler,
    endpoint: str | Endpoint = "tcp://127.0.0.1:0",
    **options: Unpack[ServeOptions],
) -> Server:
    """Serve in background threads and return the running server.

    Leaving the server's context stops accepting, drains the connections and closes them.

    Args:
        service: "echo", "discard", "chargen", "daytime" or, with ``file="dict.txt"``,
            "dictionary". Or, for datagrams, a function of (data: memoryview, address) that returns
            the reply as bytes, or None for no reply. It runs in the loop's thread (with several
            pure-Python workers: in their processes), so one that blocks delays every client. An
            exception that it raises is counted (``handler_errors``) and logged once a second.
        endpoint: Where to listen: ``tcp://HOST:PORT`` or ``udp://HOST:PORT`` (port 0 picks one, no
            host is every address), ``unix:PATH``, or ``unixgram:PATH`` for datagrams.
        options: See :class:`fastnet.ServeOptions`; durations are in seconds, sizes in bytes.

    Returns:
        The server: ``server.endpoint`` is where it listens, ``server.statistics()`` its counters.

    Raises:
        ConfigError: An option is unknown or invalid, or two of them exclude each other.
        NetworkError: The address is in use, does not exist or is not permitted.
        UnsupportedError: The engine or the backend asked for is absent on this host.

    Example:
        >>> with fastnet.serve("echo", "tcp://127.0.0.1:0", engine="epoll") as server:
        ...     print(server.endpoint)
        tcp://127.0.0.1:43210

    See also: docs/datagrams.md for handlers; RFC 862, 863, 864 and 867 for the services.
    """
    where = _endpoint(endpoint)
    place: dict[str, Any] = (
        {"unix": where.path} if where.is_local else {"host": where.host, "port": where.port}
    )
    place["udp"] = TRANSPORTS[where.transport].datagrams
    _check_names("serve", options, (each.name for each in config_options(ServerConfig)))
    what: dict[str, Any] = (
        {"service": service}
        if isinstance(service, str)
        else {"service": "handler", "handler": service}
    )
    given = next((name for name in place | what if name in options), "")
    if given:
        raise ConfigError(f"serve() has {given} twice", "The service and the endpoint set it")
    return Server(make_plan(ServerConfig.from_values(**what, **place, **options))).start()


def connect(
    endpoint: str | Endpoint,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **options: Unpack[ConnectOptions],
) -> socket.socket:
    """Connect to a server and return the socket.

    The addresses of a name are tried as Happy Eyeballs version 2 does (RFC 8305): the next one
    starts when the one before is refused or has not answered for a quarter of a second, and the
    first connection made is kept.

    Args:
        endpoint: ``tcp://HOST:PORT``, ``udp://HOST:PORT``, ``unix:PATH`` or ``unixgram:PATH``.
        timeout_s: Seconds for the name look-up and all addresses together.
        options: See :class:`fastnet.ConnectOptions`.

    Returns:
        A connected :class:`socket.socket` in blocking mode, without a time-out. A UDP socket is
        connected too, so that a refusal (ICMP port unreachable) is raised by send or recv.

    Raises:
        NetworkError: Refused, timed out, unreachable, or the name has no address.
        ConfigError: The endpoint or an option is invalid.

    Example:
        >>> with fastnet.connect("tcp://localhost:7", timeout_s=2.0) as sock:
        ...     sock.sendall(b"hello")

    See also: connect(2), socket(7), tcp(7); `fastnet connect` is the same on the command line.
    """
    where = _endpoint(endpoint)
    _check_names("connect", options, ConnectOptions.__annotations__)
    chosen = ServerConfig(**options).socket_options
    sock = dial(where, timeout_s=timeout_s)
    try:
        if where.is_local:
            set_buffers(sock, chosen)
        elif sock.type == socket.SOCK_DGRAM:
            set_udp(sock, chosen)
        else:
            set_tcp(sock, chosen)
    except BaseException:
        sock.close()
        raise
    return sock


def _endpoint(given: str | Endpoint) -> Endpoint:
    return given if isinstance(given, Endpoint) else Endpoint.parse(given)


def _check_names(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}"
            raise ConfigError(f"{function}() has no option {name!r}", hint)
