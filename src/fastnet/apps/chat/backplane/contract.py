"""What joins chat servers, as sentences that tests cite.

B1  An entry that is published arrives at every other server of the backplane, and those of one
server in its order. Within a
    topic it may arrive twice, or come back to who published it: entries name their server and number, and readers skip.
B2  `publish` and `take` never wait, whatever state the backplane is in. B3  What is published while
the backplane is away is kept, up to CHAT_BACKLOG_MAX entries, and published when it is back; of
    HERE only the last. What others published meanwhile arrives then.
B4  What nobody takes is not read: a slow reader costs no memory but the backplane's own.
B5  After an outage `take` gives an entry BACK, that one may say anew who is here.
"""

from __future__ import annotations

from typing import Protocol

SAID, HERE, BACK = "said", "here", "back"
"""Topics. Of SAID the backplane keeps the last CHAT_STREAM_ENTRIES, of HERE a few."""

Taken = tuple[str, str]
"""A topic and an entry."""


class Backplane(Protocol):
    """One server's end."""

    fd: int
    """Readable when `take` has something; -1: whoever publishes is in this thread."""

    def start(self) -> list[str]:
        """Connect. Returns the entries of SAID that are kept, oldest first. Raises FastnetError."""

    def publish(self, topic: str, number: int, entry: str) -> int:
        """Send an entry to the others. number: rises. Returns how many older ones had to be dropped
        for it.
        """

    def take(self, most: int) -> list[Taken]:
        """Up to `most` entries that have arrived, in order."""

    def close(self) -> None:
        """Publish what is waiting, if that is quick, and disconnect."""
