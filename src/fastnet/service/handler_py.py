"""Handler service: a Python function of the user, called once for each datagram.

Facts. It is code that is unknown here: it raises, returns what is no reply, and keeps what it was
given.
Decision: it gets a copy of the datagram, which is its own to keep; at 64 bytes a copy costs less
than a view of the loop's buffer that would have to be revoked. Its exceptions end in this file:
they are logged at most once in HANDLER_LOG_S, with their number, and the loop counts them.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from fastnet.errors import printable
from fastnet.limits import HANDLER_LOG_S
from fastnet.ratelimit import LogThrottle
from fastnet.service.contract import Address, HandlerFailed, Service

log = logging.getLogger("fastnet")


def as_bytes(reply: object) -> bytes:
    """A reply as bytes. Raises TypeError for what has no bytes, as a text."""
    try:
        return memoryview(reply).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a handler returns bytes or None, not {type(reply).__name__}") from None


def format_peer(peer: Address) -> str:
    """The sender of a datagram, for a log line."""
    if isinstance(peer, tuple):
        return f"{peer[0]} port {peer[1]}"
    if peer is None:
        return "a socket without a name"
    return printable(
        peer if isinstance(peer, str) else "@" + peer[1:].decode("utf-8", "surrogateescape")
    )


class HandlerErrorLog:
    """Logs the exceptions of a handler, at a bounded rate."""

    def __init__(self) -> None:
        self.throttle = LogThrottle(HANDLER_LOG_S)

    def log_error(self, peer: Address, error: BaseException) -> None:
        errors = self.throttle.count()
        if errors == 0:
            return
        log.error(
            "the handler failed on a datagram from %s: %s%s",
            format_peer(peer),
            "".join(traceback.format_exception_only(error)).strip(),
            f" ({errors} since the last such line)" if errors > 1 else "",
            exc_info=error,
        )


class HandlerService(Service):
    """Replies to each datagram with what the function returns."""

    def __init__(self, handler: Callable[[memoryview, Any], Any]) -> None:
        self.handler = handler
        self.error_log = HandlerErrorLog()

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes] | None:
        try:
            reply = self.handler(memoryview(view.tobytes()), peer)
            return None if reply is None else (as_bytes(reply),)
        except BaseException as error:
            self.error_log.log_error(peer, error)
            raise HandlerFailed from error


def create(handler: Callable[[memoryview, Any], Any]) -> Service:
    return HandlerService(handler)
