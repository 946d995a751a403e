"""Ask a server to run a command, and wait for what comes of it.

Facts. A datagram may be lost, so silence means to ask again; a network that loses them for want of
room needs to be asked less often, so each rest is twice the last one, with some chance in it, and
never shorter than two round trips. A server that is restarted refuses datagrams for a moment
(ECONNREFUSED).
Decision: a refusal before the first authentic reply is the end, or the next address of the name;
later it is a loss like others. A client that hears nothing for `timeout_s` gives up. Until the
server has taken the command that counts from the start, because an old request would be refused as
stale.
"""

from __future__ import annotations

import errno
import random
import secrets
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

from fastnet.apps.exec import wire
from fastnet.apps.exec.client_protocol import Asking, Result
from fastnet.apps.exec.wire import Refusal
from fastnet.endpoint import Endpoint
from fastnet.errors import ExecDenied, ExecLost, FastnetError, NetworkError, reason
from fastnet.limits import (
    EXEC_CLOCK_S,
    EXEC_DATAGRAM_BYTES_MAX,
    EXEC_REST_MAX_S,
    EXEC_REST_S,
    EXEC_TIMEOUT_S,
)
from fastnet.transport.connect import dial_datagram
from fastnet.transport.connect_errors import HINTS
from fastnet.transport.resolve import Address, resolve


@dataclass(frozen=True)
class Key:
    """One line of a file of keys."""

    id: str
    secret: bytes


def run(
    endpoint: Endpoint, words: list[str], key: Key, timeout_s: float = EXEC_TIMEOUT_S
) -> Result:
    """Run a command, named by the first word, on a server, and return how it ended and what it
    wrote.

    Raises ExecDenied (the server said no), ExecLost (taken, and its outcome is unknown),
    NetworkError (nobody answers), ConfigError (arguments that cannot be sent).
    """
    asking = Asking(
        words, key.id, key.secret, secrets.token_bytes(wire.NONCE_BYTES), time.time_ns() // 1000
    )
    conversation = Conversation(endpoint, asking, timeout_s)
    try:
        conversation.run()
    finally:
        conversation.sock.close()
    if asking.refusal is not None:
        raise refused(asking, endpoint, asking.refusal)
    return asking.result


class Conversation:
    """A connected UDP socket around one Asking."""

    def __init__(self, endpoint: Endpoint, asking: Asking, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.asking = asking
        self.timeout_s = timeout_s
        self.addresses: deque[Address] = deque(resolve(endpoint))
        self.sock = self.open()
        self.started_s = self.heard_s = time.monotonic()
        self.has_heard = False
        self.sent_s = self.started_s
        self.round_trip_s = 0.0

    def open(self) -> socket.socket:
        sock = dial_datagram(self.endpoint, self.addresses)
        sock.setblocking(False)
        return sock

    def run(self) -> None:
        """Until it is over. Raises NetworkError and ExecLost."""
        asking, silent = self.asking, 0
        while not asking.is_over:
            self.send(asking.next(is_repetition=silent > 0))
            rest_s = max(EXEC_REST_S * 2 ** min(silent, 10), 2 * self.round_trip_s)
            heard = self.listen(min(rest_s, EXEC_REST_MAX_S) * random.uniform(0.8, 1.2))
            has_progressed = heard and bool(asking.wanted)
            silent = 0 if asking.is_due else 1 if has_progressed else silent + 1
            self.check_patience()
        if asking.refusal is None:
            self.send(asking.thanks())

    def listen(self, rest_s: float) -> bool:
        """Until the rest is over or the next datagram is due. True if anything authentic came."""
        heard = False
        end_s = time.monotonic() + rest_s
        while not (self.asking.is_due or self.asking.is_over):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self.sock], [], [], left_s)[0]:
                break
            try:
                datagram = self.sock.recv(EXEC_DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                continue
            except OSError as error:
                self.failed(error)
                continue
            if self.asking.receive_datagram(datagram):
                heard = self.has_heard = True
                self.heard_s = time.monotonic()
                if self.asking.heard_sequence == self.asking.sequence:
                    self.round_trip_s = self.heard_s - self.sent_s
        return heard

    def send(self, datagram: bytes) -> None:
        self.sent_s = time.monotonic()
        try:
            self.sock.send(datagram)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """The next address, or the end, or a loss like others. Raises NetworkError."""
        if self.has_heard:
            return
        if error.errno == errno.ECONNREFUSED and self.addresses:
            self.sock.close()
            self.sock = self.open()
            self.asking.is_due = True
            return
        hint = HINTS.get(error.errno or 0, "")
        raise NetworkError(f"{self.endpoint}: {reason(error)}", hint, error.errno) from error

    def check_patience(self) -> None:
        """Raises NetworkError or ExecLost when nothing was heard for too long."""
        asking = self.asking
        since_s = self.started_s if asking.status is None else self.heard_s
        if asking.is_over or time.monotonic() - since_s < self.timeout_s:
            return
        silence = f"{self.endpoint}: no answer within {self.timeout_s:g} s"
        if asking.status is not None:
            raise ExecLost(
                f"{silence} after the server had taken the command; its outcome is unknown", LOOK
            )
        if asking.saw_stranger:
            hint = "Check --key, and that both sides have the same line in their files"
            raise NetworkError(
                f"{silence}; something there does not know the key {asking.key_id!r}", hint
            )
        if asking.cookie != wire.NO_COOKIE:
            raise NetworkError(
                f"{silence} to a command that it may have taken", LOOK, errno.ETIMEDOUT
            )
        raise NetworkError(silence, HINTS[errno.ETIMEDOUT], errno.ETIMEDOUT)


LOOK = "The server's log says whether it ran and how it ended"


def refused(asking: Asking, endpoint: Endpoint, refusal: Refusal) -> FastnetError:
    """A refusal as an error."""
    if refusal.code == "lost" or asking.status is not None:
        return ExecLost(
            f"{endpoint} took the command and knows no more of it: it restarted, or it is too late",
            LOOK,
        )
    text = refusal.text
    if refusal.code == "clock":
        ahead_s = time.time() - refusal.number / 1e6
        side = "ahead of" if ahead_s > 0 else "behind"
        text = f"this host's clock is {abs(ahead_s):.0f} s {side} the server's, and {EXEC_CLOCK_S:g} s are allowed"
    return ExecDenied(
        f"{endpoint} refused: {text}", REFUSED_HINTS.get(refusal.code, ""), refusal.code
    )


REFUSED_HINTS = {
    "command": "The server's allow file names what may run",
    "arguments": "The server's allow file says what they must look like",
    "key": "The server's allow file says who may; --key chooses another key",
    "clock": "Set the clocks; timedatectl says whether they are kept right",
    "busy": "Try again when it is done",
    "stopping": "Try again when it is back",
    "broken": "Its log says why",
}
