"""Counters that loops write without a lock, and the frozen value that a reader gets.

Facts. A loop may run without the GIL, in another thread or in a forked child, and may be killed at
any moment.
Decision: a table of rows in shared memory with one writer a row, so an add needs no lock and no
message, and what a killed child had counted is still there. A row is as long as whole cache lines,
so two writers never fight for one.
Cost: a reader sums all rows; 1025 of them, the thread engine's default, take under a millisecond.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CLOSED_REASONS = (
    "finished",
    "reset",
    "idle",
    "denied",
    "refused",
    "overload",
    "killed",
    "stopped",
    "error",
)
"""Why connections end, in the order of enum fn_closed in csrc/fn_counters.h, where each is
explained.
"""

FIELDS = (
    "accepted",
    "accept_pauses",
    "bytes_in",
    "bytes_out",
    "messages",
    "write_buffer_bytes",
    "ring_starved",
    "ring_overflows",
    "busy_poll_hits",
    "busy_poll_misses",
    "replies",
    "unanswered",
    "unsent",
    "truncated",
    "kernel_drops",
    "amplification_blocked",
    "handler_errors",
    *(f"closed_{why}" for why in CLOSED_REASONS),
)
"""The words of a row, in the order of FN_COUNTERS in csrc/fn_counters.h; engine/context_c.pyx
compares the two at import.
"""

ACCEPTED, ACCEPT_PAUSES, BYTES_IN, BYTES_OUT, MESSAGES, WRITE_BUFFER_BYTES = range(6)
BUSY_POLL_HITS, BUSY_POLL_MISSES, REPLIES, UNANSWERED, UNSENT, TRUNCATED, KERNEL_DROPS = range(
    8, 15
)
AMPLIFICATION_BLOCKED, HANDLER_ERRORS, CLOSED = range(15, 18)
"""Indices into a row, of the words that pure loops write; CLOSED is the first of the closed_*
words.
"""

FINISHED, RESET, IDLE, DENIED, REFUSED, OVERLOAD, KILLED, STOPPED, ERROR = range(
    len(CLOSED_REASONS)
)
"""Reasons as numbers: CLOSED + RESET is the index of closed_reset."""

WORD_BYTES = 8
CACHE_LINE_BYTES = 64
ROW_BYTES = -(-len(FIELDS) * WORD_BYTES // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
ROW_WORDS = ROW_BYTES // WORD_BYTES


@dataclass(frozen=True)
class Statistics:
    """What a server has done so far. Bytes are payload bytes; messages are reads that brought any.

    open: connections being served now. closed: how many ended, by reason. write_buffer_bytes: bytes
    waiting for slow readers now. accept_pauses: how often accepting rested because descriptors,
    memory or the connection limit were used up. ring_starved: receives the uring engine had to ask
    for again because all buffers were in use. ring_overflows: turns in which its completion queue
    had been too small. busy_poll_hits, busy_poll_misses: waits that busy polling spared, and did
    not. Datagrams are `messages`. replies: sent. unanswered: from a peer that is not let in, or a
    port that would answer back. unsent: refused by the kernel. truncated: longer than any buffer.
    kernel_drops: the socket's buffer was full, as far as a later datagram has told (SO_RXQ_OVFL).
    amplification_blocked: replies longer than an unproven address gets (D8 of
    engine/datagram/contract.py). handler_errors: calls of a Python handler that raised, or returned
    what is no reply.
    """

    accepted: int
    open: int
    closed: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    messages: int
    write_buffer_bytes: int
    accept_pauses: int
    ring_starved: int
    ring_overflows: int
    busy_poll_hits: int
    busy_poll_misses: int
    replies: int
    unanswered: int
    unsent: int
    truncated: int
    kernel_drops: int
    amplification_blocked: int
    handler_errors: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return vars(self) | {"closed": dict(self.closed)}


class CounterTable:
    """Rows of counters in memory shared with native loops and forked children."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.memory = mmap.mmap(-1, rows * ROW_BYTES)
        self._words = memoryview(self.memory).cast("Q")

    def row(self, index: int) -> memoryview:
        """The words of one row, writable. One writer at a time."""
        return self._words[index * ROW_WORDS : (index + 1) * ROW_WORDS]

    def total(self) -> dict[str, int]:
        """Every counter summed over all rows."""
        # What ends is read before what begins, so that a reader never sees more ends than
        # beginnings.
        backwards = [
            (name, sum(self._words[i::ROW_WORDS])) for i, name in reversed(list(enumerate(FIELDS)))
        ]
        return dict(backwards)


def statistics(tables: list[CounterTable]) -> Statistics:
    """Sum the tables of all loops of a server."""
    totals = [table.total() for table in tables]
    word = {name: sum(total[name] for total in totals) for name in FIELDS}
    closed = {why: word[f"closed_{why}"] for why in CLOSED_REASONS}
    return Statistics(
        accepted=word["accepted"],
        open=max(0, word["accepted"] - sum(closed.values())),
        closed=MappingProxyType(closed),
        bytes_in=word["bytes_in"],
        bytes_out=word["bytes_out"],
        messages=word["messages"],
        write_buffer_bytes=word["write_buffer_bytes"],
        accept_pauses=word["accept_pauses"],
        ring_starved=word["ring_starved"],
        ring_overflows=word["ring_overflows"],
        busy_poll_hits=word["busy_poll_hits"],
        busy_poll_misses=word["busy_poll_misses"],
        replies=word["replies"],
        unanswered=word["unanswered"],
        unsent=word["unsent"],
        truncated=word["truncated"],
        kernel_drops=word["kernel_drops"],
        amplification_blocked=word["amplification_blocked"],
        handler_errors=word["handler_errors"],
    )
