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
"""Longest translation. It must fit a datagram, for who asks with one as long."""

DICTIONARY_LINE_BYTES_MAX = 4 * KIB
"""Over a connection, a line that has not ended by then ends it. Padding counts."""

DICTIONARY_REPORTED_MAX = 10
"""Broken lines, and words that stand twice, that are named."""

RELOAD_CHECK_S = 0.25
"""A file that a service is made from is looked at this often."""

RELOAD_SETTLE_S = 1.0
"""It is read once it has not changed for so long: somebody may still be writing it."""

LOOKUP_TIMEOUT_S = 5.0
"""How long `dict lookup` waits for the answer to a word, all its attempts together."""

LOOKUP_FIRST_WAIT_S = 0.25
"""How long it waits for the first one; each further wait is twice as long."""


assert DICTIONARY_WORD_BYTES_MAX <= DICTIONARY_LINE_BYTES_MAX, (
    "a word in the file could not be asked for"
)
