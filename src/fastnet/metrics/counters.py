"""Counters: written by loops without a lock, read as one frozen value.

Facts. A loop may run without the GIL, in another thread or in a forked child, and may be killed at
any moment.
Decision: a table of rows in shared memory with one writer a row, so an add needs no lock and no
message, and the counts of a killed child remain. A row is a multiple of a cache line, so two
writers never share one.
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
"""Why connections end, in the order of enum fn_closed in csrc/fn_counters.h."""

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
"""Indices into a row of the words that pure loops write; CLOSED is the first closed_* word."""

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
    """Counters of a server since its start. Bytes are payload bytes."""

    accepted: int
    """Connections accepted."""
    open: int
    """Connections being served now."""
    closed: Mapping[str, int]
    """Connections ended, by reason (CLOSED_REASONS)."""
    bytes_in: int
    """Bytes received."""
    bytes_out: int
    """Bytes sent."""
    messages: int
    """Reads that returned data, or datagrams received."""
    write_buffer_bytes: int
    """Bytes that are buffered for slow readers now."""
    accept_pauses: int
    """Accept backoffs, because descriptors, memory or the connection limit were used up."""
    ring_starved: int
    """uring: receives that were armed again because all provided buffers were in use."""
    ring_overflows: int
    """uring: iterations before which the completion queue had overflowed."""
    busy_poll_hits: int
    """Waits that busy polling avoided."""
    busy_poll_misses: int
    """Busy polls after which the loop blocked."""
    replies: int
    """Datagrams sent."""
    unanswered: int
    """Datagrams of a peer that is not allowed, or of a port that would reply in turn."""
    unsent: int
    """Replies that the kernel refused."""
    truncated: int
    """Datagrams that were longer than the buffer."""
    kernel_drops: int
    """Datagrams dropped because the receive buffer was full; known from a later datagram
    (SO_RXQ_OVFL).
    """
    amplification_blocked: int
    """Replies over the limit for an unvalidated address (D8 of engine/datagram/contract.py)."""
    handler_errors: int
    """Calls of a Python handler that raised, or returned a value that is no reply."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
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
        # Ends are read before starts, so that a reader never sees more ends than starts.
        backwards = [
            (name, sum(self._words[i::ROW_WORDS])) for i, name in reversed(list(enumerate(FIELDS)))
        ]
        return dict(backwards)


def statistics(tables: list[CounterTable]) -> Statistics:
    """Sum the tables of all loops of a server."""
    totals = [table.total() for table in tables]
    sums = {name: sum(total[name] for total in totals) for name in FIELDS}
    closed = {why: sums[f"closed_{why}"] for why in CLOSED_REASONS}
    return Statistics(
        accepted=sums["accepted"],
        open=max(0, sums["accepted"] - sum(closed.values())),
        closed=MappingProxyType(closed),
        bytes_in=sums["bytes_in"],
        bytes_out=sums["bytes_out"],
        messages=sums["messages"],
        write_buffer_bytes=sums["write_buffer_bytes"],
        accept_pauses=sums["accept_pauses"],
        ring_starved=sums["ring_starved"],
        ring_overflows=sums["ring_overflows"],
        busy_poll_hits=sums["busy_poll_hits"],
        busy_poll_misses=sums["busy_poll_misses"],
        replies=sums["replies"],
        unanswered=sums["unanswered"],
        unsent=sums["unsent"],
        truncated=sums["truncated"],
        kernel_drops=sums["kernel_drops"],
        amplification_blocked=sums["amplification_blocked"],
        handler_errors=sums["handler_errors"],
    )
