"""How a socket is made and named: one row a transport."""

from __future__ import annotations

from fastnet.table import Row, Table

TRANSPORTS: Table[Row] = Table(
    __name__,
    {
        "tcp": Row("TCP over IPv4 and IPv6", python="tcp"),
        "unix": Row("stream sockets of this host, by path or abstract name", python="unix"),
    },
)
