"""Greenlets of gevent: each connection is written as if it blocked.

Usage: gevent_sockets.py READ_BYTES.
"""

import sys

from gevent import socket
from gevent.server import StreamServer


def echo(peer: socket.socket, address: object) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(int(sys.argv[1])))
    while n := peer.recv_into(buffer):
        peer.sendall(buffer[:n])


if __name__ == "__main__":
    server = StreamServer(("127.0.0.1", 0), echo, backlog=4096)
    server.start()
    print(f"listening on tcp://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
