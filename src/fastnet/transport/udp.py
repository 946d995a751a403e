"""UDP listeners over IPv4 and IPv6.

Facts. UDP does not listen and has no TIME_WAIT, and SO_REUSEADDR would let a second server steal
the port (socket(7)). SO_REUSEPORT shares it: the kernel distributes peers over the sockets by a
hash of both addresses, so a peer stays with one.
Decision: SO_REUSEPORT where several loops share the port (_inet.py); never SO_REUSEADDR.
"""

from __future__ import annotations

import select
import socket

from fastnet.endpoint import Endpoint
from fastnet.limits import DATAGRAM_SEND_TIMEOUT_S
from fastnet.transport._inet import bound_socket
from fastnet.transport.contract import Listener, SocketOptions
from fastnet.transport.options import set_udp


def listen(endpoint: Endpoint, options: SocketOptions) -> Listener:
    """Bind to the first address of the host."""
    return bound_socket(socket.SOCK_DGRAM, endpoint, options, set_udp)


def await_room(sock: socket.socket) -> bool:
    """Wait up to DATAGRAM_SEND_TIMEOUT_S for room in the send buffer; False if there is none."""
    room = select.poll()  # select(2) cannot watch descriptors above 1023
    room.register(sock, select.POLLOUT)
    return bool(room.poll(DATAGRAM_SEND_TIMEOUT_S * 1000))
