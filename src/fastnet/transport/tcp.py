"""TCP listeners over IPv4 and IPv6.

Facts. SO_REUSEADDR lets a server bind while connections of the one before are still in TIME_WAIT,
and on Linux never lets two live listeners share a port; SO_REUSEPORT does, and the kernel
distributes connections over them by a hash.
Decision: SO_REUSEADDR always, SO_REUSEPORT where several loops share the port (_inet.py).
"""

from __future__ import annotations

import socket

from fastnet.endpoint import Endpoint
from fastnet.transport._inet import bound_socket
from fastnet.transport.contract import Listener, SocketOptions
from fastnet.transport.options import set_tcp


def listen(endpoint: Endpoint, options: SocketOptions) -> Listener:
    """Listen on the first address of the host."""
    return bound_socket(socket.SOCK_STREAM, endpoint, options, set_tcp)
