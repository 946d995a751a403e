"""Socket options by name, with errors that name them (socket(7), tcp(7), ip(7), ipv6(7))."""

from __future__ import annotations

import socket

from fastnet.errors import ConfigError, reason
from fastnet.transport.contract import SocketOptions

CONGESTION_FILE = "/proc/sys/net/ipv4/tcp_available_congestion_control"


def set_buffers(sock: socket.socket, options: SocketOptions) -> None:
    """Set SO_RCVBUF and SO_SNDBUF; before listen(2), as the handshake fixes the window scale."""
    if options.rcvbuf is not None:
        set_option(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, options.rcvbuf, "rcvbuf")
    if options.sndbuf is not None:
        set_option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, options.sndbuf, "sndbuf")


def set_tcp(sock: socket.socket, options: SocketOptions) -> None:
    """Set every option that the connections of a TCP listener inherit."""
    set_buffers(sock, options)
    set_option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, int(options.nodelay), "nodelay")
    set_option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.keepalive), "keepalive")
    set_shared(sock, options)
    if options.congestion is not None:
        set_congestion(sock, options.congestion)


def set_udp(sock: socket.socket, options: SocketOptions) -> None:
    """Set the options that apply to datagrams."""
    set_buffers(sock, options)
    set_shared(sock, options)


def set_shared(sock: socket.socket, options: SocketOptions) -> None:
    """Set the options of TCP and UDP alike."""
    if options.reuse_port:
        set_option(sock, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1, "reuse-port")
    if options.ttl is not None:
        if sock.family == socket.AF_INET6:
            set_option(sock, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, options.ttl, "ttl")
        set_option(sock, socket.IPPROTO_IP, socket.IP_TTL, options.ttl, "ttl")


def set_option(sock: socket.socket, level: int, option: int, value: int, name: str) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError as error:
        raise ConfigError(
            f"cannot set --{name} {value}: {reason(error)}", "See socket(7) for the values"
        ) from error


def set_congestion(sock: socket.socket, algorithm: str) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    except OSError as error:
        try:
            with open(CONGESTION_FILE) as file:
                known = ", ".join(file.read().split())
        except OSError:
            known = "unknown"
        raise ConfigError(
            f"cannot use --congestion {algorithm}: {reason(error)}", f"This kernel has: {known}"
        ) from error
