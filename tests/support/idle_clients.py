"""Very many clients in a process of their own.

`python -m tests.support.idle_clients ENDPOINT IDLE ACTIVE`.

Every connection echoes one message when it is made; the active ones go on until the end of input.
Prints a line when all are connected and one when all have gone. Source addresses of 127/8 are used
in turn, so that no range of ports is exhausted.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

from fastnet.endpoint import Endpoint

A_SOURCE = 5000
IP_BIND_ADDRESS_NO_PORT = 24


def crowd(endpoint: Endpoint, n: int) -> list[socket.socket]:
    """n connections, none of which has said anything."""
    found = []
    for i in range(n):
        sock = socket.socket()
        sock.settimeout(30)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.1.{1 + i // A_SOURCE}", 0))
        sock.connect((endpoint.host, endpoint.port))
        found.append(sock)
    return found


def echo(socks: list[socket.socket], turn: int) -> None:
    """Each sends something of its own and must get just that."""
    for i, sock in enumerate(socks):
        sock.sendall(b"%d of turn %d\n" % (i, turn))
    for i, sock in enumerate(socks):
        expected = b"%d of turn %d\n" % (i, turn)
        got = b""
        while len(got) < len(expected):
            piece = sock.recv(100)
            if not piece:
                raise SystemExit(f"connection {i} ended in turn {turn} after {got!r}")
            got += piece
        if got != expected:
            raise SystemExit(f"connection {i} got {got!r}, not {expected!r}")


def main() -> None:
    endpoint, idle, active = Endpoint.parse(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quiet, busy = crowd(endpoint, idle), crowd(endpoint, active)
    echo(quiet + busy, 0)
    print("connected", flush=True)
    turn = 1
    while turn <= 5 or not select.select([sys.stdin], [], [], 0)[0]:
        echo(busy, turn)
        turn += 1
    echo(quiet + busy, turn)
    for sock in quiet + busy:
        sock.close()
    print("gone", flush=True)


if __name__ == "__main__":
    main()
