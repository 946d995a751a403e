"""Bounds of the dictionary and its reloading."""

from __future__ import annotations

from fastnet.limits.units import KIB, MIB

DICTIONARY_FILE_BYTES_MAX = 1024 * MIB
"""Largest file of a dictionary. All of it is in memory several times while it is read."""

DICTIONARY_ARENA_BYTES_MAX = 32 * 1024 * MIB
"""Largest native table: entries are found by 32-bit numbers of eight bytes each."""

DICTIONARY_WORD_BYTES_MAX = KIB
"""Longest word."""

DICTIONARY_TRANSLATION_BYTES_MAX = 32 * KIB
"""Longest translation. It must fit a datagram, the reply to a request padded to its size."""

DICTIONARY_LINE_BYTES_MAX = 4 * KIB
"""Over a connection, a line that has not ended by then ends it. Padding counts."""

DICTIONARY_REPORTED_MAX = 10
"""Invalid lines, and words with an earlier entry, that a message lists."""

RELOAD_CHECK_S = 0.25
"""How often the file of a service is checked for a change."""

RELOAD_SETTLE_S = 1.0
"""It is read once it has not changed for this time, because it may still be written."""

LOOKUP_TIMEOUT_S = 5.0
"""Timeout of `dict lookup` for a word, all attempts together."""

LOOKUP_FIRST_WAIT_S = 0.25
"""Timeout of the first attempt; it doubles with each further one (exponential backoff)."""


assert DICTIONARY_WORD_BYTES_MAX <= DICTIONARY_LINE_BYTES_MAX, (
    "a word in the file could not be looked up"
)
