"""Wire format of exec/1, between `fastnet exec run` and `fastnet exec serve`.

Bytes in, values out; nothing here knows a socket or a clock. Numbers are unsigned and big-endian.
A request, client to server:

    offset  bytes
    0       4      magic "FNX1"
    4       1      kind: 1 RUN, 2 FETCH, 3 DONE
    5       1      k, length of the key id, 1 to 32
    6       k      key id, ASCII letters, digits and _ . @ -
    6+k     16     nonce: random, one a command, the same in all its datagrams
    22+k    8      timestamp: when the client made the nonce, microseconds since 1970
    30+k    4      sequence: 1 for the first datagram of a command, higher in each later one,
                   retransmissions too
    34+k    16     cookie: from the server's last CHALLENGE; zeros before
    50+k    n      body
    50+k+n  32     MAC: HMAC-SHA-256 with the secret of the key over everything before

    RUN    1 byte: number of strings in argv; each 2 bytes length, then UTF-8 without NUL. The first
           is the command's name
    FETCH  1 byte: number of parts requested, 0 to 32; each 4 bytes. 0 requests the status only
    DONE   empty: the client has the result, the server may drop it

A reply, server to client:

    0       4      magic "FNX1"
    4       1      kind: 129 CHALLENGE, 130 REFUSED, 131 STATUS, 132 PART, 133 UNKNOWN_KEY
    5       16     nonce of the request
    21      4      sequence of the last request received
    25      n      body
    25+n    32     MAC as above; UNKNOWN_KEY has none

    CHALLENGE    16 bytes: the cookie of this address. Shorter than any request
    REFUSED      1 byte code; 8 bytes number, see below; the rest UTF-8 text, at most 200 bytes
    STATUS       1 byte state: 1 running, 2 exited, 3 killed, 4 timed out, 5 not started; 1 byte
                 flags: 1 standard output cut, 2 standard error cut; 4 bytes exit status, signal or
                 errno; 4 bytes length of standard output, 4 of standard error; 8 bytes duration in
                 microseconds
    PART         4 bytes number from 0; then bytes [1152 * number, 1152 * number + 1152) of standard
                 output followed by standard error
    UNKNOWN_KEY  empty: no key of this server authenticates the request. It has no MAC itself, so a
                 client shows it as a hint and keeps waiting

    Codes of REFUSED: 1 command, 2 arguments, 3 key, 4 clock (number: the server's time in
    microseconds), 5 busy, 6 lost, 7 reused nonce, 8 stopping, 9 broken
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX, EXEC_PART_BYTES, EXEC_PARTS_PER_FETCH
from fastnet.security.mac import KEY_ID, MAC_BYTES, is_authentic, mac

MAGIC = b"FNX1"
RUN, FETCH, DONE = 1, 2, 3
CHALLENGE, REFUSED, STATUS, PART, UNKNOWN_KEY = 129, 130, 131, 132, 133
RUNNING, EXITED, KILLED, TIMED_OUT, UNSTARTED = 1, 2, 3, 4, 5
OUTPUT_CUT, ERROR_CUT = 1, 2

CODES = {
    1: "command",
    2: "arguments",
    3: "key",
    4: "clock",
    5: "busy",
    6: "lost",
    7: "reused",
    8: "stopping",
    9: "broken",
}
"""Codes of REFUSED."""

CODE_OF = {name: code for code, name in CODES.items()}

NONCE_BYTES = 16
COOKIE_BYTES = 16
NO_COOKIE = bytes(COOKIE_BYTES)
REFUSAL_TEXT_BYTES_MAX = 200

HEAD = struct.Struct("!4sBB")
REQUEST = struct.Struct(f"!{NONCE_BYTES}sQI{COOKIE_BYTES}s")
REPLY = struct.Struct(f"!4sB{NONCE_BYTES}sI")
REFUSED_BODY = struct.Struct("!BQ")
STATUS_BODY = struct.Struct("!BBIIIQ")
NUMBER = struct.Struct("!I")
LENGTH = struct.Struct("!H")


class WireError(ValueError):
    """These bytes are no datagram of exec/1."""


@dataclass(frozen=True)
class Request:
    """A datagram to the server."""

    kind: int
    """RUN, FETCH or DONE."""
    key_id: str
    """Names the secret of the MAC."""
    nonce: bytes
    """One a command."""
    timestamp_us: int
    """When the nonce was made."""
    sequence: int
    """Counts the datagrams of a command."""
    cookie: bytes
    """Address token of the last CHALLENGE."""
    body: bytes
    """Depends on the kind."""


@dataclass(frozen=True)
class Reply:
    """A datagram to the client."""

    kind: int
    """CHALLENGE, REFUSED, STATUS, PART or UNKNOWN_KEY."""
    nonce: bytes
    """Of the request."""
    sequence: int
    """Of the last request received."""
    body: bytes
    """Depends on the kind."""


@dataclass(frozen=True)
class Status:
    """State of a command."""

    state: int
    """RUNNING, EXITED, KILLED, TIMED_OUT or UNSTARTED."""
    number: int = 0
    """Exit status, signal, or errno of a failed start."""
    output_bytes: int = 0
    """Length of standard output."""
    error_bytes: int = 0
    """Length of standard error."""
    flags: int = 0
    """OUTPUT_CUT, ERROR_CUT."""
    took_us: int = 0
    """Duration."""

    @property
    def parts(self) -> int:
        """In how many parts the output arrives."""
        return parts_of(self.output_bytes + self.error_bytes)


@dataclass(frozen=True)
class Refusal:
    """Why the server does not run a command."""

    code: str
    """A value of CODES."""
    text: str = ""
    """For the user."""
    number: int = 0
    """The server's clock in microseconds, for the code "clock"."""


def pack_request(request: Request, secret: bytes) -> bytes:
    """A request as a datagram with its MAC."""
    key_id = request.key_id.encode("ascii")
    head = HEAD.pack(MAGIC, request.kind, len(key_id)) + key_id
    data = (
        head
        + REQUEST.pack(request.nonce, request.timestamp_us, request.sequence, request.cookie)
        + request.body
    )
    return data + mac(secret, data)


def unpack_request(datagram: bytes) -> Request:
    """Parse a request; its MAC is not checked. Raises WireError."""
    if not HEAD.size + 1 + REQUEST.size + MAC_BYTES <= len(datagram) <= EXEC_DATAGRAM_BYTES_MAX:
        raise WireError("not the length of a request")
    magic, kind, key_bytes = HEAD.unpack_from(datagram)
    start = HEAD.size + key_bytes
    body = start + REQUEST.size
    if magic != MAGIC or kind not in (RUN, FETCH, DONE) or body + MAC_BYTES > len(datagram):
        raise WireError("not a request")
    key_id = datagram[HEAD.size : start].decode("latin-1")
    if not KEY_ID.fullmatch(key_id):
        raise WireError("no key has such an id")
    nonce, timestamp_us, sequence, cookie = REQUEST.unpack_from(datagram, start)
    return Request(kind, key_id, nonce, timestamp_us, sequence, cookie, datagram[body:-MAC_BYTES])


def pack_reply(reply: Reply, secret: bytes) -> bytes:
    """A reply as a datagram with its MAC; an UNKNOWN_KEY has none."""
    data = REPLY.pack(MAGIC, reply.kind, reply.nonce, reply.sequence) + reply.body
    return data if reply.kind == UNKNOWN_KEY else data + mac(secret, data)


def unpack_reply(datagram: bytes, secret: bytes) -> Reply:
    """Parse a reply and check its MAC; an UNKNOWN_KEY has none. Raises WireError."""
    if len(datagram) < REPLY.size or datagram[:4] != MAGIC:
        raise WireError("not a reply")
    _, kind, nonce, sequence = REPLY.unpack_from(datagram)
    if kind == UNKNOWN_KEY and len(datagram) == REPLY.size:
        return Reply(kind, nonce, sequence, b"")
    if kind not in (CHALLENGE, REFUSED, STATUS, PART) or len(datagram) < REPLY.size + MAC_BYTES:
        raise WireError("not a reply")
    if not is_authentic(datagram, secret):
        raise WireError("the MAC does not match")
    return Reply(kind, nonce, sequence, datagram[REPLY.size : -MAC_BYTES])


def pack_argv(argv: list[str]) -> bytes:
    """The body of RUN. Raises WireError for an argv that cannot be sent."""
    if len(argv) > 255:
        raise WireError("more than 255 words")
    data = [bytes([len(argv)])]
    for item in argv:
        text = item.encode("utf-8", "surrogateescape")
        if b"\0" in text:
            raise WireError("a NUL byte")
        data.append(LENGTH.pack(min(len(text), 0xFFFF)) + text)
    return b"".join(data)


def unpack_argv(body: bytes) -> list[str]:
    """The argv of RUN, at least one string. Raises WireError."""
    count, at, argv = body[0] if body else 0, 1, []
    for _ in range(count):
        if at + LENGTH.size > len(body):
            raise WireError("argv ends early")
        (size,) = LENGTH.unpack_from(body, at)
        text = body[at + LENGTH.size : at + LENGTH.size + size]
        at += LENGTH.size + size
        if len(text) < size or b"\0" in text:
            raise WireError("no argument")
        try:
            argv.append(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise WireError("not UTF-8") from error
    if not argv or at != len(body):
        raise WireError("no argv")
    return argv


def pack_part_numbers(numbers: list[int]) -> bytes:
    """The body of FETCH."""
    return bytes([len(numbers)]) + b"".join(map(NUMBER.pack, numbers))


def unpack_part_numbers(body: bytes) -> list[int]:
    """The part numbers of FETCH. Raises WireError."""
    if not body or body[0] > EXEC_PARTS_PER_FETCH or len(body) != 1 + NUMBER.size * body[0]:
        raise WireError("no list of parts")
    return [number for (number,) in NUMBER.iter_unpack(body[1:])]


def pack_refused(refusal: Refusal) -> bytes:
    """The body of REFUSED."""
    text = refusal.text.encode("utf-8", "backslashreplace")[:REFUSAL_TEXT_BYTES_MAX]
    return REFUSED_BODY.pack(CODE_OF[refusal.code], refusal.number) + text


def unpack_refused(body: bytes) -> Refusal:
    """Parse the body of REFUSED. Raises WireError."""
    if len(body) < REFUSED_BODY.size:
        raise WireError("a refusal ends early")
    code, number = REFUSED_BODY.unpack_from(body)
    return Refusal(
        CODES.get(code, "denied"), body[REFUSED_BODY.size :].decode("utf-8", "ignore"), number
    )


def pack_status(status: Status) -> bytes:
    """The body of STATUS."""
    lengths = status.output_bytes, status.error_bytes
    return STATUS_BODY.pack(status.state, status.flags, status.number, *lengths, status.took_us)


def unpack_status(body: bytes) -> Status:
    """Parse the body of STATUS. Raises WireError."""
    if len(body) != STATUS_BODY.size or not RUNNING <= body[0] <= UNSTARTED:
        raise WireError("not a status")
    state, flags, number, output_bytes, error_bytes, took_us = STATUS_BODY.unpack(body)
    return Status(state, number, output_bytes, error_bytes, flags, took_us)


def parts_of(size: int) -> int:
    """Number of parts of `size` bytes."""
    return -(-size // EXEC_PART_BYTES)


def pack_part(number: int, data: bytes) -> bytes:
    """The body of PART `number` of all output."""
    start = number * EXEC_PART_BYTES
    return NUMBER.pack(number) + data[start : start + EXEC_PART_BYTES]


def unpack_part(body: bytes) -> tuple[int, bytes]:
    """Parse the body of PART: number and bytes. Raises WireError."""
    if len(body) < NUMBER.size:
        raise WireError("not a part")
    return NUMBER.unpack_from(body)[0], body[NUMBER.size :]
