"""The last words of a raw receiver: what it says between our FIN and its own.

Facts. After our FIN the receiver may take its time: what it has not read yet sits in two kernels'
buffers. The count of bytes that its kernel has not acknowledged (SIOCOUTQ, tcp(7)) goes down as
long as it reads. close(2) with unread data sends RST, which discards even what was acknowledged.
Decision: read to the end, always; keep a little of it. The time-out starts again whenever the count
goes down, and not for each byte said: somebody who talks for ever is cut short.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from time import monotonic

from fastnet.limits import LAST_WORDS_BYTES, LAST_WORDS_BYTES_MAX, MOVER_SLICE_S


class NoEnd(Exception):
    """The peer did not end, in time or within bounds. words: what it said; talked: whether it said
    too much.
    """

    def __init__(self, words: bytes, talked: bool) -> None:
        super().__init__("no end of stream")
        self.words = words
        self.talked = talked


def read_last_words(sock: socket.socket, stall_s: float, on_slice: Callable[[], None]) -> bytes:
    """Read to the peer's end and return the beginning of what it said. Raises NoEnd, and OSError of
    the socket.

    sock: non-blocking. on_slice: called every MOVER_SLICE_S; may raise.
    """
    kept, heard_bytes = bytearray(), 0
    unread, since = unacknowledged(sock), monotonic()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        if poll.poll(min(MOVER_SLICE_S, stall_s) * 1000):
            part = sock.recv(LAST_WORDS_BYTES)
            if not part:
                return bytes(kept)
            kept += part[: LAST_WORDS_BYTES - len(kept)]
            heard_bytes += len(part)
        on_slice()
        left = unacknowledged(sock)
        if left != unread:
            unread, since = left, monotonic()
        if heard_bytes > LAST_WORDS_BYTES_MAX or monotonic() - since >= stall_s:
            raise NoEnd(bytes(kept), heard_bytes > LAST_WORDS_BYTES_MAX)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes sent that the peer's kernel has not acknowledged."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(count)


def as_text(words: bytes) -> str:
    """Last words as text: textbook programs send padded buffers, so the first NUL ends them, and so
    do final line ends.
    """
    return words.partition(b"\0")[0].decode("utf-8", "backslashreplace").rstrip("\r\n")
