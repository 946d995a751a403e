"""Backplane in one process and one thread; with one server it has no other receivers.

The default of `chat serve`, and what tests join several servers with.
"""

from __future__ import annotations

from collections import deque

from fastnet.apps.chat.backplane.contract import MESSAGE, Entry
from fastnet.limits import CHAT_STREAM_ENTRIES


class Memory:
    """One server's connection.

    Args:
        url: "memory".
        bus: The connections of this backplane, shared by all of them; None begins a new one.
    """

    fd = -1

    def __init__(self, url: str = "memory", bus: list[Memory] | None = None) -> None:
        self.bus = bus if bus is not None else []
        self.kept: deque[str] = deque(maxlen=CHAT_STREAM_ENTRIES)
        self.arrived: deque[Entry] = deque()

    def start(self) -> list[str]:
        kept = list(self.bus[0].kept) if self.bus else []
        self.kept.extend(kept)
        self.bus.append(self)
        return kept

    def publish(self, topic: str, number: int, entry: str) -> int:
        for connection in self.bus:
            if connection is not self:
                connection.arrived.append((topic, entry))
            if topic == MESSAGE and len(self.bus) > 1:
                connection.kept.append(entry)
        return 0

    def take(self, most: int) -> list[Entry]:
        return [self.arrived.popleft() for _ in range(min(most, len(self.arrived)))]

    def close(self) -> None:
        if self in self.bus:
            self.bus.remove(self)


Backplane = Memory
