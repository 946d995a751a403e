"""TCP listeners over IPv4 and IPv6.

Facts. SO_REUSEADDR lets a server bind while connections of the one before are still in TIME_WAIT,
and on Linux never lets two live listeners share a port; SO_REUSEPORT does, and the kernel spreads
connections over them by a hash. An IPv6 socket bound to :: takes IPv4 peers too unless IPV6_V6ONLY
is set (ipv6(7)). Whether SO_REUSEPORT is set counts when a socket is bound and again when it
listens.
Decision: SO_REUSEADDR always, SO_REUSEPORT where several loops share the port. The first loop sets
it after bind, which so fails if anybody is there, even another server with several loops that was
started by mistake. No host means every address of both families, through one dual-stack socket
where the host has IPv6.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.transport.contract import SocketOptions
from fastnet.transport.options import set_tcp

HINTS = {
    errno.EADDRINUSE: "Another program has it (`ss -lntup 'sport = :{port}'` shows which); "
    "stop that one, or take another port (0 is any free one)",
    errno.EACCES: "Ports below 1024 need root or CAP_NET_BIND_SERVICE; take a higher port, such as 8080",
    errno.EADDRNOTAVAIL: "No interface of this host has that address; `ip address` lists those that do",
    errno.EAFNOSUPPORT: "This host has no support for that address family",
    errno.ENODEV: "A link-local address needs its interface: fe80::1%eth0",
    errno.EINVAL: "A link-local address needs its interface: fe80::1%eth0",
}


def listen(endpoint: Endpoint, options: SocketOptions) -> socket.socket:
    """A listening socket on the first address the host name stands for."""
    family, address = resolve(endpoint)
    try:
        listener = socket.socket(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
    except OSError as error:
        raise cannot_listen(endpoint, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(endpoint.host)))
        set_tcp(listener, replace(options, reuse_port=options.reuse_port and not options.claim))
        try:
            listener.bind(address)
            if options.claim:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.listen(options.backlog)
        except OSError as error:
            raise cannot_listen(endpoint, error) from error
    except BaseException:
        listener.close()
        raise
    return listener


def resolve(endpoint: Endpoint) -> tuple[int, tuple[object, ...]]:
    """Family and socket address to bind. Raises NetworkError for a name that stands for nothing."""
    if not endpoint.host:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", endpoint.port)
        return socket.AF_INET, ("0.0.0.0", endpoint.port)
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        why = (
            error.strerror.lower()
            if isinstance(error, socket.gaierror) and error.strerror
            else "not a host name"
        )
        hint = "Use an address of this host, such as 127.0.0.1, ::1 or 0.0.0.0"
        raise NetworkError(f"cannot listen on {endpoint}: {why}", hint) from error
    family, _, _, _, address = found[0]
    return family, address


def cannot_listen(endpoint: Endpoint, error: OSError) -> NetworkError:
    hint = HINTS.get(error.errno or 0, "").format(port=endpoint.port)
    return NetworkError(f"cannot listen on {endpoint}: {reason(error)}", hint, error.errno)


def name(listener: socket.socket, endpoint: Endpoint) -> Endpoint:
    """The endpoint as bound."""
    host, port = listener.getsockname()[:2]
    return Endpoint("tcp", host, port)


def release(listener: socket.socket, endpoint: Endpoint) -> None:
    """A closed TCP listener leaves nothing behind."""
