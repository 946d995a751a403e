"""Bound Unix datagram sockets, by path or abstract name (unix(7)).

Facts. A sender waits, or hears EAGAIN, while the receiver has net.unix.max_dgram_qlen datagrams
queued, so nothing is lost on the way in and SO_RCVBUF means nothing. A datagram counts against the
SO_SNDBUF of its sender until it is read, and must fit it. The peer's name is the path it bound, as
it spelled it, and nobody can forge it; one that has bound no name cannot be answered.
Decision: paths are handled as for streams (transport/unix.py). SO_SNDBUF is UNIXGRAM_SNDBUF_BYTES
unless told otherwise, or two dozen peers that do not read would hold all of it.
"""

from __future__ import annotations

import socket
from dataclasses import replace

from fastnet.endpoint import Endpoint
from fastnet.limits import UNIXGRAM_SNDBUF_BYTES
from fastnet.transport import unix
from fastnet.transport.contract import SocketOptions


def listen(endpoint: Endpoint, options: SocketOptions) -> socket.socket:
    """A bound socket at the path; a stale socket file there is replaced."""
    return unix.bound(
        endpoint,
        replace(options, sndbuf=options.sndbuf or UNIXGRAM_SNDBUF_BYTES),
        socket.SOCK_DGRAM,
    )


name = unix.name
release = unix.release
