"""Bounds of the group chat."""

from __future__ import annotations

from fastnet.limits.server import UNVALIDATED_REPLY_BYTES_MAX

CHAT_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of a chat; EXEC_DATAGRAM_BYTES_MAX says why."""

CHAT_TEXT_BYTES_MAX = 448
"""Longest message. With ADDRESS--PORT# before it, 47 bytes at most, it stays below
UNVALIDATED_REPLY_BYTES_MAX.
"""

CHAT_NAME_CHARACTERS_MAX = 24
"""Longest name of a member."""

CHAT_MEMBERS_MAX = 1024
"""Members of one server at once."""

CHAT_RATE = 5
"""Messages a second that a member may send for long."""

CHAT_BURST = 20
"""Messages a member may send at once after a rest."""

CHAT_SILENT_S = 30.0
"""A member of chat/1 that was not heard for so long is gone; its client is heard three times in
that while.
"""

CHAT_TEXTBOOK_SILENT_S = 600.0
"""The same for a member that only said `online`, as no program says more than that for its user."""

CHAT_UNREAD_MAX = 256
"""Events a member of chat/1 may have unacknowledged; one more and it is gone."""

CHAT_WINDOW = 16
"""Unacknowledged events that are on the way to one member at once."""

CHAT_HISTORY = 50
"""Messages of a room that somebody who comes is told; at most 16 events are on the way at once, so
it is no burst.
"""

CHAT_ROOMS_MAX = 256
"""Rooms whose messages are kept. The one that was silent longest is forgotten first."""

CHAT_HINTS = 50
"""Hints a second to addresses that are not online."""

CHAT_COOKIE_S = 60.0
"""A cookie, and the server's nonce under a key, are good for this long at least, and for twice as
long at most.
"""

CHAT_SESSIONS_MAX = 4096
"""Runs of members with a key that a server remembers, so that nothing recorded begins one again; 1
KiB each.
"""

CHAT_COMPLAINT_S = 60.0
"""Least time between two lines of the log about datagrams that no key signed."""

CHAT_BACKLOG_MAX = 4096
"""Entries that wait for a backplane that is away; then the oldest are dropped. 4 MB at most."""

CHAT_STREAM_ENTRIES = 10_000
"""Messages of all rooms that a backplane keeps for servers that were away and for those that start;
5 MB.
"""

CHAT_HERE_ENTRIES = 64
"""Lists of who is online that a backplane keeps; only the last one of each server means
something.
"""

CHAT_HERE_S = 5.0
"""A server says who is online there whenever that changes, and so often when it does not."""

CHAT_SERVER_SILENT_S = 16.0
"""Members of a server that was not heard on the backplane for so long are offline."""

CHAT_SERVERS_MAX = 1024
"""Servers, those of earlier runs too, of which it is known which entries have come."""

CHAT_TURN_ENTRIES = 64
"""Entries of the backplane that are passed on before the socket is looked at again."""

CHAT_CATCH_UP_S = 2.0
"""How long what was missed waits for a member that does not keep up. Then the others get it without
that one.
"""

CHAT_REDIS_PATIENCE_S = 2.0
"""A Redis that has not answered for so long is away."""

CHAT_REDIS_REST_S = 0.1
"""First rest before Redis is tried again; each next one is twice as long."""

CHAT_REDIS_REST_MAX_S = 5.0
"""Longest rest before Redis is tried again."""

CHAT_LAST_WORDS_S = 1.0
"""How long a server that stops may take to publish what it has not yet."""

CHAT_SCROLL_LINES = 1000
"""Lines that the screen of a member keeps to scroll back; half a MB."""

CHAT_INPUT_CHARACTERS_MAX = 4000
"""Longest line that can be typed on a screen; it becomes nine messages or so."""

CHAT_TIMEOUT_S = 10.0
"""A chat client that has heard nothing for so long gives up."""


assert CHAT_HISTORY + CHAT_WINDOW < CHAT_UNREAD_MAX, (
    "who comes would be gone before reading what was said"
)
assert CHAT_TEXT_BYTES_MAX + 47 <= UNVALIDATED_REPLY_BYTES_MAX, (
    "a textbook member that proves nothing could not get a whole message"
)
assert CHAT_SESSIONS_MAX >= 2 * CHAT_MEMBERS_MAX, "members that were restarted could not come back"
assert 2 * CHAT_COOKIE_S > CHAT_SILENT_S, (
    "the session of a member could be forgotten while the member is in"
)
assert CHAT_SERVER_SILENT_S > 3 * CHAT_HERE_S, "a late entry would take a server's members offline"
assert 3 * CHAT_TIMEOUT_S <= CHAT_SILENT_S, "a lost sign of life would end a membership"
