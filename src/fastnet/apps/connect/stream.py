"""Full-duplex stream pump between an input, a connection and an output.

Facts. A program that reads its input, sends it, and then reads the reply deadlocks with an echo
server as soon as both socket buffers are full. A stream has two directions that end one by one:
shutdown(2) with SHUT_WR sends FIN and leaves the other direction open. poll(2) reports POLLERR and
POLLHUP whether they were requested or not, so a descriptor whose events are not handled must not be
watched.
Consequence: two directions with one chunk of memory each. A direction reads its source only when
its chunk is empty and waits for its target only when it is not: backpressure propagates in both
directions, and neither waits for the other.
Decision: on a terminal, the server's FIN ends the session. In a pipe the input is still sent until
it ends or the server refuses it (TCP allows that), and a refusal is an error: some of the input was
lost.
Cost: one chunk of 64 KiB each way, for any amount of data; three system calls a chunk.
"""

from __future__ import annotations

import errno
import select
import socket
from contextlib import suppress

from fastnet.apps.connect.pump import InactivityTimer, PollSet, PumpResult
from fastnet.apps.connect.stdio import ReaderGone, StandardInput, StandardOutput
from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import READ_BYTES

NOTHING = memoryview(b"")

Q_LINES = (b"q", b"q\r")
"""A line that ends the input of a terminal, without its newline."""


class QuitLine:
    """Finds a line that consists of `q`, in any segmentation of the input."""

    def __init__(self) -> None:
        self._held = b""
        self._line_start = True

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to send now, and whether the input has ended.

        A `q` whose line is not finished is held back.
        """
        text = self._held + data
        self._held = b""
        start = 0 if self._line_start else text.find(b"\n") + 1
        if not self._line_start and start == 0:
            return text, False
        while (newline := text.find(b"\n", start)) >= 0:
            if text[start:newline] in Q_LINES:
                return text[:start], True
            start = newline + 1
        tail = text[start:]
        self._line_start = not tail or tail in Q_LINES
        if tail in Q_LINES:
            self._held = tail
            return text[:start], False
        return text, False


class Direction:
    """One direction of a pump: a chunk that is filled only when it is empty."""

    def __init__(self) -> None:
        self.chunk = memoryview(bytearray(READ_BYTES))
        self.write_buffer = NOTHING
        self.moved_bytes = 0
        self.is_open = True

    def consume(self, count: int) -> None:
        """`count` bytes of the write buffer were written."""
        self.write_buffer = self.write_buffer[count:]
        self.moved_bytes += count


class StreamPump:
    """Copies an input to a connected stream socket, and the socket to an output.

    Args:
        timeout_s: Longest inactivity while the server owes data, which it does when the input has
            ended, or when it does not read what we have to send. None for no limit.
    """

    def __init__(
        self,
        sock: socket.socket,
        endpoint: Endpoint,
        source: StandardInput,
        target: StandardOutput,
        timeout_s: float | None = None,
        poller: PollSet | None = None,
    ) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self.source = source
        self.target = target
        self.upstream = Direction()
        self.downstream = Direction()
        self.quit_line = QuitLine() if source.is_terminal else None
        self.has_ended = False
        self.refusal: OSError | None = None
        self.inactivity = InactivityTimer(timeout_s)
        self.poller = poller or PollSet()

    def run(self) -> PumpResult:
        """Pump until both directions have ended, or one end is gone.

        Raises:
            NetworkError: Connection reset, input refused, timeout.
            FastnetError: Reading the input or writing the output failed.
        """
        self.sock.setblocking(False)
        try:
            while not self.is_over():
                self.run_once()
        except ReaderGone:
            return self.result("reader")
        if self.refusal is not None:
            raise self.connection_error(self.refusal)
        return self.result("both" if self.has_ended else "server")

    def is_over(self) -> bool:
        if self.downstream.is_open or self.downstream.write_buffer:
            return False
        return not self.upstream.is_open or self.source.is_terminal

    def run_once(self) -> None:
        """Wait once and transfer what can be transferred."""
        server_owes_data = (
            not self.upstream.is_open or bool(self.upstream.write_buffer)
        ) and not self.downstream.write_buffer
        if not server_owes_data:
            self.inactivity.reset()
        before = self.upstream.moved_bytes + self.downstream.moved_bytes
        ready = self.poller.wait(
            self.poll_masks(), self.inactivity.remaining_s() if server_owes_data else None
        )
        if self.upstream.is_open:
            self.pump_input(ready)
        if self.downstream.is_open or self.downstream.write_buffer:
            self.pump_output(ready)
        elif self.upstream.is_open and ready.get(self.sock.fileno(), 0) & (
            select.POLLERR | select.POLLHUP
        ):
            self.on_hang_up()
        if self.upstream.moved_bytes + self.downstream.moved_bytes != before:
            self.inactivity.reset()
        elif server_owes_data and self.inactivity.is_expired():
            raise self.timeout_error()

    def poll_masks(self) -> dict[int, int]:
        masks = {}
        of_socket = 0
        if self.upstream.is_open:
            if self.upstream.write_buffer:
                of_socket |= select.POLLOUT
            else:
                masks[self.source.fd] = select.POLLIN
        if self.downstream.write_buffer:
            masks[self.target.fd] = select.POLLOUT
        elif self.downstream.is_open:
            of_socket |= select.POLLIN
        # After the server's FIN, with nothing to send, only the events that cannot be masked matter
        if of_socket or not (self.downstream.is_open or self.downstream.write_buffer):
            masks[self.sock.fileno()] = of_socket
        return masks

    def pump_input(self, ready: dict[int, int]) -> None:
        if self.upstream.write_buffer:
            if self.sock.fileno() in ready:
                self.send()
        elif self.source.fd in ready:
            count = self.source.read_into(self.upstream.chunk)
            if count is None:
                return
            self.upstream.write_buffer = self.upstream.chunk[:count]
            self.has_ended = count == 0
            if self.quit_line is not None and count:
                text, self.has_ended = self.quit_line.feed(bytes(self.upstream.write_buffer))
                self.upstream.write_buffer = memoryview(text)
            if self.upstream.write_buffer:
                self.send()
        if self.has_ended and self.upstream.is_open and not self.upstream.write_buffer:
            self.half_close()

    def send(self) -> None:
        try:
            self.upstream.consume(self.sock.send(self.upstream.write_buffer))
        except BlockingIOError:
            pass
        except OSError as error:
            # The server refuses input, but what it sent before may still be in the receive buffer:
            # the other direction continues to its end.
            self.refusal = error
            self.upstream.write_buffer = NOTHING
            self.upstream.is_open = False

    def half_close(self) -> None:
        """Send FIN. After ENOTCONN the receiving direction gets the error."""
        self.upstream.is_open = False
        self.inactivity.reset()
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def pump_output(self, ready: dict[int, int]) -> None:
        if not self.downstream.write_buffer and self.sock.fileno() in ready:
            try:
                count = self.sock.recv_into(self.downstream.chunk)
            except BlockingIOError:
                return
            except OSError as error:
                raise self.connection_error(self.refusal or error) from error
            self.downstream.write_buffer = self.downstream.chunk[:count]
            self.downstream.is_open = count > 0
        if self.downstream.write_buffer:
            self.downstream.consume(self.target.write(self.downstream.write_buffer))

    def on_hang_up(self) -> None:
        """Stop reading the input: both directions of the connection are closed."""
        self.upstream.is_open = False
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.refusal = OSError(code, "")

    def result(self, ended_by: str) -> PumpResult:
        return PumpResult(self.upstream.moved_bytes, self.downstream.moved_bytes, ended_by)

    def counts(self) -> str:
        sent, received = self.upstream.moved_bytes, self.downstream.moved_bytes
        return f"after {sent} bytes sent and {received} received"

    def connection_error(self, error: OSError) -> NetworkError:
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            # never EPIPE in `errno`: click takes that for a closed standard output
            hint = "The server went away or did not want all of the input; its log may say why"
            return NetworkError(
                f"{self.endpoint} reset the connection {self.counts()}", hint, errno.ECONNRESET
            )
        return NetworkError(
            f"{self.endpoint} failed {self.counts()}: {reason(error)}", "", error.errno
        )

    def timeout_error(self) -> NetworkError:
        what = (
            "read none of the waiting input"
            if self.upstream.write_buffer
            else "sent nothing more and did not close"
        )
        return NetworkError(
            f"{self.endpoint} {what} for {self.inactivity.limit_s:g} s, {self.counts()}",
            "Give it a longer --timeout, or look at the server",
            errno.ETIMEDOUT,
        )
