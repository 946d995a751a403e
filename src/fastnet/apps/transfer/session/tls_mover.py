"""Mover between a file and a TLS connection: copies through a buffer and Python's ssl.

Facts. TLS encrypts in this process, so no zero-copy call applies, and `ssl` reads and writes
buffers only. One step is one buffer; the connection waits for the socket itself.
Decision: TLS is a mover, so an extent takes the same path with and without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastnet.limits import MOVER_BUFFER_BYTES

if TYPE_CHECKING:
    from fastnet.apps.transfer.session.connection import TransferConnection
    from fastnet.mover.contract import Tap


class TlsMover:
    """One direction of one TLS connection; the contract is mover/contract.py (Mover)."""

    runs = "copy"
    reason = "TLS"
    held_bytes = 0

    def __init__(self, connection: TransferConnection) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(MOVER_BUFFER_BYTES))
        self.moved_bytes = 0
        self.tap: Tap | None = None

    def send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        """Send one buffer from the file."""
        n = os.preadv(file_fd, [self._buffer[:count]], offset)
        self._connection.send(self._buffer[:n])
        return self._count(n)

    def receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int:
        """Receive up to one buffer into the file."""
        n = self._connection.read_into(self._buffer[:count])
        written = 0
        while written < n:
            written += os.pwrite(file_fd, self._buffer[written:n], offset + written)
        return self._count(n)

    def _count(self, n: int) -> int:
        self.moved_bytes += n
        if self.tap and n:
            self.tap(self._buffer[:n])
        return n

    def send_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]:
        """One step, and whether the file has ended."""
        n = self.send(sock_fd, file_fd, offset, count)
        return n, not n

    def receive_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]:
        """One step, and whether the peer has sent its close_notify or FIN."""
        n = self.receive(sock_fd, file_fd, offset, count)
        return n, not n

    def close(self) -> None:
        """Nothing to release."""
