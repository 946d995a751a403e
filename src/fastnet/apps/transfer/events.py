"""Events of a transfer: one class for the library, the progress bar and `--json`.

    listening   endpoint
    start       peer, endpoint, name, total_bytes
    progress    bytes, total_bytes, files, total_files
    file        name, bytes: one file is whole and under its final name, or sent
    message     text, peer: a notice, or the final message of a raw peer
    ack         bytes, files: the receiver has acknowledged them
    error       code, text: the end of one transfer; code is a word of ErrorCode
    report      report: the end of one transfer, good or bad

Fields that do not apply are None and are left out of the JSON. New fields and kinds may come; none
changes its meaning.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastnet.apps.transfer.report import TransferReport
from fastnet.errors import FastnetError, TransferError

EventKind = Literal["listening", "start", "progress", "file", "message", "ack", "error", "report"]


class ErrorCode(enum.StrEnum):
    """Why a transfer ended badly; stable words for programs."""

    REFUSED = "refused"  # the other side declined
    EXISTS = "exists"  # the target is there and may not be replaced
    RESET = "reset"  # the other side broke the connection
    STALLED = "stalled"  # nothing moved for the idle timeout
    SHRANK = "shrank"  # the source became shorter while it was sent
    CHANGED = "changed"  # the source was changed while it was sent
    DISK_FULL = "disk_full"  # no space, quota or file size left at the target
    SOURCE = "source"  # the source cannot be read
    TARGET = "target"  # the target cannot be written
    MISMATCH = "mismatch"  # digests differ
    PROTOCOL = "protocol"  # the other side violates the protocol
    LIMIT = "limit"  # more than was allowed
    UNCONFIRMED = "unconfirmed"  # all was sent, no acknowledgement came
    INTERRUPTED = "interrupted"  # stopped from here
    NETWORK = "network"  # any other failure of the connection
    FAILED = "failed"  # anything else


@dataclass(frozen=True)
class TransferEvent:
    """One event.

    Sizes are bytes; `session` tells transfers of one process apart, counting from 1.
    """

    kind: EventKind
    session: int = 1
    peer: str | None = None
    endpoint: str | None = None
    name: str | None = None
    bytes: int | None = None
    total_bytes: int | None = None
    files: int | None = None
    total_files: int | None = None
    text: str | None = None
    hint: str | None = None
    code: str | None = None
    report: TransferReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `event` is the kind, fields that are None are left out."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        fields.pop("kind")
        if self.report is not None:
            fields["report"] = self.report.as_dict()
        return {"event": self.kind} | {
            name: value for name, value in fields.items() if value is not None
        }

    def as_json(self) -> str:
        """One line of NDJSON, without its newline.

        ASCII, so no name can repaint a terminal.
        """
        return json.dumps(self.as_dict())


class TransferCancelled(TransferError):
    """The transfer was cancelled on this side."""

    def __init__(self) -> None:
        super().__init__("the transfer was stopped", "", ErrorCode.INTERRUPTED)


def error_event(error: Exception, session: int) -> TransferEvent:
    """The event of a failed session, for a listener that continues."""
    if not isinstance(error, FastnetError):
        text = f"unexpected {type(error).__name__}: {error}"
        return TransferEvent("error", session, code=ErrorCode.FAILED, text=text)
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    return TransferEvent("error", session, code=code, text=error.message, hint=error.hint)


OnEvent = Callable[[TransferEvent], None]
"""Called in the thread of the transfer. What it raises ends the transfer."""


def one_at_a_time(on_event: OnEvent) -> OnEvent:
    """`on_event` for several threads: calls do not overlap."""
    lock = threading.Lock()

    def emit(event: TransferEvent) -> None:
        with lock:
            on_event(event)

    return emit
