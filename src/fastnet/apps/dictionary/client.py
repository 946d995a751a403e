"""Dictionary client: UDP with retransmission, or lines over a connection.

Facts. A datagram may be lost, either way, and a reply does not name its word. A late reply to one
word, taken for the reply to the next, would shift every further translation.
Decision: each word has a socket of its own, so a late reply to an earlier one reaches no socket;
the attempts for one word share it, for a reply to any of them is right. A refusal may be one
address of several, or a server that is just starting: the next address is tried immediately, and
the first again after the timeout. A server sends no more than it received, or 512 bytes, to an
address that is not validated: a reply that was cut for that reason is requested again by a question
padded to its size.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import (
    DICTIONARY_TRANSLATION_BYTES_MAX,
    DICTIONARY_WORD_BYTES_MAX,
    LOOKUP_FIRST_WAIT_S,
    LOOKUP_TIMEOUT_S,
    READ_BYTES,
    UNVALIDATED_REPLY_BYTES_MAX,
)
from fastnet.service.dictionary_py import ELLIPSIS, UNKNOWN
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial
from fastnet.transport.resolve import resolve
from fastnet.udp.client import DatagramClient, RetransmissionTimer

PADDED_BYTES = (1400, DICTIONARY_TRANSLATION_BYTES_MAX + len(ELLIPSIS))
"""Sizes of a question whose answer was cut: what a packet takes, and then the longest
translation.
"""


@dataclass(frozen=True)
class Answer:
    """translation: None for an unknown word. attempts: questions sent for it."""

    word: str
    translation: str | None
    attempts: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "word": self.word,
            "found": self.translation is not None,
            "translation": self.translation,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 6),
        }


class LookupExchange(Protocol):
    """A way to send a question and receive its reply."""

    addresses: int
    """How many addresses can be tried immediately after a refusal."""

    def exchange(self, word: bytes, wait_s: float, left_s: float) -> bytes:
        """Make one attempt.

        Args:
            word: The question.
            wait_s: Timeout of this attempt.
            left_s: Time left for all attempts.
        Raises:
            OSError: It failed; TimeoutError when no reply arrived in time.
        """

    def prepare_retry(self) -> None:
        """Called after an attempt that failed."""

    def close(self) -> None:
        """Close the socket."""


class DatagramExchange:
    """Questions for one word, on a new socket."""

    def __init__(self, client: DatagramClient, bytes_least: int = 0) -> None:
        client.renew()
        self.addresses = client.address_count
        self._client = client
        self._bytes_least = bytes_least
        """Questions are padded to this length."""

    def exchange(self, word: bytes, wait_s: float, left_s: float) -> bytes:
        self._client.send((word + b"\0").ljust(self._bytes_least, b"\0"))
        reply = self._client.receive(READ_BYTES) if self._client.wait(wait_s) else None
        if reply is None:
            raise TimeoutError
        return reply

    def prepare_retry(self) -> None:
        self._client.use_next_address()

    def close(self) -> None:
        self._client.renew()


class StreamExchange:
    """A connection, made when it is needed and again when it broke."""

    addresses = 1

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._sock: socket.socket | None = None
        self._received = b""

    def exchange(self, word: bytes, wait_s: float, left_s: float) -> bytes:
        deadline_s = time.monotonic() + left_s
        if self._sock is None:
            self._sock, self._received = dial(self._endpoint, timeout_s=left_s), b""
        self._sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        self._sock.sendall(word + b"\n")
        while b"\n" not in self._received:
            self._sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            more = self._sock.recv(READ_BYTES)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            self._received += more
        answer, _, self._received = self._received.partition(b"\n")
        return answer

    def prepare_retry(self) -> None:
        self.close()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Lookup:
    """A dictionary server to be asked. Use it as a context.

    timeout_s: for each word, all its attempts together. Raises NetworkError (no such host) and
    ConfigError (port 0).
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = LOOKUP_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._is_datagrams = TRANSPORTS[endpoint.transport].datagrams
        addresses = resolve(endpoint, timeout_s=timeout_s) if self._is_datagrams else []
        self._client = DatagramClient(endpoint, addresses)
        self._stream = StreamExchange(endpoint)

    def look_up(self, word: str) -> Answer:
        """The translation of a word. Raises NetworkError when none has come in time."""
        began_s = time.monotonic()
        question = word.encode("utf-8", "surrogateescape")
        if not self._is_datagrams:
            text, attempts = self._ask(self._stream, word, question, began_s)
        else:
            attempts = 0
            for bytes_least in (0, *PADDED_BYTES):
                with closing(DatagramExchange(self._client, bytes_least)) as exchange:
                    text, more = self._ask(exchange, word, question, began_s)
                attempts += more
                if len(text) + len(ELLIPSIS) < UNVALIDATED_REPLY_BYTES_MAX or not text.endswith(
                    ELLIPSIS
                ):
                    break
        seconds = time.monotonic() - began_s
        found = None if text == UNKNOWN else text.decode("utf-8", "replace")
        return Answer(word, found, attempts, seconds)

    def _ask(
        self, exchange: LookupExchange, word: str, question: bytes, began_s: float
    ) -> tuple[bytes, int]:
        """The answer to a question, and how many attempts it took."""
        deadline_s = began_s + self._timeout_s
        timer = RetransmissionTimer(LOOKUP_FIRST_WAIT_S)
        attempts = refused = 0
        failure: OSError | None = None
        while (left_s := deadline_s - time.monotonic()) > 0:
            attempts += 1
            wait_s = timer.timeout_s()
            try:
                return exchange.exchange(question, min(wait_s, left_s), left_s), attempts
            except TimeoutError:
                refused = 0
            except OSError as error:
                failure, refused = error, refused + 1
                if refused >= exchange.addresses:
                    time.sleep(max(0.0, min(wait_s, deadline_s - time.monotonic())))
                    refused = 0
            exchange.prepare_retry()
            timer.back_off()
        raise no_answer(self.endpoint, word, attempts, self._timeout_s, failure)

    def close(self) -> None:
        """Close the sockets."""
        self._client.close()
        self._stream.close()

    def __enter__(self) -> Lookup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def no_answer(
    endpoint: Endpoint, word: str, attempts: int, timeout_s: float, failure: OSError | None
) -> NetworkError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    why = f": {reason(failure)}" if failure is not None else ""
    hint = "Check host and port, or start the server: fastnet dict serve --file FILE"
    number = failure.errno if failure is not None else None
    return NetworkError(
        f"no answer to {word!r} from {endpoint} in {timeout_s:g} s and {times}{why}", hint, number
    )


def invalid_word(word: str) -> str:
    """Why a text cannot be asked for, or ""."""
    if not word.strip():
        return "it is empty"
    if "\0" in word or "\n" in word:
        return "it has a newline or a NUL character in it"
    if len(word.encode("utf-8", "surrogateescape")) > DICTIONARY_WORD_BYTES_MAX:
        return f"it has more than {DICTIONARY_WORD_BYTES_MAX} bytes"
    return ""
