"""A member of a chat on a socket: lines of standard input are messages, events are shown as they
come.

Facts. UDP says nothing when a server dies, unless its host answers for it; silence is all there may
be.
Decision: something is always owed within a third of CHAT_SILENT_S, a sign of life if nothing else.
What is owed is sent again, at longer and longer intervals; nothing heard for CHAT_TIMEOUT_S is the
end, and before the first answer a refusal is, too. At the end of input the client waits until all
it said is on its way to everybody, and leaves.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from fastnet.apps.chat.authentication import Seal
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.endpoint import Endpoint
from fastnet.errors import ChatRefused, FastnetError, NetworkError, reason
from fastnet.limits import (
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_SILENT_S,
    CHAT_TIMEOUT_S,
    LAST_REPLIES_S,
    READ_BYTES,
)
from fastnet.transport.connect import dial_datagram
from fastnet.transport.connect_errors import HINTS
from fastnet.transport.resolve import Address, resolve

REST_S = 0.2
REST_MAX_S = 2.0
TURN_DATAGRAMS = 64

Show = Callable[[Event], None]


class Input(Protocol):
    """What was read, as lines."""

    has_ended: bool

    def feed(self, data: bytes) -> list[str]:
        """b"" is the end."""


class Lines:
    """Input that comes in lines, as from a pipe."""

    def __init__(self) -> None:
        self.has_ended = False
        self.text = b""

    def feed(self, data: bytes) -> list[str]:
        self.text += data
        if not data:
            self.has_ended = True
            self.text += b"\n" if self.text else b""
        elif len(self.text) > READ_BYTES and b"\n" not in self.text:
            self.text += b"\n"
        *lines, self.text = self.text.split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


class Member:
    """Somebody in a chat.

    show: takes events. input_fd: where lines are read. on_command: takes lines that begin with a
    slash. seal: with a key.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        talking: Talking,
        show: Show,
        input_fd: int,
        on_command: Callable[[str], None],
        timeout_s: float = CHAT_TIMEOUT_S,
        seal: Seal | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.talking = talking
        self.show = show
        self.input_fd = input_fd
        self.on_command = on_command
        self.timeout_s = timeout_s
        self.seal = seal
        self.addresses: deque[Address] = deque(resolve(endpoint))
        self.sock = self.open()
        self.lines: Input = Lines()
        self.also: dict[int, Callable[[], None]] = {}
        """Other descriptors, and what to call when one is readable."""
        self.has_ended = False
        self.has_heard = False
        self.saw_unsigned = False
        self.unseen = 0
        self.owed_since_s: float | None = None
        self.send_s = 0.0
        self.rest_s = REST_S
        self.leave_by_s = float("inf")
        self.on_line: Callable[[], None] = lambda: None
        """Called before a message is sent."""
        self.on_rest: Callable[[], None] = lambda: None
        """Called before it waits."""

    def open(self) -> socket.socket:
        sock = dial_datagram(self.endpoint, self.addresses)
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Leave without waiting for an answer, if that has not been said."""
        if self.talking.is_in and not self.talking.has_left:
            self.talking.is_leaving = True
            with suppress(OSError):
                self.put(self.talking.next())
        self.sock.close()

    def put(self, data: bytes) -> None:
        """Raises OSError."""
        self.sock.send(self.seal.close(data) if self.seal else data)

    def run(self) -> None:
        """Until the input has ended and everything is said. Raises NetworkError, ChatRefused,
        FastnetError.
        """
        while not self.is_over():
            now_s = time.monotonic()
            if self.talking.is_due or now_s >= self.send_s:
                self.send(now_s)
            self.on_rest()
            watched = [self.sock.fileno(), *self.also, *([] if self.has_ended else [self.input_fd])]
            ready = select.select(watched, [], [], max(0.0, self.send_s - time.monotonic()))[0]
            for fd in self.also.keys() & set(ready):
                self.also[fd]()
            if self.sock.fileno() in ready:
                self.take_some()
            if self.input_fd in ready:
                self.read()
            self.has_ended |= self.lines.has_ended
            self.check_patience()

    def is_over(self) -> bool:
        """Whether the member has left. Begins to leave when there is nothing left to say or
        to see.
        """
        talking = self.talking
        if not self.has_ended:
            return False
        if self.leave_by_s == float("inf") and talking.is_idle:
            self.leave_by_s = time.monotonic() + LAST_REPLIES_S
        if (
            not talking.is_leaving
            and talking.is_idle
            and (not self.unseen or time.monotonic() >= self.leave_by_s)
        ):
            talking.is_leaving = talking.is_due = True
            self.leave_by_s = time.monotonic() + LAST_REPLIES_S
        return talking.has_left or (talking.is_leaving and time.monotonic() >= self.leave_by_s)

    def send(self, now_s: float) -> None:
        """What is owed, or a sign of life."""
        talking = self.talking
        if talking.wait_s and now_s >= self.send_s:
            talking.wait_s = 0.0
        try:
            self.put(talking.next())
        except BlockingIOError:
            pass
        except OSError as error:
            self.failed(error)
        if self.owed_since_s is None:
            self.owed_since_s, self.rest_s = now_s, REST_S
        self.send_s = now_s + self.rest_s
        self.rest_s = min(REST_MAX_S, 2 * self.rest_s)

    def take_some(self) -> None:
        """Hear what has come, and acknowledge it once."""
        got, heard = self.talking.got, False
        for _ in range(TURN_DATAGRAMS):
            try:
                datagram = self.sock.recv(CHAT_DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                break
            except OSError as error:
                self.failed(error)
                break
            events = self.receive_datagram(datagram)
            if events is None:
                continue
            heard = self.has_heard = True
            for event in events:
                self.happened(event)
        if not heard:
            return
        self.owed_since_s, self.rest_s = None, REST_S
        if self.talking.is_in:
            self.acknowledge(got)
        if self.talking.wait_s:
            self.send_s = time.monotonic() + self.talking.wait_s
        elif self.talking.is_idle:
            self.send_s = time.monotonic() + CHAT_SILENT_S / 3

    def receive_datagram(self, datagram: bytes) -> list[Event] | None:
        """What a datagram tells; None if it is not the server's, or means nothing."""
        if self.seal is None:
            return self.talking.receive_datagram(datagram)
        data = self.seal.open(datagram)
        if data == b"":
            self.talking.is_due = True
            return []
        self.saw_unsigned |= data is None and not self.has_heard
        return self.talking.receive_datagram(data) if data else None

    def acknowledge(self, got: int) -> None:
        """Nothing new may be an event that came twice, because its acknowledgement was lost: that
        costs one `here` more.
        """
        if self.talking.got != got or self.talking.saw_repetition:
            self.talking.saw_repetition = False
            with suppress(OSError):
                self.put(self.talking.acknowledgement())

    def happened(self, event: Event) -> None:
        if event.kind == "refused":
            raise ChatRefused(
                f"{self.endpoint} refused the name {event.who}: {event.text}",
                "Choose another --name",
            )
        if event.kind == "said" and event.who == self.talking.name:
            self.unseen = max(0, self.unseen - 1)
        self.show(event)

    def read(self) -> None:
        """Take lines of the input."""
        try:
            data = os.read(self.input_fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise FastnetError(f"cannot read standard input: {reason(error)}") from error
            data = b""  # the terminal hung up
        for line in self.lines.feed(data):
            self.say(line)

    def say(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            self.on_command(line)
        elif line:
            self.on_line()
            before = len(self.talking.waiting)
            self.talking.say(line.removeprefix("/") if line.startswith("//") else line)
            self.unseen += len(self.talking.waiting) - before

    def failed(self, error: OSError) -> None:
        """Before the first answer: the next address, or the end. Later: a loss like others. Raises
        NetworkError.
        """
        if self.has_heard:
            return
        if error.errno == errno.ECONNREFUSED and self.addresses:
            self.sock.close()
            self.sock = self.open()
            self.talking.is_due = True
            return
        hint = HINTS.get(error.errno or 0, "")
        raise NetworkError(f"{self.endpoint}: {reason(error)}", hint, error.errno) from error

    def check_patience(self) -> None:
        """Raises NetworkError when nothing was heard for too long."""
        if self.owed_since_s is None or time.monotonic() - self.owed_since_s < self.timeout_s:
            return
        unsaid = len(self.talking.waiting)
        lost = f"; {unsaid} message{'s were' if unsaid > 1 else ' was'} not taken" if unsaid else ""
        why = f"{self.endpoint}: no answer within {self.timeout_s:g} s{lost}"
        hint = HINTS[errno.ETIMEDOUT]
        if not self.has_heard:
            hint += (
                "; or both sides have not the same --key"
                if self.seal
                else "; or the server wants a --key"
            )
        if self.seal and self.saw_unsigned:
            why, hint = (
                f"{why}; what answers there has not the key",
                "Check --key, and that the server has the same line",
            )
        raise NetworkError(why, hint, errno.ETIMEDOUT)
