"""exec/1: the datagrams between `exec run` and `exec serve`. Bytes in, values out; nothing here
knows
a socket or a clock.

Numbers are unsigned and big-endian. A request, client to server:

    offset  bytes
    0       4      magic "FNX1"
    4       1      kind: 1 RUN, 2 FETCH, 3 DONE
    5       1      k, length of the key id, 1 to 32
    6       k      key id, ASCII letters, digits and _ . @ -
    6+k     16     nonce: random, one a command, the same in all its datagrams
    22+k    8      asked: when the client made the nonce, microseconds since 1970
    30+k    4      sequence: 1 for the first datagram of a command, higher in each later one, repetitions too
    34+k    16     cookie: what the server's last CHALLENGE gave; zeros before
    50+k    n      body
    50+k+n  32     HMAC-SHA-256 with the key over everything before

    RUN    1 byte: number of words; each word 2 bytes length, then UTF-8 without NUL. The first is the command's name
    FETCH  1 byte: number of parts wanted, 0 to 32; each 4 bytes. 0 asks only how the command is
    DONE   empty: the result is here, the server may drop it

A reply, server to client:

    0       4      magic "FNX1"
    4       1      kind: 129 CHALLENGE, 130 REFUSED, 131 STATUS, 132 PART, 133 STRANGER
    5       16     nonce of the request
    21      4      sequence of the last request seen
    25      n      body
    25+n    32     HMAC-SHA-256 with the key over everything before; STRANGER has none

    CHALLENGE  16 bytes: the cookie of this address. Shorter than any request
    REFUSED    1 byte code; 8 bytes number, see below; the rest UTF-8 for people, at most 200 bytes
    STATUS     1 byte state: 1 running, 2 exited, 3 killed, 4 timed out, 5 not started; 1 byte flags: 1 standard output cut, 2
               standard error cut; 4 bytes exit status, signal or errno; 4 bytes length of standard output, 4 of standard
               error; 8 bytes microseconds it took
    PART       4 bytes number from 0; then bytes [1152 * number, 1152 * number + 1152) of output followed by error
    STRANGER   empty: no key of this server signed that. Unsigned, so it is a hint and no answer

    Codes of REFUSED: 1 command, 2 arguments, 3 key, 4 clock (number: the server's time in microseconds), 5 busy, 6 lost,
    7 reused nonce, 8 stopping, 9 broken
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX, EXEC_PART_BYTES, EXEC_PARTS_PER_FETCH
from fastnet.security.mac import KEY_ID, MAC_BYTES, is_authentic, mac

MAGIC = b"FNX1"
RUN, FETCH, DONE = 1, 2, 3
CHALLENGE, REFUSED, STATUS, PART, STRANGER = 129, 130, 131, 132, 133
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
"""Codes of REFUSED, as words."""

CODE_OF = {word: code for code, word in CODES.items()}

NONCE_BYTES = 16
COOKIE_BYTES = 16
NO_COOKIE = bytes(COOKIE_BYTES)
REFUSAL_TEXT_BYTES_MAX = 200

HEAD = struct.Struct("!4sBB")
ASKED = struct.Struct(f"!{NONCE_BYTES}sQI{COOKIE_BYTES}s")
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
    key_id: str
    nonce: bytes
    asked_us: int
    sequence: int
    cookie: bytes
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A datagram to the client."""

    kind: int
    nonce: bytes
    sequence: int
    body: bytes


@dataclass(frozen=True)
class Status:
    """How a command is: `number` is its exit status, its signal, or the errno of a start that
    failed.
    """

    state: int
    number: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    flags: int = 0
    took_us: int = 0

    @property
    def parts(self) -> int:
        return parts_of(self.output_bytes + self.error_bytes)


@dataclass(frozen=True)
class Refusal:
    """Why the server does not run a command. code: a word of CODES."""

    code: str
    text: str = ""
    number: int = 0


def pack_request(request: Request, secret: bytes) -> bytes:
    key_id = request.key_id.encode("ascii")
    head = HEAD.pack(MAGIC, request.kind, len(key_id)) + key_id
    data = (
        head
        + ASKED.pack(request.nonce, request.asked_us, request.sequence, request.cookie)
        + request.body
    )
    return data + mac(secret, data)


def unpack_request(datagram: bytes) -> Request:
    """Read a request; its signature is not looked at. Raises WireError."""
    if not HEAD.size + 1 + ASKED.size + MAC_BYTES <= len(datagram) <= EXEC_DATAGRAM_BYTES_MAX:
        raise WireError("not the length of a request")
    magic, kind, key_bytes = HEAD.unpack_from(datagram)
    start = HEAD.size + key_bytes
    body = start + ASKED.size
    if magic != MAGIC or kind not in (RUN, FETCH, DONE) or body + MAC_BYTES > len(datagram):
        raise WireError("not a request")
    key_id = datagram[HEAD.size : start].decode("latin-1")
    if not KEY_ID.fullmatch(key_id):
        raise WireError("no key has such an id")
    nonce, asked_us, sequence, cookie = ASKED.unpack_from(datagram, start)
    return Request(kind, key_id, nonce, asked_us, sequence, cookie, datagram[body:-MAC_BYTES])


def pack_reply(reply: Reply, secret: bytes) -> bytes:
    data = REPLY.pack(MAGIC, reply.kind, reply.nonce, reply.sequence) + reply.body
    return data if reply.kind == STRANGER else data + mac(secret, data)


def unpack_reply(datagram: bytes, secret: bytes) -> Reply:
    """Read a reply and check its signature; of a STRANGER there is none. Raises WireError."""
    if len(datagram) < REPLY.size or datagram[:4] != MAGIC:
        raise WireError("not a reply")
    _, kind, nonce, sequence = REPLY.unpack_from(datagram)
    if kind == STRANGER and len(datagram) == REPLY.size:
        return Reply(kind, nonce, sequence, b"")
    if kind not in (CHALLENGE, REFUSED, STATUS, PART) or len(datagram) < REPLY.size + MAC_BYTES:
        raise WireError("not a reply")
    if not is_authentic(datagram, secret):
        raise WireError("not signed with our key")
    return Reply(kind, nonce, sequence, datagram[REPLY.size : -MAC_BYTES])


def words_body(words: list[str]) -> bytes:
    """The body of RUN. Raises WireError for what cannot be a word."""
    if len(words) > 255:
        raise WireError("more than 255 words")
    data = [bytes([len(words)])]
    for word in words:
        text = word.encode("utf-8", "surrogateescape")
        if b"\0" in text:
            raise WireError("a NUL byte")
        data.append(LENGTH.pack(min(len(text), 0xFFFF)) + text)
    return b"".join(data)


def read_words(body: bytes) -> list[str]:
    """The words of RUN, at least one. Raises WireError."""
    count, at, words = body[0] if body else 0, 1, []
    for _ in range(count):
        if at + LENGTH.size > len(body):
            raise WireError("the words end early")
        (size,) = LENGTH.unpack_from(body, at)
        text = body[at + LENGTH.size : at + LENGTH.size + size]
        at += LENGTH.size + size
        if len(text) < size or b"\0" in text:
            raise WireError("not a word")
        try:
            words.append(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise WireError("not UTF-8") from error
    if not words or at != len(body):
        raise WireError("not a list of words")
    return words


def wanted_body(numbers: list[int]) -> bytes:
    return bytes([len(numbers)]) + b"".join(map(NUMBER.pack, numbers))


def read_wanted(body: bytes) -> list[int]:
    """The part numbers of FETCH. Raises WireError."""
    if not body or body[0] > EXEC_PARTS_PER_FETCH or len(body) != 1 + NUMBER.size * body[0]:
        raise WireError("not a list of parts")
    return [number for (number,) in NUMBER.iter_unpack(body[1:])]


def refused_body(refusal: Refusal) -> bytes:
    text = refusal.text.encode("utf-8", "backslashreplace")[:REFUSAL_TEXT_BYTES_MAX]
    return REFUSED_BODY.pack(CODE_OF[refusal.code], refusal.number) + text


def read_refused(body: bytes) -> Refusal:
    """Raises WireError."""
    if len(body) < REFUSED_BODY.size:
        raise WireError("a refusal ends early")
    code, number = REFUSED_BODY.unpack_from(body)
    return Refusal(
        CODES.get(code, "denied"), body[REFUSED_BODY.size :].decode("utf-8", "ignore"), number
    )


def status_body(status: Status) -> bytes:
    lengths = status.output_bytes, status.error_bytes
    return STATUS_BODY.pack(status.state, status.flags, status.number, *lengths, status.took_us)


def read_status(body: bytes) -> Status:
    """Raises WireError."""
    if len(body) != STATUS_BODY.size or not RUNNING <= body[0] <= UNSTARTED:
        raise WireError("not a status")
    state, flags, number, output_bytes, error_bytes, took_us = STATUS_BODY.unpack(body)
    return Status(state, number, output_bytes, error_bytes, flags, took_us)


def parts_of(size: int) -> int:
    """In how many parts so many bytes arrive."""
    return -(-size // EXEC_PART_BYTES)


def part_body(number: int, data: bytes) -> bytes:
    start = number * EXEC_PART_BYTES
    return NUMBER.pack(number) + data[start : start + EXEC_PART_BYTES]


def read_part(body: bytes) -> tuple[int, bytes]:
    """Number and bytes. Raises WireError."""
    if len(body) < NUMBER.size:
        raise WireError("not a part")
    return NUMBER.unpack_from(body)[0], body[NUMBER.size :]
