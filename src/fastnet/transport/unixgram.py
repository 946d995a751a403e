"""Unix datagram listeners, by path or abstract name (unix(7)).

Facts. While net.unix.max_dgram_qlen datagrams are queued at the receiver, a sender blocks or gets
EAGAIN, so none is lost on the way in and SO_RCVBUF has no effect. A datagram counts against the
SO_SNDBUF of its sender until it is read, and must fit it. The peer's address is the path it bound,
as it spelled it, and cannot be forged; an unbound peer cannot be sent a reply.
Decision: paths are handled as for streams (transport/unix.py). SO_SNDBUF is UNIXGRAM_SNDBUF_BYTES
by default; with the kernel's own, two dozen peers that do not read would use up all of it.
"""

from __future__ import annotations

import socket
from dataclasses import replace

from fastnet.endpoint import Endpoint
from fastnet.limits import UNIXGRAM_SNDBUF_BYTES
from fastnet.transport import unix
from fastnet.transport.contract import Listener, SocketOptions


def listen(endpoint: Endpoint, options: SocketOptions) -> Listener:
    """Bind to the path; a stale socket file there is replaced."""
    return unix.bound_unix_socket(
        socket.SOCK_DGRAM,
        endpoint,
        replace(options, sndbuf=options.sndbuf or UNIXGRAM_SNDBUF_BYTES),
    )
