"""Movers for tests.

Every row and backend as parameters, and the two ends they move between.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastnet.mover import MOVERS
from fastnet.mover.contract import Mover
from fastnet.registry import BACKENDS
from tests.conftest import why_skip


def rows(direction: str = "") -> list[Any]:
    """Every mover and backend made for a direction, as parameters.

    What cannot work here is skipped with its reason.
    """
    found = []
    for name, row in MOVERS.items():
        if (direction == "send" and not row.sends) or (direction == "receive" and not row.receives):
            continue
        for backend in BACKENDS:
            why = why_skip(backend) or MOVERS.why_not(name, backend)
            marks = [pytest.mark.native] if backend == "native" else []
            marks += [pytest.mark.skip(reason=why)] if why else []
            found.append(pytest.param((name, backend), id=f"{name}-{backend}", marks=marks))
    return found


@contextmanager
def made(row: tuple[str, str]) -> Iterator[Mover]:
    mover: Mover = MOVERS.load(*row).Mover()
    try:
        yield mover
    finally:
        mover.close()


@contextmanager
def pair(buffer_bytes: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection: ours, non-blocking, and the peer's.

    buffer_bytes: how little they hold.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        if buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                ours.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(20)
        yield ours, theirs


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
