"""The datagram echo server one would write with asyncio.

Usage: asyncio_datagram.py RCVBUF_BYTES.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


async def main() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[1]))
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=sock)
    print(f"listening on udp://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
