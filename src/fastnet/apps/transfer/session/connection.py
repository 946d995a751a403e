"""Transport connection of fastnet/1: frames, extents, idle timeout and deadline.

Facts. Both sides of a transfer send frames: a failing receiver sends ERROR while the sender is in
the middle of an extent.
Decision: one thread per connection. Sockets are non-blocking; a wait lasts MOVER_SLICE_S at most
and then calls `on_slice`, which may raise. Nothing beyond a frame is read ahead, so splice(2) finds
the bytes of an extent in the socket. With TLS the bytes pass through Python's ssl and a buffer
(tls_mover.py); kernel TLS would keep sendfile(2), see transport/tls.py.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING

from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.extent import ExtentCopy, unlimited
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
    """The connection was closed, reset or idle for too long."""


class TransferConnection:
    """One connection of a transfer: frames and extents over a non-blocking stream socket.

    Args:
        sock: The connected socket.
        peer: The peer's address, for messages.
        stall_s: Idle timeout in seconds.
    """

    def __init__(self, sock: socket.socket, peer: str, stall_s: float) -> None:
        self.sock = sock
        self._tls: ModuleType | None = None
        self.peer = peer
        self.stall_s = stall_s
        self.deadline: float | None = None
        """Moment (monotonic) by which the current exchange must be complete, or None."""
        self.awaited = "its hello"
        """What the peer must send before the deadline, for the message."""
        self.is_sending = False
        """A frame is being sent; no other frame may begin."""
        self.frame_received_at = monotonic()
        """When the last frame was complete; a keepalive counts."""
        self.on_slice: Callable[[], None] = lambda: None
        """Called after every MOVER_SLICE_S of waiting or copying; may raise to cancel."""
        self.count_moved: Callable[[int], None] = lambda byte_count: None
        """Called with the file bytes that crossed this connection."""

    @property
    def is_tls(self) -> bool:
        return self._tls is not None

    def secure(self, sock: ssl.SSLSocket) -> None:
        """Send and receive through TLS from now on."""
        from fastnet.transport import tls

        self.sock, self._tls = sock, tls

    def shut_down(self) -> None:
        """End both directions, also under a thread that waits for the socket."""
        with suppress(OSError):
            # SSLSocket.shutdown would remove TLS under the thread that uses it
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Timeouts

    def _wait(self, events: int, since: float) -> None:
        """Wait for the socket, one slice at most.

        Raises ConnectionLost after the idle timeout.
        """
        poll = select.poll()
        poll.register(self.sock, events)
        self.check_idle(since)
        self.check_deadline()
        poll.poll(max(1.0, min(MOVER_SLICE_S, self.stall_s) * 1000))
        self.on_slice()

    def check_idle(self, since: float) -> None:
        """Raise ConnectionLost if neither a byte since `since` nor a frame came within stall_s."""
        if monotonic() - max(since, self.frame_received_at) >= self.stall_s:
            raise self.timed_out()

    def check_deadline(self) -> None:
        """Raise ConnectionLost if the deadline has passed.

        Also for a peer that never pauses.
        """
        if self.deadline is not None and monotonic() >= self.deadline:
            raise self.timed_out()

    def timed_out(self) -> ConnectionLost:
        """The error of an idle timeout or a missed deadline."""
        message = f"{self.peer} was silent for {self.stall_s:g} s"
        if self.deadline is not None:
            message = f"{self.peer} took too long to send {self.awaited}"
        return ConnectionLost(
            message, "Look at the other side, or give a longer --timeout", ErrorCode.STALLED
        )

    def lost(self, error: OSError | None = None) -> ConnectionLost:
        """The error of a connection that failed with `error`, or ended early.

        Raises:
            OSError: `error`, when it is not a fault of the network but of a file.
        """
        is_network = (
            error is None
            or error.errno in NETWORK_FAULTS
            or (self._tls is not None and self._tls.is_fault(error))
        )
        if error is not None and not is_network:
            raise error
        how = f" ({reason(error)})" if error is not None and error.errno != errno.ECONNRESET else ""
        hint = "It was stopped, or the network failed; the same command resumes the transfer"
        return ConnectionLost(f"{self.peer} broke the connection{how}", hint, ErrorCode.RESET)

    def is_readable(self) -> bool:
        """Whether received bytes, or the end of the stream, can be read now."""
        if self._tls is not None and self._tls.holds(self.sock):
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    # Bytes

    def _events_to_wait_for(self, error: OSError, usual: int) -> int:
        """The poll(2) events to wait for before repeating the call that raised `error`.

        Args:
            error: EAGAIN, or TLS that must read before it can write, or the reverse.
            usual: The events without TLS.
        Raises:
            ConnectionLost: The error is a failure.
        """
        if isinstance(error, BlockingIOError):
            return usual
        events: int = self._tls.wanted(error) if self._tls is not None else 0
        if not events:
            raise self.lost(error) from error
        return events

    def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`. Raises ConnectionLost, and what `on_slice` raises."""
        self.is_sending, view, since = True, memoryview(data), monotonic()
        try:
            while view:
                try:
                    n = self.sock.send(view)
                except OSError as error:
                    self._wait(self._events_to_wait_for(error, select.POLLOUT), since)
                else:
                    view, since = view[n:], monotonic()
        finally:
            self.is_sending = False

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
                self._wait(self._events_to_wait_for(error, select.POLLIN), since)

    def read(self, count: int) -> bytearray:
        """Exactly `count` bytes. Raises ConnectionLost when the peer ends before."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            n = self.read_into(view)
            if not n:
                raise self.lost()
            view = view[n:]
        return data

    # Frames

    def read_head(self) -> tuple[FrameKind, int]:
        """FrameKind and payload length of the next frame, whose payload the caller reads."""
        return unpack_head(bytes(self.read(HEAD.size)))

    def next_head(self) -> tuple[FrameKind, int] | None:
        """read_head without an idle timeout between frames.

        None at the end of the stream.
        """
        first, stall_s = bytearray(1), self.stall_s
        self.stall_s = inf
        try:
            n = self.read_into(memoryview(first))
        finally:
            self.stall_s = stall_s
        return unpack_head(bytes(first + self.read(HEAD.size - 1))) if n else None

    def read_frame(self, *due: FrameKind, bytes_max: int = PLAN_BYTES_MAX) -> Frame:
        """The next frame, of a kind that is due, or ERROR or ALIVE.

        Raises ProtocolError for another one, unread.
        """
        kind, length = self.read_head()
        if kind not in (*due, FrameKind.ERROR, FrameKind.KEEPALIVE) or length > bytes_max:
            due_text = f", where {chr(due[0])} is due" if due else ""
            raise ProtocolError(f"a frame of kind {chr(kind)} with {length} bytes{due_text}")
        payload = bytes(self.read(length))
        self.frame_received_at = monotonic()
        return Frame(kind, payload)

    # Extents

    def on_moved(self, byte_count: int) -> None:
        """Count the bytes of a slice and call `on_slice`."""
        self.count_moved(byte_count)
        self.on_slice()

    def send_extent(
        self,
        mover: Mover,
        file_fd: int,
        offset: int,
        count: int,
        allowance: Callable[[int], int] = unlimited,
    ) -> int:
        """Send bytes of a file unframed.

        Returns:
            Bytes sent; fewer than `count` only when the file is shorter.
        Raises:
            ConnectionLost: The connection failed.  OSError: The file cannot be read.
        """
        copy = ExtentCopy(mover.send_some, self, file_fd, offset, count, allowance)
        try:
            return copy.run()
        except OSError as error:
            raise self.lost(error) from error

    def receive_extent(self, mover: Mover, file_fd: int, offset: int, count: int) -> None:
        """Receive unframed bytes into a file.

        Raises ConnectionLost, OSError of the file.
        """
        copy = ExtentCopy(mover.receive_some, self, file_fd, offset, count)
        try:
            moved = copy.run()
        except OSError as error:
            raise self.lost(error) from error
        if moved < count:
            raise self.lost()

    def close(self) -> None:
        self.sock.close()

    def discard_until(self, ends: float) -> None:
        """Send FIN, then discard input until the peer's FIN or the moment `ends` (monotonic).

        Closing with unread input would reset the connection and may lose the last frame sent (RFC
        1122, section 4.2.2.13).
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
