"""The bytes that a load sends, by which it recognizes lost, repeated and swapped ones.

Facts. A stream of zeros, or of one repeated message, looks right even when bytes were lost,
repeated or swapped.
Decision: all streams are one pseudo-random pattern of PATTERN_PERIOD bytes, repeated; connection k
starts at an offset of its own, so bytes of another connection are wrong too. The pattern is held
once, followed by its own beginning: a read of up to READ_BYTES, wherever it starts, is checked by
one memcmp, and a write is sent from it without copying.
"""

from __future__ import annotations

import random

from fastnet.limits import READ_BYTES
from fastnet.load.contract import PATTERN_PERIOD

SEED = 862
"""RFC 862 is the echo protocol. Any seed does; one that never changes makes two runs comparable."""

CONNECTION_STEP = 40503
"""Between the first bytes of connections k and k+1. PATTERN_PERIOD is prime, so the offsets differ
for every k.
"""


def build_pattern() -> bytes:
    """PATTERN_PERIOD bytes and then READ_BYTES more of the same."""
    period = random.Random(SEED).randbytes(PATTERN_PERIOD)
    return period + (period * (READ_BYTES // PATTERN_PERIOD + 1))[:READ_BYTES]


def first_offset(connection: int) -> int:
    """Where in the pattern the stream of a connection starts."""
    return connection * CONNECTION_STEP % PATTERN_PERIOD
