"""A log-linear histogram: values to three significant digits in constant memory.

Facts. Values below 2**SUB_BUCKET_BITS have a slot each; every further doubling shares half as many
slots. So a slot is never wider than 1/1024 of its value. This is the layout of HdrHistogram
(hdrhistogram.org), slot for slot.
Consequence: two histograms are merged by adding their slots; a percentile of merged parts is exact
to the same digits, which an average of percentiles never is.
Decision: the numbers stand here once. The native loops (csrc/fn_hist.h) are handed `counts` and
SUB_BUCKET_BITS and record into the same slots.
Cost: 216 KiB a histogram, of which a run touches only the slots around its own latencies.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

SUB_BUCKET_BITS = 11
"""2048 slots for the first bucket: three significant digits."""

VALUE_BITS = 36
"""Values up to 2**36 - 1 have their own slot: 68.7 s in nanoseconds. Larger ones are counted in the
last slot.
"""

HALF_BUCKET_BITS = SUB_BUCKET_BITS - 1
SLOTS = (VALUE_BITS - SUB_BUCKET_BITS + 2) << HALF_BUCKET_BITS


def slot_of(value: int) -> int:
    """The slot that counts `value`, which must not be negative."""
    bucket = max(value.bit_length() - SUB_BUCKET_BITS, 0)
    return min((bucket << HALF_BUCKET_BITS) + (value >> bucket), SLOTS - 1)


def slot_range(slot: int) -> tuple[int, int]:
    """The lowest and the highest value that a slot counts."""
    bucket = max((slot >> HALF_BUCKET_BITS) - 1, 0)
    lowest = (slot - (bucket << HALF_BUCKET_BITS)) << bucket
    return lowest, lowest + (1 << bucket) - 1


@dataclass(frozen=True)
class Bar:
    """A slot that is not empty."""

    lowest: int
    """Lowest value that the slot counts."""

    highest: int
    """Highest value that the slot counts, included."""

    count: int
    """Values counted in it."""


class Histogram:
    """Counts of whole numbers, usually nanoseconds. Belongs to one thread at a time.

    counts: SLOTS numbers of 64 bits, writable through the buffer protocol.
    total, sum, max: exact, whatever the precision of the slots.
    """

    __slots__ = ("counts", "max", "sum", "total")

    def __init__(self) -> None:
        self.counts = array("Q", bytes(8 * SLOTS))
        self.total = 0
        self.sum = 0
        self.max = 0

    def record(self, value: int, count: int = 1) -> None:
        """Count `value`, `count` times."""
        self.counts[slot_of(value)] += count
        self.total += count
        self.sum += value * count
        if value > self.max:
            self.max = value

    def reset(self) -> None:
        """Clear all counts, keep the memory."""
        self.counts[:] = array("Q", bytes(8 * SLOTS))
        self.total = self.sum = self.max = 0

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has counted."""
        for slot, count in enumerate(other.counts):
            if count:
                self.counts[slot] += count
        self.total += other.total
        self.sum += other.sum
        self.max = max(self.max, other.max)

    def __iter__(self) -> Iterator[Bar]:
        """The slots that are not empty, in rising order."""
        for slot, count in enumerate(self.counts):
            if count:
                yield Bar(*slot_range(slot), count)

    @property
    def mean(self) -> float:
        """The exact mean; 0.0 when nothing was recorded."""
        return self.sum / self.total if self.total else 0.0

    def percentile(self, percent: float) -> int:
        """The value that `percent` of all values do not exceed.

        Args:
            percent: From 0 to 100.
        Returns:
            The end of the value's slot, never above max; 0 when nothing was recorded.
        """
        if not self.total:
            return 0
        # 99.9 is no binary number: without rounding, 99.9 % of 1000 values would be the 1000th.
        rank = max(math.ceil(round(self.total * percent / 100, 6)), 1)
        seen = 0
        for slot, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                return self.max if slot == SLOTS - 1 else min(slot_range(slot)[1], self.max)
        return self.max
