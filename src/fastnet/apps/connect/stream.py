"""The full-duplex pump: an input to a connection and the connection to an output, at the same time.

Facts. A program that reads its input, sends it, and then reads the answer deadlocks with an echo
server as soon as both socket buffers are full. A stream has two directions that end one by one:
shutdown(2) with SHUT_WR says "no more from me" and leaves the other open. poll(2) reports POLLERR
and POLLHUP whether they were asked for or not, so a descriptor that nobody acts on must not be
watched.
Consequence: two lanes, each with one chunk of memory of its own. A lane reads its source only when
its chunk is empty and waits for its target only when it is not: backpressure goes through in both
directions, and the lanes never wait for each other.
Decision: a server that ends first ends a session on a terminal, because a person has nobody left to
talk to. In a pipe the input still goes out until it ends or the server refuses it (TCP allows
that), and a refusal is an error: some of the input was lost.
Cost: one chunk of 64 KiB each way, whatever is transferred; three system calls a chunk.
"""

from __future__ import annotations

import errno
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from fastnet.apps.connect.stdio import Input, Output, ReaderGone
from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import READ_BYTES

NOTHING = memoryview(b"")

Q_LINES = (b"q", b"q\r")
"""A line that ends the input of a terminal, less its newline."""


@dataclass(frozen=True)
class Outcome:
    """What went through. ended_by: "both" ends, the "server" alone, or the "reader" of our
    output.
    """

    sent_bytes: int
    received_bytes: int
    ended_by: str


class Watch:
    """poll(2), told only what has changed since the last wait.

    wake_fd: also ends a wait; see stdio.interruptible. busy_poll_us: look that long before
    sleeping.
    """

    def __init__(self, wake_fd: int = -1, busy_poll_us: int = 0) -> None:
        self._poll = select.poll()
        self._busy_poll_s = busy_poll_us / 1e6
        if wake_fd >= 0:
            self._poll.register(wake_fd, select.POLLIN)
        self._masks: dict[int, int] = {}

    def wait(self, masks: dict[int, int], timeout_s: float | None) -> dict[int, int]:
        """Wait for what `masks` asks of each descriptor and return what is there. timeout_s: None
        for no end.
        """
        for fd in self._masks.keys() - masks.keys():
            self._poll.unregister(fd)
        for fd, mask in masks.items():
            if self._masks.get(fd) != mask:
                self._poll.register(fd, mask)
        self._masks = masks
        spin_s = self._busy_poll_s if timeout_s is None else min(self._busy_poll_s, timeout_s)
        until_s = monotonic() + spin_s
        while spin_s > 0 and monotonic() < until_s:
            if ready := self._poll.poll(0):
                return dict(ready)
        return dict(
            self._poll.poll(None if timeout_s is None else max(0.0, timeout_s - spin_s) * 1000)
        )


class Silence:
    """How long nothing has moved while it was the server's turn. limit_s: None for any time."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._since = monotonic()

    def broken(self) -> None:
        """Something moved, or it is not the server's turn."""
        self._since = monotonic()

    def left_s(self) -> float | None:
        return None if self.limit_s is None else self.limit_s - (monotonic() - self._since)

    def is_over(self) -> bool:
        left_s = self.left_s()
        return left_s is not None and left_s <= 0


class QuitLine:
    """Finds the line that is just `q`, however the bytes are cut."""

    def __init__(self) -> None:
        self._held = b""
        self._line_start = True

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be sent of the input so far, and whether it has ended. A `q` whose line is
        open is held back.
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


class Lane:
    """One direction: a chunk that is filled only when it is empty."""

    def __init__(self) -> None:
        self.chunk = memoryview(bytearray(READ_BYTES))
        self.write_buffer = NOTHING
        self.moved_bytes = 0
        self.is_open = True

    def took(self, count: int) -> None:
        self.write_buffer = self.write_buffer[count:]
        self.moved_bytes += count


class Conversation:
    """A connected stream socket between an input and an output. `run` returns when it is over.

    silence_s: longest time without a byte in either direction while it is the server's turn, which
    it is when the input has ended, or when bytes wait that the server does not take. None for any
    time.
    """

    def __init__(
        self,
        sock: socket.socket,
        endpoint: Endpoint,
        source: Input,
        target: Output,
        silence_s: float | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self.source = source
        self.target = target
        self.up = Lane()
        self.down = Lane()
        self.quit_line = QuitLine() if source.is_terminal else None
        self.has_ended = False
        self.refusal: OSError | None = None
        self.silence = Silence(silence_s)
        self.watch = watch or Watch()

    def run(self) -> Outcome:
        """Pump until both directions have ended, or one end leaves.

        Raises NetworkError (reset, refused input, silence) and FastnetError (our own input or
        output fails).
        """
        self.sock.setblocking(False)
        try:
            while not self.is_over():
                self.turn()
        except ReaderGone:
            return self.outcome("reader")
        if self.refusal is not None:
            raise self.broken(self.refusal)
        return self.outcome("both" if self.has_ended else "server")

    def is_over(self) -> bool:
        if self.down.is_open or self.down.write_buffer:
            return False
        return not self.up.is_open or self.source.is_terminal

    def turn(self) -> None:
        """Wait once and move what can be moved."""
        is_servers_turn = (
            not self.up.is_open or bool(self.up.write_buffer)
        ) and not self.down.write_buffer
        if not is_servers_turn:
            self.silence.broken()
        before = self.up.moved_bytes + self.down.moved_bytes
        ready = self.watch.wait(self.interest(), self.silence.left_s() if is_servers_turn else None)
        if self.up.is_open:
            self.step_up(ready)
        if self.down.is_open or self.down.write_buffer:
            self.step_down(ready)
        elif self.up.is_open and ready.get(self.sock.fileno(), 0) & (
            select.POLLERR | select.POLLHUP
        ):
            self.hung_up()
        if self.up.moved_bytes + self.down.moved_bytes != before:
            self.silence.broken()
        elif is_servers_turn and self.silence.is_over():
            raise self.silent()

    def interest(self) -> dict[int, int]:
        masks = {}
        of_socket = 0
        if self.up.is_open:
            if self.up.write_buffer:
                of_socket |= select.POLLOUT
            else:
                masks[self.source.fd] = select.POLLIN
        if self.down.write_buffer:
            masks[self.target.fd] = select.POLLOUT
        elif self.down.is_open:
            of_socket |= select.POLLIN
        # With the server's end behind us and nothing to send, no event is of interest but those
        # that cannot be masked.
        if of_socket or not (self.down.is_open or self.down.write_buffer):
            masks[self.sock.fileno()] = of_socket
        return masks

    def step_up(self, ready: dict[int, int]) -> None:
        if self.up.write_buffer:
            if self.sock.fileno() in ready:
                self.send()
        elif self.source.fd in ready:
            count = self.source.read_into(self.up.chunk)
            if count is None:
                return
            self.up.write_buffer = self.up.chunk[:count]
            self.has_ended = count == 0
            if self.quit_line is not None and count:
                text, self.has_ended = self.quit_line.feed(bytes(self.up.write_buffer))
                self.up.write_buffer = memoryview(text)
            if self.up.write_buffer:
                self.send()
        if self.has_ended and self.up.is_open and not self.up.write_buffer:
            self.half_close()

    def send(self) -> None:
        try:
            self.up.took(self.sock.send(self.up.write_buffer))
        except BlockingIOError:
            pass
        except OSError as error:
            # The server takes no more, but what it sent before may still be here: the other lane
            # goes on to its end.
            self.refusal = error
            self.up.write_buffer = NOTHING
            self.up.is_open = False

    def half_close(self) -> None:
        """Say "no more from me". A connection that is gone already (ENOTCONN) tells the receiving
        lane why.
        """
        self.up.is_open = False
        self.silence.broken()
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def step_down(self, ready: dict[int, int]) -> None:
        if not self.down.write_buffer and self.sock.fileno() in ready:
            try:
                count = self.sock.recv_into(self.down.chunk)
            except BlockingIOError:
                return
            except OSError as error:
                raise self.broken(self.refusal or error) from error
            self.down.write_buffer = self.down.chunk[:count]
            self.down.is_open = count > 0
        if self.down.write_buffer:
            self.down.took(self.target.write(self.down.write_buffer))

    def hung_up(self) -> None:
        """The connection is gone in both directions while the input is silent: what it may still
        say goes nowhere.
        """
        self.up.is_open = False
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.refusal = OSError(code, "")

    # What is said about it

    def outcome(self, ended_by: str) -> Outcome:
        return Outcome(self.up.moved_bytes, self.down.moved_bytes, ended_by)

    def counts(self) -> str:
        return f"after {self.up.moved_bytes} bytes sent and {self.down.moved_bytes} received"

    def broken(self, error: OSError) -> NetworkError:
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            # Never EPIPE in `errno`: click takes that for a closed standard output and would end
            # without a word.
            hint = "The server went away or did not want all of the input; its log may say why"
            return NetworkError(
                f"{self.endpoint} reset the connection {self.counts()}", hint, errno.ECONNRESET
            )
        return NetworkError(
            f"{self.endpoint} failed {self.counts()}: {reason(error)}", "", error.errno
        )

    def silent(self) -> NetworkError:
        what = (
            "took none of the waiting input"
            if self.up.write_buffer
            else "sent nothing more and did not close"
        )
        return NetworkError(
            f"{self.endpoint} {what} for {self.silence.limit_s:g} s, {self.counts()}",
            "Give it a longer --timeout, or look at the server",
            errno.ETIMEDOUT,
        )
