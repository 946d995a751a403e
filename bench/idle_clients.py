"""Idle clients in a process of their own.

`python -m bench.idle_clients ENDPOINT CONNECTIONS SOURCE`.

Prints a line when all are connected. At the end of input every hundredth connection echoes a
message, which must come back, and the last line says how many did. SOURCE is the address of 127/8
they come from: each has its own range of ports.
"""

from __future__ import annotations

import resource
import socket
import sys

from fastnet.endpoint import Endpoint

IP_BIND_ADDRESS_NO_PORT = 24
SAMPLED = 100
TIMEOUT_S = 60.0


def connect(endpoint: Endpoint, source: str) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    sock.connect((endpoint.host, endpoint.port))
    return sock


def main() -> None:
    endpoint, connections, source = Endpoint.parse(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = [connect(endpoint, source) for _ in range(connections)]
    print("connected", flush=True)
    sys.stdin.read()
    right = 0
    for number in range(0, connections, SAMPLED):
        message = b"number %d" % number
        crowd[number].sendall(message)
        right += crowd[number].recv(64) == message
    print(f"{right} of {len(range(0, connections, SAMPLED))}", flush=True)


if __name__ == "__main__":
    main()
