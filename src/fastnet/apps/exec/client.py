"""Client of exec/1: runs a command on a server and waits for its result.

Facts. A server that is restarted refuses datagrams for a moment (ECONNREFUSED). An old request is
refused as stale.
Decision: address fallback and retransmission are those of udp/client.py. A client that receives no
reply for `timeout_s` gives up; until the server has reported a status that time counts from the
start, because the request would become stale.
"""

from __future__ import annotations

import errno
import secrets
import time
from dataclasses import dataclass

from fastnet.apps.exec import wire
from fastnet.apps.exec.client_protocol import ExecClientProtocol, ExecResult
from fastnet.apps.exec.wire import Refusal
from fastnet.endpoint import Endpoint
from fastnet.errors import ExecDenied, ExecLost, FastnetError, NetworkError
from fastnet.limits import (
    EXEC_CLOCK_S,
    EXEC_DATAGRAM_BYTES_MAX,
    EXEC_RTO_MAX_S,
    EXEC_RTO_S,
    EXEC_TIMEOUT_S,
)
from fastnet.transport.connect_errors import HINTS
from fastnet.udp.client import DatagramClient, RetransmissionTimer

JITTER = 0.2
"""Random part of each retransmission timeout."""


@dataclass(frozen=True)
class ExecKey:
    """One line of a keys file."""

    id: str
    """Sent in clear."""
    secret: bytes
    """Makes the MACs."""


def run(
    endpoint: Endpoint, argv: list[str], key: ExecKey, timeout_s: float = EXEC_TIMEOUT_S
) -> ExecResult:
    """Run a command on a server and return its result.

    Args:
        endpoint: Where the server is.
        argv: Name of the command in the server's allow file, and its arguments.
        key: Authenticates the request.
        timeout_s: Longest time without a reply.
    Returns:
        How the command ended and what it wrote.
    Raises:
        ExecDenied: The server refused.  ExecLost: It admitted the command; the outcome is unknown.
        NetworkError: No reply.  ConfigError: The arguments do not fit a datagram.
    """
    nonce = secrets.token_bytes(wire.NONCE_BYTES)
    protocol = ExecClientProtocol(argv, key.id, key.secret, nonce, time.time_ns() // 1000)
    client = ExecClient(endpoint, protocol, timeout_s)
    try:
        client.run()
    finally:
        client.close()
    if protocol.refusal is not None:
        raise refusal_error(protocol, endpoint, protocol.refusal)
    return protocol.result


class ExecClient:
    """A datagram socket and timers around one ExecClientProtocol."""

    def __init__(self, endpoint: Endpoint, protocol: ExecClientProtocol, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.protocol = protocol
        self.timeout_s = timeout_s
        self.client = DatagramClient(endpoint)
        self.timer = RetransmissionTimer(EXEC_RTO_S, EXEC_RTO_MAX_S, JITTER)
        self.started_s = self.last_reply_s = self.last_sent_s = time.monotonic()

    def run(self) -> None:
        """Send and receive until the protocol is over. Raises NetworkError and ExecLost."""
        protocol, timer = self.protocol, self.timer
        self.client.connect()
        while not protocol.is_over:
            self.send(protocol.next_datagram(timed_out=timer.expiries > 0))
            has_reply = self.receive_until_due(timer.timeout_s())
            if protocol.is_due:
                timer.reset()
            elif has_reply and protocol.requested_parts:
                timer.reset(expiries=1)  # some parts of the window arrived, others were lost
            else:
                timer.back_off()
            self.check_timeout()
        if protocol.refusal is None:
            self.send(protocol.done_datagram())

    def receive_until_due(self, timeout_s: float) -> bool:
        """Receive until the timeout, or until the next datagram is due.

        Returns whether an authentic reply arrived.
        """
        protocol, has_reply = self.protocol, False
        end_s = time.monotonic() + timeout_s
        while not (protocol.is_due or protocol.is_over):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not self.client.wait(left_s):
                break
            try:
                datagram = self.client.receive(EXEC_DATAGRAM_BYTES_MAX + 1)
            except OSError as error:
                self.handle_error(error)
                continue
            if datagram is not None and protocol.receive_datagram(datagram):
                has_reply = self.client.has_received = True
                self.last_reply_s = time.monotonic()
                if protocol.acknowledged_sequence == protocol.sequence:
                    self.timer.round_trip_s = self.last_reply_s - self.last_sent_s
        return has_reply

    def send(self, datagram: bytes) -> None:
        """Send a datagram, or lose it. Raises NetworkError before the first reply."""
        self.last_sent_s = time.monotonic()
        try:
            self.client.send(datagram)
        except OSError as error:
            self.handle_error(error)

    def handle_error(self, error: OSError) -> None:
        """Send again immediately if there is another address. Raises NetworkError."""
        if self.client.handle_error(error):
            self.protocol.is_due = True

    def check_timeout(self) -> None:
        """Raises NetworkError or ExecLost when no reply arrived for timeout_s."""
        protocol = self.protocol
        since_s = self.started_s if protocol.status is None else self.last_reply_s
        if protocol.is_over or time.monotonic() - since_s < self.timeout_s:
            return
        silence = f"{self.endpoint}: no answer within {self.timeout_s:g} s"
        if protocol.status is not None:
            message = f"{silence} after the server admitted the command; its outcome is unknown"
            raise ExecLost(message, LOG_HINT)
        if protocol.saw_unknown_key:
            hint = "Check --key, and that both sides have the same line in their files"
            message = f"{silence}; a server there does not know the key {protocol.key_id!r}"
            raise NetworkError(message, hint)
        if protocol.cookie != wire.NO_COOKIE:
            message = f"{silence} to a command that it may have admitted"
            raise NetworkError(message, LOG_HINT, errno.ETIMEDOUT)
        raise NetworkError(silence, HINTS[errno.ETIMEDOUT], errno.ETIMEDOUT)

    def close(self) -> None:
        """Close the socket."""
        self.client.close()


LOG_HINT = "The server's log says whether it ran and how it ended"


def refusal_error(
    protocol: ExecClientProtocol, endpoint: Endpoint, refusal: Refusal
) -> FastnetError:
    """A refusal as an error: ExecLost when the command may have run, else ExecDenied."""
    if refusal.code == "lost" or protocol.status is not None:
        message = f"{endpoint} admitted the command and has no record of it: it restarted, or the"
        return ExecLost(f"{message} result has expired", LOG_HINT)
    text = refusal.text
    if refusal.code == "clock":
        ahead_s = time.time() - refusal.number / 1e6
        side = "ahead of" if ahead_s > 0 else "behind"
        text = f"this host's clock is {abs(ahead_s):.0f} s {side} the server's"
        text += f", and {EXEC_CLOCK_S:g} s are allowed"
    hint = REFUSED_HINTS.get(refusal.code, "")
    return ExecDenied(f"{endpoint} refused: {text}", hint, refusal.code)


REFUSED_HINTS = {
    "command": "The server's allow file names what may run",
    "arguments": "The server's allow file says what they must look like",
    "key": "The server's allow file names the keys of each command; --key chooses another key",
    "clock": "Set the clocks; timedatectl says whether they are synchronized",
    "busy": "Try again when it is done",
    "stopping": "Try again when it is back",
    "broken": "Its log says why",
}
