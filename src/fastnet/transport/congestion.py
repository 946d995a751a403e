"""Which congestion control a transfer uses.

Facts. bbr paces what it sends, even over loopback, where there is no queue to protect: on one host
cubic carried 7.0 GB/s where bbr carried 2.0 to 2.6 (docs/benchmarks.md). Over a real network the
administrator's choice is the better guess.
Decision: "auto" takes cubic, or else reno, when both ends have the same address, and leaves the
kernel's default otherwise.
"""

from __future__ import annotations

import socket

from fastnet.transport.options import set_congestion

UNPACED = ("cubic", "reno")
NAME_BYTES = 16
"""TCP_CA_NAME_MAX (tcp.h of the kernel)."""


def settle(sock: socket.socket, wanted: str = "auto") -> str:
    """Set it on a connection; `wanted` is "auto" or an algorithm. Returns the one in use, "" for a
    Unix socket.

    Raises ConfigError for an algorithm asked for by name and absent.
    """
    if sock.family == socket.AF_UNIX:
        return ""
    if wanted != "auto":
        set_congestion(sock, wanted)
    elif in_use(sock) not in UNPACED and is_same_host(sock):
        for name in UNPACED:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
                break
            except OSError:
                continue
    return in_use(sock)


def check(wanted: str) -> None:
    """Raises ConfigError, before anybody connects, for an algorithm that `settle` could not set."""
    if wanted != "auto":
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            set_congestion(sock, wanted)


def in_use(sock: socket.socket) -> str:
    return (
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_BYTES)
        .partition(b"\0")[0]
        .decode()
    )


def is_same_host(sock: socket.socket) -> bool:
    """Whether both ends have one address. A peer that is gone already has none."""
    try:
        return bool(sock.getsockname()[0] == sock.getpeername()[0])
    except OSError:
        return False
