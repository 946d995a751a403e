"""Contract of a backplane: what joins chat servers, as numbered sentences that tests cite.

B1  A published entry arrives at every other server of the backplane, and the entries of one server
    in its order. Within a topic an entry may arrive twice, or return to its publisher: entries
    carry their server and number, and receivers skip duplicates.
B2  `publish` and `take` never block, whatever the state of the backplane.
B3  Entries published while the backplane is unreachable are kept, up to CHAT_BACKLOG_MAX, and
    published when it is reachable again; of PRESENCE only the last. Entries that other servers
    published meanwhile arrive then.
B4  Entries that are not taken are not read: a slow receiver costs no memory except the backplane's.
B5  After an outage `take` returns an entry RECONNECTED, so that presence can be published anew.
"""

from __future__ import annotations

from typing import Protocol

MESSAGE, PRESENCE, RECONNECTED = "message", "presence", "reconnected"
"""Topics. The backplane keeps the last CHAT_STREAM_ENTRIES of MESSAGE and a few of PRESENCE."""

Entry = tuple[str, str]
"""A topic, and the text of an entry."""


class Backplane(Protocol):
    """One server's connection to a backplane."""

    fd: int
    """Readable when `take` has entries; -1: publishers are in the same thread."""

    def start(self) -> list[str]:
        """Connect. Returns the kept entries of MESSAGE, oldest first. Raises FastnetError."""

    def publish(self, topic: str, number: int, entry: str) -> int:
        """Queue an entry for the other servers.

        Args:
            topic: MESSAGE or PRESENCE.
            number: Higher than that of every entry before.
            entry: Its text.
        Returns:
            How many older entries were dropped to make room for it.
        """

    def take(self, most: int) -> list[Entry]:
        """Up to `most` arrived entries, in order."""

    def close(self) -> None:
        """Publish queued entries for up to CHAT_FLUSH_S, and disconnect. May be called twice."""
