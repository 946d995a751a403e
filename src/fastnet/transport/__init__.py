"""How a socket is made and named: one row a transport."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.table import Row, Table


@dataclass(frozen=True)
class TransportRow(Row):
    """datagrams: it has no connections. shared: its port may be bound once for each loop."""

    datagrams: bool = False
    shared: bool = True


TRANSPORTS: Table[TransportRow] = Table(
    __name__,
    {
        "tcp": TransportRow("TCP over IPv4 and IPv6", python="tcp"),
        "unix": TransportRow("stream sockets of this host, by path or abstract name", python="unix", shared=False),
        "udp": TransportRow("UDP over IPv4 and IPv6", python="udp", datagrams=True),
    },
)
