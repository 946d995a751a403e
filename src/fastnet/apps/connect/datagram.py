"""Datagram pump: each line of input is one datagram, each reply is written as it is.

Facts. UDP has no end of stream, no backpressure and no connection: a refusal is an ICMP message
that is reported some time after the datagram, as an error of the next call on a connected socket
(udp(7)); on loopback it is there immediately. A name may have an address to which the server is not
bound (localhost is ::1 and 127.0.0.1), and only a refusal shows it.
Consequence: the end is a matter of time. After the end of input we wait for replies until
`last_replies_s` after the last byte in either direction.
Decision: a line keeps its newline, so that the output equals the input. A refusal before the first
reply makes us send the last datagram again to the next address of the name; later, or without a
next address, it is an error. Over a Unix socket there is one address, a full queue of the server
blocks us, and a refusal is reported immediately.
Cost: over a real network the datagrams sent between the first one and its refusal are lost. UDP may
lose any of them anyway.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque

from fastnet.apps.connect.pump import InactivityTimer, PollSet, PumpResult
from fastnet.apps.connect.stdio import ReaderGone, StandardInput, StandardOutput
from fastnet.apps.connect.stream import Q_LINES
from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import LAST_REPLIES_S, READ_BYTES
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial_datagram
from fastnet.transport.connect_errors import hint_of
from fastnet.transport.resolve import Address

NOTHING = memoryview(b"")


class LineBuffer:
    """Splits input into lines; holds at most the longest line and one read."""

    def __init__(self, line_bytes_max: int) -> None:
        self.line_bytes_max = line_bytes_max
        self._text = b""
        self._start = 0
        self._has_ended = False

    def feed(self, data: bytes) -> None:
        self._text = self._text[self._start :] + data
        self._start = 0

    def end(self) -> None:
        """The input has ended: the last line needs no newline."""
        self._has_ended = True

    def put_back(self, line: bytes) -> None:
        """Make the line that was returned last the next one again."""
        self._text = line + self._text[self._start :]
        self._start = 0

    def next_line(self) -> bytes | None:
        """The next line with its newline, or None.

        Raises NetworkError when it does not fit a datagram.
        """
        start = self._start
        end = self._text.find(b"\n", start, start + self.line_bytes_max) + 1
        if end == 0:
            end = len(self._text)
            if end - start > self.line_bytes_max:
                raise NetworkError(
                    f"a line of the input has more than {self.line_bytes_max} bytes "
                    "and does not fit a datagram",
                    "Cut it into shorter lines, or use a stream: tcp:// or unix:",
                    errno.EMSGSIZE,
                )
            if end == start or not self._has_ended:
                return None
        self._start = end
        return self._text[start:end]


class DatagramPump:
    """Copies an input to a datagram socket line by line, and replies to an output.

    Args:
        addresses: Addresses of the endpoint, best first; removed from the front as they are tried.
        last_replies_s: How long to wait for replies after the end of input, counted from the last
            byte in either direction.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        addresses: deque[Address],
        source: StandardInput,
        target: StandardOutput,
        last_replies_s: float = LAST_REPLIES_S,
        poller: PollSet | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.addresses = addresses
        self.source = source
        self.target = target
        self.sock = self.open()
        bytes_max = TRANSPORTS[endpoint.transport].datagram_bytes_max
        self.lines = LineBuffer(bytes_max)
        self.text = memoryview(bytearray(READ_BYTES))
        self.reply = memoryview(bytearray(max(READ_BYTES, bytes_max)))
        self.outgoing: bytes | None = None
        self.last_sent: bytes | None = None
        self.write_buffer = NOTHING
        self.has_ended = False
        self.sent_bytes = 0
        self.received_bytes = 0
        self.replies = 0
        self.inactivity = InactivityTimer(last_replies_s)
        self.poller = poller or PollSet()

    def run(self) -> PumpResult:
        """Send line by line and write replies, until the input has ended and no reply follows.

        Raises:
            NetworkError: Refused, unreachable, a line that exceeds a datagram.
            FastnetError: Reading the input or writing the output failed.
        """
        try:
            while not (self.awaits_replies() and self.inactivity.is_expired()):
                self.run_once()
        except ReaderGone:
            return PumpResult(self.sent_bytes, self.received_bytes, "reader")
        return PumpResult(self.sent_bytes, self.received_bytes, "both")

    def close(self) -> None:
        self.sock.close()

    def open(self) -> socket.socket:
        sock = dial_datagram(self.endpoint, self.addresses)
        sock.setblocking(False)
        return sock

    def awaits_replies(self) -> bool:
        """Whether everything was sent and written, and only replies may follow."""
        return self.has_ended and self.outgoing is None and not self.write_buffer

    def run_once(self) -> None:
        """Wait once; read replies and refusals before a line is sent."""
        if not self.awaits_replies():
            self.inactivity.reset()
        ready = self.poller.wait(
            self.poll_masks(), self.inactivity.remaining_s() if self.awaits_replies() else None
        )
        if self.write_buffer:
            self.write()
        elif ready.get(self.sock.fileno(), 0) & ~select.POLLOUT:
            self.receive()
        if self.outgoing is None and self.source.fd in ready:
            self.read()
        elif self.outgoing is not None and ready.get(self.sock.fileno(), 0) & select.POLLOUT:
            self.send()

    def poll_masks(self) -> dict[int, int]:
        masks = {}
        of_socket = 0
        if self.outgoing is not None:
            of_socket |= select.POLLOUT
        elif not self.has_ended:
            masks[self.source.fd] = select.POLLIN
        if self.write_buffer:
            masks[self.target.fd] = select.POLLOUT
        else:
            of_socket |= select.POLLIN
        if of_socket:
            masks[self.sock.fileno()] = of_socket
        return masks

    def read(self) -> None:
        count = self.source.read_into(self.text)
        if count is None:
            return
        if count:
            self.lines.feed(bytes(self.text[:count]))
        else:
            self.has_ended = True
            self.lines.end()
        self.queue_line()

    def queue_line(self) -> None:
        self.outgoing = self.lines.next_line()
        if (
            self.outgoing is not None
            and self.source.is_terminal
            and self.outgoing.removesuffix(b"\n") in Q_LINES
        ):
            self.outgoing = None
            self.has_ended = True

    def send(self) -> None:
        assert self.outgoing is not None
        try:
            self.sock.send(self.outgoing)
        except BlockingIOError:
            return
        except OSError as error:
            self.on_error(error)
            return
        self.sent_bytes += len(self.outgoing)
        self.last_sent = self.outgoing
        self.inactivity.reset()
        self.queue_line()

    def receive(self) -> None:
        try:
            count = self.sock.recv_into(self.reply)
        except BlockingIOError:
            return
        except OSError as error:
            self.on_error(error)
            return
        self.replies += 1
        self.received_bytes += count
        self.write_buffer = self.reply[:count]
        self.inactivity.reset()
        if self.write_buffer:
            self.write()

    def write(self) -> None:
        self.write_buffer = self.write_buffer[self.target.write(self.write_buffer) :]

    def on_error(self, error: OSError) -> None:
        """After a refusal continue with the next address of the name; raise any other error."""
        if error.errno != errno.ECONNREFUSED or self.replies or not self.addresses:
            hint = hint_of(self.endpoint, error.errno)
            counts = f"after {self.sent_bytes} bytes sent and {self.received_bytes} received"
            raise NetworkError(
                f"{self.endpoint}: {reason(error)}, {counts}", hint, error.errno
            ) from error
        self.sock.close()
        self.sock = self.open()
        self.inactivity.reset()
        if self.last_sent is not None:
            self.sent_bytes -= len(self.last_sent)
            if self.outgoing is not None:
                self.lines.put_back(self.outgoing)
            self.outgoing, self.last_sent = self.last_sent, None
