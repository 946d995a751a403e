"""The client's side of one command: datagrams out, datagrams in, and what became of it. No socket,
no
clock.

    asking      RUN, again and again, until the server says how the command is; a CHALLENGE gives the cookie for the next one
    waiting     FETCH without parts, to be told when the command has ended; the server also says so by itself
    fetching    FETCH for parts that are missing, a window at a time: half of it after a loss, twice after none
    over        a result, or a refusal

Whatever is lost, doubled, late or forged on the way, the nonce stays the same, so the command runs
once at most. Only authentic replies to our nonce count; of a reply that is a repetition, nothing is
new.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    status: Status
    output: bytes
    error: bytes


class Asking:
    """One command. nonce: 16 random bytes, never used before. asked_us: now, in microseconds since
    1970.

    Raises ConfigError for arguments that no datagram can carry.
    """

    def __init__(
        self, words: list[str], key_id: str, secret: bytes, nonce: bytes, asked_us: int
    ) -> None:
        try:
            self._run_body = wire.words_body(words)
        except WireError as error:
            raise ConfigError(f"these arguments cannot be sent: {error}", "Leave it out") from None
        self.key_id = key_id
        self.secret = secret
        self.nonce = nonce
        self.asked_us = asked_us
        self.sequence = 0
        self.cookie = wire.NO_COOKIE
        self.status: Status | None = None
        self.refusal: Refusal | None = None
        self.parts: dict[int, bytes] = {}
        self.wanted: list[int] = []
        self.window = FIRST_WINDOW
        self.is_due = True
        """Whether the next datagram should go at once, because the last reply asks for it."""
        self.heard_sequence = 0
        """The request that the last authentic reply answers."""
        self.saw_stranger = False
        """Something, unsigned, said that it does not know our key."""
        size = len(self._pack(wire.RUN, self._run_body))
        if size > EXEC_DATAGRAM_BYTES_MAX:
            many = size - EXEC_DATAGRAM_BYTES_MAX
            raise ConfigError(
                f"the arguments are {many} bytes too long for a datagram",
                "Send less, or name a file",
            )
        self.sequence = 0

    @property
    def has_ended(self) -> bool:
        """Whether the server has said how the command ended."""
        return self.status is not None and self.status.state != wire.RUNNING

    @property
    def is_over(self) -> bool:
        return self.refusal is not None or (self.has_ended and not self._missing())

    @property
    def result(self) -> Result:
        """Only when it is over and not refused."""
        assert self.status is not None
        written = b"".join(self.parts[number] for number in range(self.status.parts))
        return Result(
            self.status, written[: self.status.output_bytes], written[self.status.output_bytes :]
        )

    def next(self, is_repetition: bool = False) -> bytes:
        """The next datagram. is_repetition: the last one brought nothing in time."""
        self.is_due = False
        if self.status is None:
            return self._pack(wire.RUN, self._run_body)
        if is_repetition and self.wanted:
            self.window = max(1, self.window // 2)
        elif self.wanted:
            self.window = min(EXEC_PARTS_PER_FETCH, self.window * 2)
        self.wanted = self._missing()[: self.window]
        return self._pack(wire.FETCH, wire.wanted_body(self.wanted))

    def thanks(self) -> bytes:
        """The last datagram: the server need not keep the result."""
        return self._pack(wire.DONE, b"")

    def receive_datagram(self, datagram: bytes) -> bool:
        """Take a datagram. True if it is an authentic reply to one of ours."""
        try:
            reply = wire.unpack_reply(datagram, self.secret)
            if reply.nonce != self.nonce or not 0 < reply.sequence <= self.sequence:
                return False
            if reply.kind == wire.STRANGER:
                self.saw_stranger = True
                return False
            READERS[reply.kind](self, reply)
        except WireError:
            return False
        self.heard_sequence = reply.sequence
        return True

    def _pack(self, kind: int, body: bytes) -> bytes:
        self.sequence += 1
        request = Request(
            kind, self.key_id, self.nonce, self.asked_us, self.sequence, self.cookie, body
        )
        return wire.pack_request(request, self.secret)

    def _missing(self) -> list[int]:
        if self.status is None or not self.has_ended:
            return []
        return [number for number in range(self.status.parts) if number not in self.parts]

    def _challenged(self, reply: Reply) -> None:
        if reply.sequence >= self.heard_sequence and len(reply.body) == wire.COOKIE_BYTES:
            self.is_due = self.is_due or reply.body != self.cookie
            self.cookie = reply.body

    def _refused(self, reply: Reply) -> None:
        self.refusal = self.refusal or wire.read_refused(reply.body)

    def _told(self, reply: Reply) -> None:
        status = wire.read_status(reply.body)
        if self.has_ended:
            return
        if status.output_bytes + status.error_bytes > EXEC_OUTPUT_BYTES_MAX:
            raise WireError("more output than any server keeps")
        self.status = status
        self.is_due = self.has_ended

    def _part(self, reply: Reply) -> None:
        number, data = wire.read_part(reply.body)
        if self.status is None or not number < self.status.parts:
            raise WireError("no part of this result")
        rest = self.status.output_bytes + self.status.error_bytes - number * EXEC_PART_BYTES
        if len(data) != min(EXEC_PART_BYTES, rest):
            raise WireError("a part of another length")
        self.parts[number] = data
        self.is_due = all(number in self.parts for number in self.wanted)


READERS = {
    wire.CHALLENGE: Asking._challenged,
    wire.REFUSED: Asking._refused,
    wire.STATUS: Asking._told,
    wire.PART: Asking._part,
}
