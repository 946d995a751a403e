"""Limits of exec, the remote commands."""

from __future__ import annotations

from fastnet.limits.units import KIB, MIB

EXEC_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of exec/1: the smallest MTU of IPv6, 1280, less 48 bytes of headers, so that
none is fragmented.
"""

EXEC_PART_BYTES = 1152
"""Output in one part. With the 61 bytes around it, it fits EXEC_DATAGRAM_BYTES_MAX."""

EXEC_PARTS_PER_FETCH = 32
"""Most parts in one request: 36 KiB, which any receive buffer holds."""

EXEC_CLOCK_S = 60.0
"""Largest difference of the clocks of client and server, and longest time that a client may
retransmit before its request is stale.
"""

EXEC_COOKIE_S = 60.0
"""A cookie is valid for this long at least, and for twice as long at most."""

EXEC_RESULT_S = 300.0
"""How long the server keeps a result that was not fetched."""

EXEC_RECORDS_MAX = 8192
"""Records of executions and refusals, a KiB each, at most half of them of one key; a request beyond
is not answered until old records are removed.
"""

EXEC_NONCES_MAX = 65536
"""Nonces not yet stale that a server keeps; at 60 bytes each in a file of 4 MB."""

EXEC_NONCES_FILE_BYTES_MAX = 16 * MIB
"""Largest nonces file that is read: three times as many nonces as are kept, since stale ones stay
for a while, of 83 bytes at most.
"""

EXEC_CONCURRENT_MAX = 32
"""Commands one server runs at the same time, of all names together."""

EXEC_KEPT_BYTES_MAX = 64 * MIB
"""Output that all results together may hold; a running command counts with its limit."""

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

EXEC_ORPHANS_S = 0.25
"""Longest search for the orphans of a command in one go: a thousand processes."""

EXEC_ORPHANS_RETRY_S = 1.0
"""How long it serves before it continues an unfinished search."""

EXEC_KEYS_MAX = 1024
"""Keys in one file."""

EXEC_ARGUMENTS_MAX = 32
"""Arguments a command may take."""

EXEC_MATCH_S = 0.05
"""Processor time of the patterns of one request; a usual pattern takes microseconds."""

EXEC_MATCH_PENALTY_S = 5.0
"""How long a key is denied after a request that took longer: one key takes a hundredth of the
server's time at most.
"""

EXEC_RTO_S = 0.1
"""First retransmission timeout of a client; it doubles with each expiry (RFC 6298)."""

EXEC_RTO_MAX_S = 1.0
"""Longest retransmission timeout of a client."""

EXEC_TIMEOUT_S = 10.0
"""A client that receives no reply for this long gives up."""

EXEC_UNKNOWN_KEY_REPLIES = 10
"""UNKNOWN_KEY replies a second, and the burst, to requests that no key authenticates."""

EXEC_LOG_INTERVAL_S = 60.0
"""Shortest time between two lines of the log about unauthenticated datagrams."""


assert 3 * 83 * EXEC_NONCES_MAX <= EXEC_NONCES_FILE_BYTES_MAX, (
    "a busy server could not read its own nonces"
)
assert EXEC_PART_BYTES + 61 <= EXEC_DATAGRAM_BYTES_MAX, "a part would be fragmented"
assert 100 * EXEC_MATCH_S <= EXEC_MATCH_PENALTY_S, "one key could block the server with a pattern"
assert EXEC_TIMEOUT_S < EXEC_CLOCK_S, "a client would retransmit a stale request"
assert EXEC_OUTPUT_BYTES_MAX <= EXEC_KEPT_BYTES_MAX, "no server could keep the longest output"
