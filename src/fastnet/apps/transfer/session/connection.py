"""A connection of fastnet/1: frames in and out, and extents of files, with a time-out for silence.

Facts. Both sides of a transfer speak: a receiver that fails must be heard while the sender is in
the middle of an extent.
Decision: one thread a connection; sockets never block; whoever waits, waits for MOVER_SLICE_S at
most, and then lets the session look around (`on_slice`), which may raise. Nothing beyond a frame is
read ahead, so that splice(2) finds the bytes of an extent in the socket. With TLS the bytes pass
through Python's ssl and a buffer: kernel TLS would keep sendfile(2), see tls.py.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.extent import Stalled, receive_extent, send_extent
from fastnet.apps.transfer.protocol.frames import HEAD, Frame, FrameKind, ProtocolError, unpack_head
from fastnet.errors import TransferError, reason
from fastnet.limits import MOVER_BUFFER_BYTES, MOVER_SLICE_S, PLAN_BYTES_MAX
from fastnet.mover.contract import Mover

if TYPE_CHECKING:
    import ssl

NETWORK_FAULTS = (
    *(errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED),
    *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN),
)


class ConnectionLost(TransferError):
    """The connection is gone, or silent."""


class TransferConnection:
    """One connection. on_slice: called whenever waiting or moving has taken MOVER_SLICE_S; may
    raise.

    stall_s: nothing moved for so long is the end. deadline: a moment (monotonic) at which
    everything must be over, or None; late_with: what the peer is late with then. heard: when its
    last frame was whole; a sign of life is no silence. is_sending: a frame is under way, and no
    other may begin.
    """

    def __init__(self, sock: socket.socket, peer: str, stall_s: float) -> None:
        self.sock = sock
        self._tls: ModuleType | None = None
        self.peer = peer
        self.stall_s = stall_s
        self.deadline: float | None = None
        self.late_with = "who it is"
        self.is_sending = False
        self.heard = monotonic()
        self.on_slice: Callable[[], None] = lambda: None
        self.moved: Callable[[int], None] = lambda moved_bytes: None

    @property
    def is_tls(self) -> bool:
        return self._tls is not None

    def secure(self, sock: ssl.SSLSocket) -> None:
        """From here on everything goes through TLS."""
        from fastnet.transport import tls

        self.sock, self._tls = sock, tls

    def shut_down(self) -> None:
        """End both directions, whoever waits for the socket meanwhile."""
        with suppress(OSError):
            # ssl's own would pull TLS from under the one who waits
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Waiting

    def _wait(self, events: int, since: float) -> None:
        """Wait a slice for the socket. Raises ConnectionLost when `since` is too long ago."""
        poll = select.poll()
        poll.register(self.sock, events)
        if monotonic() - max(since, self.heard) >= self.stall_s:
            raise self.stalled()
        self.check_deadline()
        poll.poll(max(1.0, min(MOVER_SLICE_S, self.stall_s) * 1000))
        self.on_slice()

    def check_deadline(self) -> None:
        """Raises ConnectionLost when it is over; also for a peer that talks so much that nobody ever waits
        for it.
        """
        if self.deadline is not None and monotonic() >= self.deadline:
            raise self.stalled()

    def stalled(self) -> ConnectionLost:
        message = f"{self.peer} was silent for {self.stall_s:g} s"
        if self.deadline is not None:
            message = f"{self.peer} took too long to say {self.late_with}"
        return ConnectionLost(
            message, "Look at the other side, or give a longer --timeout", ErrorCode.STALLED
        )

    def broken(self, error: OSError | None = None) -> ConnectionLost:
        is_ours = (
            error is None
            or error.errno in NETWORK_FAULTS
            or (self._tls is not None and self._tls.is_fault(error))
        )
        if error is not None and not is_ours:
            raise error
        how = f" ({reason(error)})" if error is not None and error.errno != errno.ECONNRESET else ""
        hint = (
            "It was stopped, or the network failed; the same command again goes on where it ended"
        )
        return ConnectionLost(f"{self.peer} broke the connection{how}", hint, ErrorCode.RESET)

    def is_readable(self) -> bool:
        """Whether the peer has said something that was not read yet, or has ended."""
        if self._tls is not None and self._tls.holds(self.sock):
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    # Bytes

    def _awaited(self, error: OSError, usual: int) -> int:
        """What to poll for before the call that gave `error` is made again. Raises ConnectionLost when it
        is
        no wait.

        usual: what it is without TLS, which may have to read before it can write.
        """
        if isinstance(error, BlockingIOError):
            return usual
        wanted: int = self._tls.wanted(error) if self._tls is not None else 0
        if not wanted:
            raise self.broken(error) from error
        return wanted

    def send(self, data: bytes | memoryview) -> None:
        self.is_sending = True
        try:
            self._send(memoryview(data))
        finally:
            self.is_sending = False

    def _send(self, view: memoryview) -> None:
        since = monotonic()
        while view:
            try:
                n = self.sock.send(view)
            except OSError as error:
                self._wait(self._awaited(error, select.POLLOUT), since)
            else:
                view, since = view[n:], monotonic()

    def read_into(self, view: memoryview) -> int:
        """Fill some of `view`. Returns the bytes read, 0 at the end of the stream."""
        since = monotonic()
        while True:
            self.check_deadline()
            try:
                return self.sock.recv_into(view)
            except OSError as error:
                if self._tls is not None and self._tls.is_end(error):
                    return 0
                self._wait(self._awaited(error, select.POLLIN), since)

    def read(self, count: int) -> bytearray:
        """Exactly `count` bytes. Raises ConnectionLost when the peer ends before."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            n = self.read_into(view)
            if not n:
                raise self.broken()
            view = view[n:]
        return data

    # Frames

    def read_head(self) -> tuple[FrameKind, int]:
        """FrameKind and payload length of the next frame, whose payload the caller reads."""
        return unpack_head(bytes(self.read(HEAD.size)))

    def next_head(self) -> tuple[FrameKind, int] | None:
        """read_head of a connection that may rest between frames, and end there: None."""
        first, stall_s = bytearray(1), self.stall_s
        self.stall_s = inf
        try:
            n = self.read_into(memoryview(first))
        finally:
            self.stall_s = stall_s
        return unpack_head(bytes(first + self.read(HEAD.size - 1))) if n else None

    def read_frame(self, *due: FrameKind, bytes_max: int = PLAN_BYTES_MAX) -> Frame:
        """The next frame, of a kind that is due, or ERROR or ALIVE. Raises ProtocolError for
        another one, unread.
        """
        kind, length = self.read_head()
        if kind not in (*due, FrameKind.ERROR, FrameKind.KEEPALIVE) or length > bytes_max:
            wanted = f", where {chr(due[0])} is due" if due else ""
            raise ProtocolError(f"a frame of kind {chr(kind)} with {length} bytes{wanted}")
        payload = bytes(self.read(length))
        self.heard = monotonic()
        return Frame(kind, payload)

    # Extents

    def send_file(self, mover: Mover, file_fd: int, offset: int, count: int) -> int:
        """Bytes of a file as they are. Returns those sent: fewer only when the file ended
        before.
        """
        if self.is_tls:
            return self._send_copy(file_fd, offset, count)
        return self._move(send_extent, mover, file_fd, offset, count)

    def receive_file(self, mover: Mover, file_fd: int, offset: int, count: int) -> None:
        """`count` bytes into a file. Raises ConnectionLost, and OSError of the file."""
        moved = self._move(receive_extent, mover, file_fd, offset, count)
        if moved < count:
            raise self.broken()

    def _move(
        self, some: Callable[..., int], mover: Mover, file_fd: int, offset: int, count: int
    ) -> int:
        done = told = 0

        def on_slice(moved_bytes: int) -> None:
            nonlocal told
            self.moved(done + moved_bytes - told)
            told = done + moved_bytes
            self.on_slice()

        while True:
            try:
                return done + some(
                    mover, self.sock, file_fd, offset + done, count - done, self.stall_s, on_slice
                )
            except Stalled as error:
                if monotonic() - self.heard >= self.stall_s:
                    raise self.stalled() from error
                done += error.moved_bytes
            except OSError as error:
                raise self.broken(error) from error

    def _send_copy(self, file_fd: int, offset: int, count: int) -> int:
        sent = 0
        buffer = memoryview(bytearray(min(count, MOVER_BUFFER_BYTES)))
        while sent < count:
            n = os.preadv(file_fd, [buffer[: count - sent]], offset + sent)
            if not n:
                break
            self.send(buffer[:n])
            self.moved(n)
            self.on_slice()
            sent += n
        return sent

    def close(self) -> None:
        self.sock.close()

    def discard_until(self, ends: float) -> None:
        """Read and drop until the peer ends, so that our last words are not lost to a reset (RFC
        1122, 4.2.2.13).
        """
        buffer = memoryview(bytearray(MOVER_BUFFER_BYTES))
        self.deadline = ends
        self.on_slice = lambda: None
        try:
            self.sock.shutdown(socket.SHUT_WR)
            while self.read_into(buffer):
                pass
        except (OSError, TransferError):
            pass
