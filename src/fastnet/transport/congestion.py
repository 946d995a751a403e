"""Congestion control of a transfer's connection (TCP_CONGESTION).

Facts. bbr paces what it sends, even over loopback, where there is no queue to protect: on one host
cubic carried 7.0 GB/s where bbr carried 2.0 to 2.6 (docs/benchmarks.md). Over a real network the
administrator's choice is the better guess.
Decision: "auto" selects cubic, or else reno, when both ends have the same address, and keeps the
kernel's default otherwise.
"""

from __future__ import annotations

import socket

from fastnet.transport.options import set_congestion

UNPACED = ("cubic", "reno")
NAME_BYTES = 16
"""TCP_CA_NAME_MAX (tcp.h of the kernel)."""


def set_congestion_control(sock: socket.socket, algorithm: str = "auto") -> str:
    """Set the algorithm of a connection. Returns the one in use, "" for a Unix socket.

    Raises ConfigError for an algorithm that was requested by name and is absent.
    """
    if sock.family == socket.AF_UNIX:
        return ""
    if algorithm != "auto":
        set_congestion(sock, algorithm)
    elif in_use(sock) not in UNPACED and is_same_host(sock):
        for name in UNPACED:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
                break
            except OSError:
                continue
    return in_use(sock)


def check(algorithm: str) -> None:
    """Raise ConfigError for an algorithm that `set_congestion_control` could not set."""
    if algorithm != "auto":
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            set_congestion(sock, algorithm)


def in_use(sock: socket.socket) -> str:
    return (
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_BYTES)
        .partition(b"\0")[0]
        .decode()
    )


def is_same_host(sock: socket.socket) -> bool:
    """Whether both ends have the same address; a closed peer has none."""
    try:
        return bool(sock.getsockname()[0] == sock.getpeername()[0])
    except OSError:
        return False
