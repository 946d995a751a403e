"""Your Python function, asked once for each datagram.

Facts. It is code that nobody here has seen: it raises, returns what is no reply, and keeps what it
was given.
Decision: it gets a copy of the datagram, which is its own to keep; at 64 bytes a copy costs less
than a view of the loop's buffer that would have to be taken back. What goes wrong ends at this
file: it is logged at most once in HANDLER_LOG_S, with how often it has happened, and the loop
counts it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from fastnet.errors import printable
from fastnet.limits import HANDLER_LOG_S
from fastnet.service.contract import Address, HandlerFailed, Service

log = logging.getLogger("fastnet")


def as_bytes(reply: object) -> bytes:
    """A reply as bytes. Raises TypeError for what has no bytes, as a text."""
    try:
        return memoryview(reply).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a handler returns bytes or None, not {type(reply).__name__}") from None


def spelled(peer: Address) -> str:
    """Who sent a datagram, to read."""
    if isinstance(peer, tuple):
        return f"{peer[0]} port {peer[1]}"
    if peer is None:
        return "a socket without a name"
    return printable(
        peer if isinstance(peer, str) else "@" + peer[1:].decode("utf-8", "surrogateescape")
    )


class Failures:
    """Says what goes wrong, at a bounded rate."""

    def __init__(self) -> None:
        self.unsaid = 0
        self.quiet_until_s = 0.0

    def note(self, peer: Address, error: BaseException) -> None:
        self.unsaid += 1
        now_s = time.monotonic()
        if now_s < self.quiet_until_s:
            return
        times, self.unsaid, self.quiet_until_s = self.unsaid, 0, now_s + HANDLER_LOG_S
        what = "".join(traceback.format_exception_only(error)).strip()
        often = f" ({times} since the last such line)" if times > 1 else ""
        log.error(
            "the handler failed on a datagram from %s: %s%s",
            spelled(peer),
            what,
            often,
            exc_info=error,
        )


class Handler(Service):
    def __init__(self, handler: Callable[[memoryview, Any], Any]) -> None:
        self.handler = handler
        self.failures = Failures()

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes] | None:
        try:
            reply = self.handler(memoryview(view.tobytes()), peer)
            return None if reply is None else (as_bytes(reply),)
        except BaseException as error:
            self.failures.note(peer, error)
            raise HandlerFailed from error


def create(handler: Callable[[memoryview, Any], Any]) -> Service:
    return Handler(handler)
