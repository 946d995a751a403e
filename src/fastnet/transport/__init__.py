"""Transports: the socket families, one row each."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.limits import DATAGRAM_BYTES_MAX, UNIXGRAM_BYTES_MAX
from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class TransportRow(Row):
    """A transport."""

    datagrams: bool = False
    """Whether it is connectionless."""
    shared: bool = True
    """Whether each loop can bind a listener of its own to one address."""
    datagram_bytes_max: int = 0
    """The longest datagram that a server receives and sends."""
    forgeable: bool = False
    """Whether a source address may be forged."""


TRANSPORTS: Registry[TransportRow] = Registry(
    __name__,
    {
        "tcp": TransportRow("TCP over IPv4 and IPv6", python="tcp"),
        "unix": TransportRow(
            "stream sockets of this host, by path or abstract name", python="unix", shared=False
        ),
        "udp": TransportRow(
            "UDP over IPv4 and IPv6",
            python="udp",
            datagrams=True,
            datagram_bytes_max=DATAGRAM_BYTES_MAX,
            forgeable=True,
        ),
        "unixgram": TransportRow(
            "datagram sockets of this host, by path or abstract name",
            python="unixgram",
            datagrams=True,
            shared=False,
            datagram_bytes_max=UNIXGRAM_BYTES_MAX,
        ),
    },
)
