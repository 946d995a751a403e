"""Who is in a hall, and what is counted there."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from fastnet.udp.contract import Peer
from fastnet.udp.server import DatagramServerStatistics, counted


@dataclass
class Statistics(DatagramServerStatistics):
    """What came and what became of it."""

    online: int = counted("Members of this server now.", "gauge")
    messages: int = counted("Messages taken and passed on.")
    hints: int = counted("Answers to addresses that are not online.")
    junk: int = counted("Datagrams, and entries of the backplane, that mean nothing.")
    slowed: int = counted("Messages beyond a member's rate.")
    amplification_blocked: int = counted("Datagrams that an unproven address did not get.")
    strangers: int = counted("Datagrams that no key signed.")
    replayed: int = counted("Signed datagrams that had come before.")
    gone: int = counted("Members that did not leave by themselves.")
    elsewhere: int = counted("Messages of other servers.")
    unpublished: int = counted("Entries dropped because the backplane was away for too long.")


class Bucket:
    """So many a second, and some at once after a rest."""

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self.rate, self.burst, self.left, self.at_s = rate, burst, burst, now_s

    def take(self, now_s: float) -> bool:
        self.left = min(self.burst, self.left + (now_s - self.at_s) * self.rate)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Member:
    """An address that is online. name: "" for a textbook program. credit_bytes: what it may still
    get;
    None is no limit.

    room: "" is where textbook programs are.
    """

    peer: Peer
    name: str
    heard_s: float
    bucket: Bucket
    credit_bytes: int | None = None
    room: str = ""
    was_told: bool = False
    said: int = 0
    visit: str = ""
    number: int = 0
    sent_number: int = 0
    unread: deque[tuple[int, bytes]] = field(default_factory=deque)
    resend_s: float = 0.0
    resends: int = 0
    since_us: int = field(default_factory=lambda: time.time_ns() // 1000)

    @property
    def title(self) -> str:
        """What others see."""
        return self.name or f"{self.peer[0]}--{self.peer[1]}"


@dataclass(frozen=True)
class Away:
    """Somebody who is online at another server of the backplane. since_us: when they came, in
    microseconds since 1970.
    """

    title: str
    peer: tuple[str, int]
    room: str
    since_us: int
