"""Bounds of remote commands."""

from __future__ import annotations

from fastnet.limits.units import KIB, MIB

EXEC_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of exec/1: the smallest MTU of IPv6, 1280, less 48 bytes of headers, so that
none is cut up on the way.
"""

EXEC_PART_BYTES = 1152
"""Output in one part. With the 61 bytes around it, it fits EXEC_DATAGRAM_BYTES_MAX."""

EXEC_PARTS_PER_FETCH = 32
"""Most parts asked for at once: 36 KiB, which any receive buffer holds."""

EXEC_CLOCK_S = 60.0
"""How far the clocks of client and server may be apart, and how long a client may try before its
request is stale.
"""

EXEC_COOKIE_S = 60.0
"""A cookie is good for this long at least, and for twice as long at most."""

EXEC_RESULT_S = 300.0
"""How long a result waits to be fetched."""

EXEC_RECORDS_MAX = 8192
"""Executions and refusals a server remembers at once, a KiB each, at most half of them of one key;
one
more is not answered until some are old enough to be forgotten."""

EXEC_NONCES_MAX = 65536
"""Nonces not yet stale that a server keeps; at 60 bytes each in a file of 4 MB."""

EXEC_NONCES_FILE_BYTES_MAX = 16 * MIB
"""Largest file of nonces that is read: thrice as many as are kept, as stale ones stay for a while,
of 83 bytes at most.
"""

EXEC_CONCURRENT_MAX = 32
"""Commands one server runs at once, of all names together."""

EXEC_KEPT_BYTES_MAX = 64 * MIB
"""Output that all results together may hold, counted by their limits from the moment a command
starts.
"""

EXEC_OUTPUT_BYTES_MAX = 16 * MIB
"""Largest output limit of one command."""

EXEC_OUTPUT_BYTES = 64 * KIB
"""Output limit of a command whose table names none."""

EXEC_TIME_LIMIT_S = 10.0
"""Time limit of a command whose table names none."""

EXEC_TIME_LIMIT_MAX_S = 86400.0
"""Longest time limit of a command."""

EXEC_KILL_GRACE_S = 1.0
"""Time between SIGTERM and SIGKILL for a command at its time limit."""

EXEC_HUNT_S = 0.25
"""How long the server looks at once for what a command has left behind: a thousand processes."""

EXEC_HUNT_REST_S = 1.0
"""How long it serves before it goes on with those that were more."""

EXEC_KEYS_MAX = 1024
"""Keys in one file."""

EXEC_ARGUMENTS_MAX = 32
"""Arguments a command may take."""

EXEC_MATCH_S = 0.05
"""Processor time that the patterns of one request may take; a sane one takes microseconds."""

EXEC_MATCH_REST_S = 5.0
"""How long the key of a request that took longer waits: one key takes a hundredth of the server's
time at most.
"""

EXEC_REST_S = 0.1
"""A client sends again after this long without an answer, then after twice as long, and so on."""

EXEC_REST_MAX_S = 1.0
"""Longest rest between two datagrams of a client."""

EXEC_TIMEOUT_S = 10.0
"""A client that has heard nothing from the server for so long gives up."""

EXEC_STRANGERS_ANSWERED = 10
"""Unsigned answers a second to datagrams that nobody we know has signed."""

EXEC_COMPLAINT_S = 60.0
"""Least time between two lines of the log about datagrams from strangers."""


assert 3 * 83 * EXEC_NONCES_MAX <= EXEC_NONCES_FILE_BYTES_MAX, (
    "a busy server could not read its own nonces"
)
assert EXEC_PART_BYTES + 61 <= EXEC_DATAGRAM_BYTES_MAX, "a part would be cut up on the way"
assert 100 * EXEC_MATCH_S <= EXEC_MATCH_REST_S, "who has a key could hold the server with a pattern"
assert EXEC_TIMEOUT_S < EXEC_CLOCK_S, "a client would still try when its request is stale"
assert EXEC_OUTPUT_BYTES_MAX <= EXEC_KEPT_BYTES_MAX, "no server could keep the longest output"
