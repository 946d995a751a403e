"""Client side of exec/1, sans-I/O: one command, from the request to its output.

    state       event                                next state
    REQUESTING  STATUS running                       WAITING
    REQUESTING  STATUS ended, output to fetch        FETCHING
    REQUESTING  STATUS ended, no output              FINISHED
    WAITING     STATUS ended                         FETCHING or FINISHED
    FETCHING    the last missing PART                FINISHED
    any         REFUSED                              REFUSED
    any         CHALLENGE                            (unchanged; the next datagram has its cookie)

    REQUESTING sends RUN until the server reports a status. WAITING sends FETCH without parts; the
    server also sends the final STATUS unasked. FETCHING sends FETCH for missing parts, a window at
    a time: half the window after a loss, twice after none. FINISHED sends DONE once.

Facts. Datagrams are lost, duplicated, delayed and forged.
Decision: the nonce is the same in all datagrams of a command, so it runs at most once. Only replies
with a valid MAC to this nonce count; a copy of a reply changes no state. No clock here: the caller
says when a timeout has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastnet.apps.exec import wire
from fastnet.apps.exec.wire import Refusal, Reply, Request, Status, WireError
from fastnet.errors import ConfigError
from fastnet.limits import (
    EXEC_DATAGRAM_BYTES_MAX,
    EXEC_OUTPUT_BYTES_MAX,
    EXEC_PART_BYTES,
    EXEC_PARTS_PER_FETCH,
)

FIRST_WINDOW = 8
"""Parts in the first FETCH."""


@dataclass(frozen=True)
class ExecResult:
    """How a command ended and what it wrote."""

    status: Status
    """State, exit status or signal, duration."""
    output: bytes
    """Standard output."""
    error: bytes
    """Standard error."""


class ExecClientState(Enum):
    """State of a request; the transitions are in the opening of this module."""

    REQUESTING = "requesting"
    WAITING = "waiting"
    FETCHING = "fetching"
    FINISHED = "finished"
    REFUSED = "refused"


class ExecClientProtocol:
    """One command.

    Args:
        argv: Name of the command and its arguments.
        key_id: Id of the key.
        secret: Its secret.
        nonce: 16 random bytes, never used before.
        timestamp_us: Now, in microseconds since 1970.
    Raises:
        ConfigError: The arguments do not fit a datagram.
    """

    def __init__(
        self, argv: list[str], key_id: str, secret: bytes, nonce: bytes, timestamp_us: int
    ) -> None:
        try:
            self._run_body = wire.pack_argv(argv)
        except WireError as error:
            raise ConfigError(f"these arguments cannot be sent: {error}", "Leave it out") from None
        self.key_id = key_id
        self.secret = secret
        self.nonce = nonce
        self.timestamp_us = timestamp_us
        self.sequence = 0
        """Of the last datagram sent."""
        self.cookie = wire.NO_COOKIE
        """Of the last CHALLENGE."""
        self.state = ExecClientState.REQUESTING
        self.status: Status | None = None
        """Of the last STATUS; the first final one stays."""
        self.refusal: Refusal | None = None
        """Of the first REFUSED."""
        self.parts: dict[int, bytes] = {}
        """Received output by part number."""
        self.requested_parts: list[int] = []
        """Of the last FETCH."""
        self.window = FIRST_WINDOW
        """How many parts a FETCH requests."""
        self.is_due = True
        """Whether the next datagram is to be sent immediately: the last reply asks for it."""
        self.acknowledged_sequence = 0
        """The request that the last authentic reply answers."""
        self.saw_unknown_key = False
        """An UNKNOWN_KEY was received, which has no MAC."""
        size = len(self._pack(wire.RUN, self._run_body))
        if size > EXEC_DATAGRAM_BYTES_MAX:
            excess = size - EXEC_DATAGRAM_BYTES_MAX
            raise ConfigError(
                f"the arguments are {excess} bytes too long for a datagram",
                "Send less, or name a file",
            )
        self.sequence = 0

    @property
    def is_over(self) -> bool:
        """Whether there is a result or a refusal."""
        return self.state in (ExecClientState.FINISHED, ExecClientState.REFUSED)

    @property
    def has_ended(self) -> bool:
        """Whether the server has reported how the command ended."""
        return self.status is not None and self.status.state != wire.RUNNING

    @property
    def result(self) -> ExecResult:
        """The result; only when FINISHED."""
        assert self.status is not None
        written = b"".join(self.parts[number] for number in range(self.status.parts))
        output_bytes = self.status.output_bytes
        return ExecResult(self.status, written[:output_bytes], written[output_bytes:])

    def next_datagram(self, timed_out: bool = False) -> bytes:
        """The next datagram to send.

        Args:
            timed_out: The last one brought no reply in time.
        """
        self.is_due = False
        if self.status is None:
            return self._pack(wire.RUN, self._run_body)
        if timed_out and self.requested_parts:
            self.window = max(1, self.window // 2)
        elif self.requested_parts:
            self.window = min(EXEC_PARTS_PER_FETCH, self.window * 2)
        self.requested_parts = self._missing_parts()[: self.window]
        return self._pack(wire.FETCH, wire.pack_part_numbers(self.requested_parts))

    def done_datagram(self) -> bytes:
        """The last datagram: the server need not keep the result."""
        return self._pack(wire.DONE, b"")

    def receive_datagram(self, data: bytes) -> bool:
        """Handle a datagram. Returns whether it is an authentic reply to this request."""
        try:
            reply = wire.unpack_reply(data, self.secret)
            if reply.nonce != self.nonce or not 0 < reply.sequence <= self.sequence:
                return False
            if reply.kind == wire.UNKNOWN_KEY:
                self.saw_unknown_key = True
                return False
            HANDLERS[reply.kind](self, reply)
        except WireError:
            return False
        self.acknowledged_sequence = reply.sequence
        return True

    def _pack(self, kind: int, body: bytes) -> bytes:
        self.sequence += 1
        request = Request(
            kind, self.key_id, self.nonce, self.timestamp_us, self.sequence, self.cookie, body
        )
        return wire.pack_request(request, self.secret)

    def _missing_parts(self) -> list[int]:
        """Part numbers of the result that have not arrived."""
        if self.status is None or not self.has_ended:
            return []
        return [number for number in range(self.status.parts) if number not in self.parts]

    def _on_challenge(self, reply: Reply) -> None:
        """Use the cookie from now on; one of an older reply is stale."""
        if reply.sequence >= self.acknowledged_sequence and len(reply.body) == wire.COOKIE_BYTES:
            self.is_due = self.is_due or reply.body != self.cookie
            self.cookie = reply.body

    def _on_refused(self, reply: Reply) -> None:
        """Any state -> REFUSED; the first refusal stays."""
        self.refusal = self.refusal or wire.unpack_refused(reply.body)
        self.state = ExecClientState.REFUSED

    def _on_status(self, reply: Reply) -> None:
        """REQUESTING, WAITING -> WAITING, FETCHING or FINISHED."""
        status = wire.unpack_status(reply.body)
        if self.has_ended:
            return
        if status.output_bytes + status.error_bytes > EXEC_OUTPUT_BYTES_MAX:
            raise WireError("more output than any server keeps")
        self.status = status
        self.is_due = self.has_ended
        if self.state is not ExecClientState.REFUSED:
            self.state = self._state_of_status()

    def _state_of_status(self) -> ExecClientState:
        if not self.has_ended:
            return ExecClientState.WAITING
        return ExecClientState.FETCHING if self._missing_parts() else ExecClientState.FINISHED

    def _on_part(self, reply: Reply) -> None:
        """FETCHING -> FINISHED with the last missing part."""
        number, data = wire.unpack_part(reply.body)
        if self.status is None or not number < self.status.parts:
            raise WireError("no part of this result")
        size = self.status.output_bytes + self.status.error_bytes
        if len(data) != min(EXEC_PART_BYTES, size - number * EXEC_PART_BYTES):
            raise WireError("a part of another length")
        self.parts[number] = data
        self.is_due = all(number in self.parts for number in self.requested_parts)
        if self.state is ExecClientState.FETCHING and not self._missing_parts():
            self.state = ExecClientState.FINISHED


HANDLERS = {
    wire.CHALLENGE: ExecClientProtocol._on_challenge,
    wire.REFUSED: ExecClientProtocol._on_refused,
    wire.STATUS: ExecClientProtocol._on_status,
    wire.PART: ExecClientProtocol._on_part,
}
"""The method that handles each kind of reply."""
