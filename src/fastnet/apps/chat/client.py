"""Client of a chat: the client protocol on a socket, with input and user interface.

Facts. UDP does not report a dead server, unless its host answers with ICMP; otherwise only a
timeout shows it.
Decision: a request is outstanding at least every third of CHAT_IDLE_TIMEOUT_S, a keepalive if
nothing else. It is retransmitted with exponential backoff; no reply within the timeout ends the
client, and before the first reply a refusal by all addresses does, too (udp/client.py).

States of the client; those of the membership are in client_protocol.py:

    event                                                     from      to
    end of input, /quit                                       READING   DRAINING
    messages accepted and displayed, or accepted and          DRAINING  LEAVING
      LAST_REPLIES_S passed
    bye, or LAST_REPLIES_S passed                             LEAVING   ENDED
"""

from __future__ import annotations

import enum
import errno
import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from fastnet.apps.chat.authentication import ClientAuthenticator
from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent, MembershipState
from fastnet.endpoint import Endpoint
from fastnet.errors import ChatRefused, FastnetError, NetworkError, reason
from fastnet.limits import (
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_IDLE_TIMEOUT_S,
    CHAT_TIMEOUT_S,
    LAST_REPLIES_S,
    READ_BYTES,
)
from fastnet.transport.connect_errors import HINTS
from fastnet.udp.client import DatagramClient, RetransmissionTimer

RETRANSMIT_S = 0.2
RETRANSMIT_MAX_S = 2.0
DATAGRAMS_PER_WAKEUP = 64


class UserInterface(Protocol):
    """Turns bytes of input into lines, and displays events."""

    @property
    def has_input_ended(self) -> bool:
        """Whether the input has ended; no more of it is read."""

    def feed(self, data: bytes) -> list[str]:
        """Complete lines of the input, with `data` appended to it; b"" is its end."""

    def show(self, event: ChatEvent) -> None:
        """Display an event of the chat."""

    def show_notice(self, text: str) -> None:
        """Display a notice of the client itself."""

    def before_message(self) -> None:
        """Called before a line of the input is sent as a message, which will be displayed."""

    def before_wait(self) -> None:
        """Called before the client waits for input and datagrams."""

    def descriptors(self) -> Mapping[int, Callable[[], None]]:
        """More descriptors to poll, and the function to call when one is readable."""


class ClientState(enum.Enum):
    """State of the client; the table of transitions is in the module's docstring."""

    READING = enum.auto()
    DRAINING = enum.auto()
    LEAVING = enum.auto()
    ENDED = enum.auto()


class ChatClient:
    """A member of a chat.

    Args:
        endpoint: Where the server is.
        protocol: The membership.
        interface: Where events are displayed and input is edited.
        input_fd: Descriptor of the input.
        timeout_s: Longest time without a reply to an outstanding request.
        authenticator: Adds and verifies MACs; None: the server has no keys.
    Raises:
        NetworkError: the name has no address.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: ChatClientProtocol,
        interface: UserInterface,
        input_fd: int,
        timeout_s: float = CHAT_TIMEOUT_S,
        authenticator: ClientAuthenticator | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.protocol = protocol
        self.interface = interface
        self.input_fd = input_fd
        self.timeout_s = timeout_s
        self.authenticator = authenticator
        self.state = ClientState.READING
        self._socket = DatagramClient(endpoint)
        self._socket.connect()
        self._retransmission = RetransmissionTimer(RETRANSMIT_S, RETRANSMIT_MAX_S)
        self._send_at_s = 0.0
        """When the next request is due."""
        self._outstanding_since_s: float | None = None
        """When the first request without a reply was sent."""
        self._undisplayed = 0
        """Own messages that have not come back as events."""
        self._state_deadline_s: float | None = None
        """When DRAINING or LEAVING ends without a reply; None while replies are outstanding."""
        self._saw_unauthenticated = False
        """Whether a datagram without a valid MAC came before the first valid one."""

    def close(self) -> None:
        """Close the socket; a member that has not left sends `leave` without waiting for `bye`."""
        if self.protocol.is_joined:
            self.protocol.leave()
        if self.protocol.state is MembershipState.LEAVING:
            with suppress(OSError):
                self._send(self.protocol.next_request())
        self._socket.close()

    def run(self) -> None:
        """Take part in the chat until the input has ended and all messages are accepted.

        Raises:
            NetworkError: the server does not answer.
            ChatRefused: the server refused the name.
            FastnetError: the input cannot be read.
        """
        while not self._has_ended():
            now_s = time.monotonic()
            if self.protocol.is_request_due or now_s >= self._send_at_s:
                self._send_request(now_s)
            self.interface.before_wait()
            self._wait()
            if self.state is ClientState.READING and self.interface.has_input_ended:
                self.state = ClientState.DRAINING
            self._check_timeout()

    def _wait(self) -> None:
        """Wait for datagrams, input and signals until the next request is due; handle them."""
        handlers = {**self.interface.descriptors(), self._socket.fileno(): self._receive_datagrams}
        if self.state is ClientState.READING:
            handlers[self.input_fd] = self._read_input
        timeout_s = max(0.0, self._send_at_s - time.monotonic())
        readable = select.select(list(handlers), [], [], timeout_s)[0]
        for fd, handle in handlers.items():
            if fd in readable:
                handle()

    def _has_ended(self) -> bool:
        """Advance the state as far as possible. Returns whether the client has ended."""
        now_s = time.monotonic()
        if self.state is ClientState.DRAINING and self.protocol.is_idle:
            if self._state_deadline_s is None:
                self._state_deadline_s = now_s + LAST_REPLIES_S
            if not self._undisplayed or now_s >= self._state_deadline_s:
                self.protocol.leave()
                self.state = ClientState.LEAVING
                self._state_deadline_s = now_s + LAST_REPLIES_S
        elif self.state is ClientState.LEAVING and self._state_deadline_s is not None:
            has_left = self.protocol.state is MembershipState.LEFT
            if has_left or now_s >= self._state_deadline_s:
                self.state = ClientState.ENDED
        return self.state is ClientState.ENDED

    # Datagrams

    def _send(self, body: bytes) -> None:
        """Raises OSError."""
        self._socket.send(self.authenticator.authenticate(body) if self.authenticator else body)

    def _send_request(self, now_s: float) -> None:
        """Send the outstanding request, or a keepalive. Raises NetworkError."""
        if now_s >= self._send_at_s:
            self.protocol.wait_s = 0.0
        try:
            self._send(self.protocol.next_request())
        except OSError as error:
            self._handle_socket_error(error)
        if self._outstanding_since_s is None:
            self._outstanding_since_s = now_s
            self._retransmission.reset()
        self._send_at_s = now_s + self._retransmission.timeout_s()
        self._retransmission.back_off()

    def _receive_datagrams(self) -> None:
        """Handle what has arrived, and acknowledge it once. Raises NetworkError, ChatRefused."""
        acknowledged, has_received = self.protocol.last_event, False
        for _ in range(DATAGRAMS_PER_WAKEUP):
            try:
                datagram = self._socket.receive(CHAT_DATAGRAM_BYTES_MAX + 1)
            except OSError as error:
                self._handle_socket_error(error)
                break
            if datagram is None:
                break
            events = self._receive_datagram(datagram)
            if events is None:
                continue
            has_received = self._socket.has_received = True
            for event in events:
                self._handle_event(event)
        if has_received:
            self._schedule_next_request(acknowledged)

    def _receive_datagram(self, datagram: bytes) -> list[ChatEvent] | None:
        """The events of a datagram; None if it is not the server's, or not valid."""
        if self.authenticator is None:
            return self.protocol.receive_datagram(datagram)
        body = self.authenticator.verify(datagram)
        if body == b"":
            self.protocol.is_request_due = True
            return []
        self._saw_unauthenticated |= body is None and not self._socket.has_received
        return self.protocol.receive_datagram(body) if body else None

    def _schedule_next_request(self, acknowledged: int) -> None:
        """After a reply: acknowledge events, and set when the next request is due."""
        self._outstanding_since_s = None
        self._retransmission.reset()
        if self.protocol.session:
            self._acknowledge(acknowledged)
        if self.protocol.wait_s:
            self._send_at_s = time.monotonic() + self.protocol.wait_s
        elif self.protocol.is_idle:
            self._send_at_s = time.monotonic() + CHAT_IDLE_TIMEOUT_S / 3

    def _acknowledge(self, acknowledged: int) -> None:
        """Acknowledge new events, and duplicates: their acknowledgement may have been lost."""
        if self.protocol.last_event != acknowledged or self.protocol.saw_duplicate:
            self.protocol.saw_duplicate = False
            with suppress(OSError):
                self._send(self.protocol.acknowledgement())

    def _handle_event(self, event: ChatEvent) -> None:
        """Raises ChatRefused."""
        if event.kind == "refused":
            raise ChatRefused(
                f"{self.endpoint} refused the name {event.sender}: {event.text}",
                "Choose another --name",
            )
        if event.kind == "message" and event.sender == self.protocol.name:
            self._undisplayed = max(0, self._undisplayed - 1)
        self.interface.show(event)

    def _handle_socket_error(self, error: OSError) -> None:
        """Fall back to the next address, or count a lost datagram. Raises NetworkError."""
        if self._socket.handle_error(error):
            self.protocol.is_request_due = True

    def _check_timeout(self) -> None:
        """Raises NetworkError when a request has had no reply for too long."""
        since_s = self._outstanding_since_s
        if since_s is None or time.monotonic() - since_s < self.timeout_s:
            return
        message = f"{self.endpoint}: no answer within {self.timeout_s:g} s"
        if unaccepted := len(self.protocol.unaccepted):
            verb = "was" if unaccepted == 1 else "were"
            message += f"; {unaccepted} message{'s' * (unaccepted > 1)} {verb} not accepted"
        hint = HINTS[errno.ETIMEDOUT]
        if self.authenticator and self._saw_unauthenticated:
            message += "; the server that answers has another key"
            hint = "Check --key, and that the server has the same line"
        elif not self._socket.has_received:
            keys = "client and server have different keys" if self.authenticator else ""
            hint += f"; or {keys or 'the server requires a --key'}"
        raise NetworkError(message, hint, errno.ETIMEDOUT)

    # Input

    def _read_input(self) -> None:
        """Handle lines of the input. Raises FastnetError."""
        try:
            data = os.read(self.input_fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise FastnetError(f"cannot read standard input: {reason(error)}") from error
            data = b""  # the terminal hung up
        for line in self.interface.feed(data):
            self._handle_line(line)

    def _handle_line(self, line: str) -> None:
        """A line is a message; after a slash it is a command, after two a message with one."""
        if line.startswith("/") and not line.startswith("//"):
            self._run_command(line)
        elif line:
            self.interface.before_message()
            before = len(self.protocol.unaccepted)
            self.protocol.queue_message(line.removeprefix("/") if line.startswith("//") else line)
            self._undisplayed += len(self.protocol.unaccepted) - before

    def _run_command(self, line: str) -> None:
        if line == "/who":
            self.protocol.request_who()
        elif line == "/quit":
            self.state = ClientState.DRAINING
        else:
            self.interface.show_notice(
                "commands are /who and /quit; // sends a line that begins with a slash"
            )
