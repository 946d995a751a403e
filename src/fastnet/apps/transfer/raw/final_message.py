"""The final message of a raw receiver: what it sends between our FIN and its own.

Facts. After our FIN the receiver may take its time: what it has not read yet sits in two kernels'
buffers. The count of bytes that its kernel has not acknowledged (SIOCOUTQ, tcp(7)) goes down as
long as it reads. close(2) with unread data sends RST, which discards even what was acknowledged.
Decision: read to the end, always; keep a little of it. The time-out starts again whenever the count
goes down, and not for each byte received, so an endless message is cut short.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from time import monotonic

from fastnet.limits import FINAL_MESSAGE_BYTES, FINAL_MESSAGE_BYTES_MAX, MOVER_SLICE_S


class NoEndOfStream(Exception):
    """The peer did not send FIN in time, or its message exceeds the bound."""

    def __init__(self, message: bytes, is_too_long: bool) -> None:
        super().__init__("no end of stream")
        self.message = message
        self.is_too_long = is_too_long


def read_final_message(sock: socket.socket, stall_s: float, on_slice: Callable[[], None]) -> bytes:
    """Read to the peer's FIN. Returns the beginning of its message.

    Raises NoEndOfStream, and OSError of the socket.

    sock: non-blocking. on_slice: called every MOVER_SLICE_S; may raise.
    """
    kept, received_bytes = bytearray(), 0
    unread, since = unacknowledged(sock), monotonic()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        if poll.poll(min(MOVER_SLICE_S, stall_s) * 1000):
            part = sock.recv(FINAL_MESSAGE_BYTES)
            if not part:
                return bytes(kept)
            kept += part[: FINAL_MESSAGE_BYTES - len(kept)]
            received_bytes += len(part)
        on_slice()
        left = unacknowledged(sock)
        if left != unread:
            unread, since = left, monotonic()
        if received_bytes > FINAL_MESSAGE_BYTES_MAX or monotonic() - since >= stall_s:
            raise NoEndOfStream(bytes(kept), received_bytes > FINAL_MESSAGE_BYTES_MAX)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes sent that the peer's kernel has not acknowledged."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(count)


def as_text(message: bytes) -> str:
    """A message as text, up to its first NUL and without final line ends.

    Textbook programs send padded buffers.
    """
    return message.partition(b"\0")[0].decode("utf-8", "backslashreplace").rstrip("\r\n")
