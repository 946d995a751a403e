"""How a socket is made and named: one row a transport."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.limits import DATAGRAM_BYTES_MAX, UNIXGRAM_BYTES_MAX
from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class TransportRow(Row):
    """datagrams: it has no connections. shared: its port may be bound once for each loop.

    datagram_bytes_max: the longest datagram a server of it takes and sends. forgeable: its senders
    may not be who they say.
    """

    datagrams: bool = False
    shared: bool = True
    datagram_bytes_max: int = 0
    forgeable: bool = False


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
