"""Bound UDP sockets over IPv4 and IPv6.

Facts. UDP has no listening and no TIME_WAIT, and SO_REUSEADDR would let a second server steal the
port (socket(7)). SO_REUSEPORT shares it: the kernel spreads peers over the sockets by a hash of
both addresses, so a peer stays with one.
Decision: SO_REUSEPORT where several loops share the port, set by the first one after bind as
transport/tcp.py has it.
"""

from __future__ import annotations

import select
import socket
from dataclasses import replace

from fastnet.endpoint import Endpoint
from fastnet.limits import DATAGRAM_SEND_TIMEOUT_S
from fastnet.transport import tcp
from fastnet.transport.contract import SocketOptions
from fastnet.transport.options import set_udp


def await_room(sock: socket.socket) -> bool:
    """Wait a moment for a send buffer that is full. Returns whether there is room now."""
    room = select.poll()  # select(2) would end at descriptor 1023
    room.register(sock, select.POLLOUT)
    return bool(room.poll(DATAGRAM_SEND_TIMEOUT_S * 1000))


def listen(endpoint: Endpoint, options: SocketOptions) -> socket.socket:
    """A bound socket on the first address the host name stands for."""
    family, address = tcp.resolve(endpoint)
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise tcp.cannot_listen(endpoint, error) from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(endpoint.host)))
        set_udp(sock, replace(options, reuse_port=options.reuse_port and not options.claim))
        try:
            sock.bind(address)
            if options.claim:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            raise tcp.cannot_listen(endpoint, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def name(listener: socket.socket, endpoint: Endpoint) -> Endpoint:
    """The endpoint as bound."""
    host, port = listener.getsockname()[:2]
    return Endpoint("udp", host, port)


def release(listener: socket.socket, endpoint: Endpoint) -> None:
    """A closed UDP socket leaves nothing behind."""
