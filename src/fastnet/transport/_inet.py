"""Bound IPv4 and IPv6 sockets: what TCP and UDP listeners have in common.

Facts. An IPv6 socket bound to :: accepts IPv4 peers too unless IPV6_V6ONLY is set (ipv6(7)).
SO_REUSEPORT counts when a socket is bound and, for TCP, again when it listens.
Decision: no host is the wildcard address of both families, through one dual-stack socket where the
host has IPv6. Where several loops share a port, the first one sets SO_REUSEPORT after bind: so bind
fails if another server has the port, even one that shares it too.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import replace

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.transport.contract import Listener, SocketOptions
from fastnet.transport.resolve import bind_address

HINTS = {
    errno.EADDRINUSE: "Another program has it (`ss -lntup 'sport = :{port}'` shows which); "
    "stop that one, or take another port (0 is any free one)",
    errno.EACCES: "Ports below 1024 need root or CAP_NET_BIND_SERVICE; "
    "try a higher port, such as 8080",
    errno.EADDRNOTAVAIL: "No interface of this host has that address; "
    "`ip address` lists those that do",
    errno.EAFNOSUPPORT: "This host has no support for that address family",
    errno.ENODEV: "A link-local address needs its interface: fe80::1%eth0",
    errno.EINVAL: "A link-local address needs its interface: fe80::1%eth0",
}


def bound_socket(
    kind: socket.SocketKind,
    endpoint: Endpoint,
    options: SocketOptions,
    set_options: Callable[[socket.socket, SocketOptions], None],
) -> Listener:
    """Bind a socket to the first address of the host; a stream socket listens.

    Args:
        kind: SOCK_STREAM or SOCK_DGRAM.
        set_options: Sets the options of the transport before bind.
    Raises:
        NetworkError: The address cannot be bound.
        ConfigError: The kernel refuses an option.
    """
    family, address = bind_address(endpoint)
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise cannot_listen(endpoint, error) from error
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(endpoint.host)))
        set_options(sock, replace(options, reuse_port=options.reuse_port and not options.claim))
        try:
            sock.bind(address)
            if options.claim:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.SOCK_STREAM:
                sock.listen(options.backlog)
        except OSError as error:
            raise cannot_listen(endpoint, error) from error
    except BaseException:
        sock.close()
        raise
    host, port = sock.getsockname()[:2]
    return Listener(sock, Endpoint(endpoint.transport, host, port))


def cannot_listen(endpoint: Endpoint, error: OSError) -> NetworkError:
    hint = HINTS.get(error.errno or 0, "").format(port=endpoint.port)
    return NetworkError(f"cannot listen on {endpoint}: {reason(error)}", hint, error.errno)
