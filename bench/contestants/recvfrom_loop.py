"""The datagram echo server one would write with a socket and a loop."""

from __future__ import annotations

import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[1]))
    sock.bind(("127.0.0.1", 0))
    print(f"listening on udp://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    while True:
        data, peer = sock.recvfrom(65536)
        sock.sendto(data, peer)
