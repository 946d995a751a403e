"""Limits of the group chat; each with its unit."""

from __future__ import annotations

from fastnet.limits.server import UNVALIDATED_REPLY_BYTES_MAX

CHAT_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of a chat; the reason is at EXEC_DATAGRAM_BYTES_MAX."""

CHAT_TEXT_BYTES_MAX = 448
"""Longest message. With ADDRESS--PORT# before it, 47 bytes at most, it stays below
UNVALIDATED_REPLY_BYTES_MAX.
"""

CHAT_NAME_CHARACTERS_MAX = 24
"""Longest name of a member or room."""

CHAT_MEMBERS_MAX = 1024
"""Most members of one server."""

CHAT_RATE = 5
"""Messages per second of one member, over a long time."""

CHAT_BURST = 20
"""Messages that a member may send in one burst."""

CHAT_IDLE_TIMEOUT_S = 30.0
"""Idle timeout of a member of chat/1; its client sends three keepalives in that time."""

CHAT_TEXTBOOK_IDLE_TIMEOUT_S = 600.0
"""Idle timeout of a textbook program, which sends no keepalives."""

CHAT_UNACKNOWLEDGED_MAX = 256
"""Events that a member of chat/1 may have unacknowledged; above it the member is disconnected."""

CHAT_WINDOW = 16
"""Unacknowledged events in flight to one member."""

CHAT_HISTORY = 50
"""Messages of a room that a joining member is sent; CHAT_WINDOW bounds the burst."""

CHAT_ROOMS_MAX = 256
"""Rooms whose messages are kept; the one whose last message is oldest is dropped first."""

CHAT_HINTS = 50
"""Hints per second to addresses that are not online."""

CHAT_COOKIE_S = 60.0
"""Period of a cookie, and of the server's nonce under a key: it is valid for this long at least,
and for twice as long at most.
"""

CHAT_SESSIONS_MAX = 4096
"""Authenticated sessions that a server keeps, so that no recording begins one again; 1 KiB each."""

CHAT_LOG_INTERVAL_S = 60.0
"""Least time between two log lines about unauthenticated datagrams."""

CHAT_BACKLOG_MAX = 4096
"""Entries queued for an unreachable backplane; above it the oldest are dropped. 4 MB at most."""

CHAT_STREAM_ENTRIES = 10_000
"""Messages of all rooms that a backplane keeps, for servers that were disconnected and for those
that start; 5 MB.
"""

CHAT_PRESENCE_ENTRIES = 64
"""Member lists that a backplane keeps; only the last one of each server counts."""

CHAT_PRESENCE_S = 5.0
"""Interval at which a server publishes its member list when it has not changed."""

CHAT_SERVER_TIMEOUT_S = 16.0
"""Members of a server that has published no member list for this long are offline."""

CHAT_SERVERS_MAX = 1024
"""Servers, including earlier runs, whose highest entry numbers are kept."""

CHAT_BACKPLANE_BATCH = 64
"""Entries of the backplane that are processed before the socket is polled again."""

CHAT_CATCH_UP_S = 2.0
"""How long missed entries wait for a member that does not acknowledge events; then the others
receive them without that member.
"""

CHAT_REDIS_TIMEOUT_S = 2.0
"""A Redis that has not answered for this long is unreachable."""

CHAT_REDIS_BACKOFF_S = 0.1
"""First delay before reconnecting to Redis; each following one is twice as long."""

CHAT_REDIS_BACKOFF_MAX_S = 5.0
"""Longest delay before reconnecting to Redis."""

CHAT_FLUSH_S = 1.0
"""How long a stopping server may take to publish its queued entries."""

CHAT_SCROLL_LINES = 1000
"""Lines that the screen of a client keeps to scroll back; half a MB."""

CHAT_INPUT_CHARACTERS_MAX = 4000
"""Longest line that can be typed on a screen; it is sent as about nine messages."""

CHAT_TIMEOUT_S = 10.0
"""A client that has received nothing for this long gives up."""


assert CHAT_HISTORY + CHAT_WINDOW < CHAT_UNACKNOWLEDGED_MAX, (
    "a joining member would be disconnected before it has acknowledged the history"
)
assert CHAT_TEXT_BYTES_MAX + 47 <= UNVALIDATED_REPLY_BYTES_MAX, (
    "a textbook member with an unvalidated address could not be sent a whole message"
)
assert CHAT_SESSIONS_MAX >= 2 * CHAT_MEMBERS_MAX, "restarted clients could not join again"
assert 2 * CHAT_COOKIE_S > CHAT_IDLE_TIMEOUT_S, (
    "the session of a member could be dropped while the member is online"
)
assert CHAT_SERVER_TIMEOUT_S > 3 * CHAT_PRESENCE_S, (
    "a late entry would take a server's members offline"
)
assert 3 * CHAT_TIMEOUT_S <= CHAT_IDLE_TIMEOUT_S, "a lost keepalive would end a membership"
