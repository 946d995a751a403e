"""Halls in one process, in one thread; a server by itself is alone on it. What the tests join halls
with.
"""

from __future__ import annotations

from collections import deque

from fastnet.apps.chat.backplane.contract import SAID, Taken
from fastnet.limits import CHAT_STREAM_ENTRIES


class Memory:
    """One end. bus: what the others of this backplane have too."""

    fd = -1

    def __init__(self, url: str = "memory", bus: list[Memory] | None = None) -> None:
        self.bus = bus if bus is not None else []
        self.said: deque[str] = deque(maxlen=CHAT_STREAM_ENTRIES)
        self.arrived: deque[Taken] = deque()

    def start(self) -> list[str]:
        earlier = list(self.bus[0].said) if self.bus else []
        self.said.extend(earlier)
        self.bus.append(self)
        return earlier

    def publish(self, topic: str, number: int, entry: str) -> int:
        for end in self.bus:
            if end is not self:
                end.arrived.append((topic, entry))
            if topic == SAID and len(self.bus) > 1:
                end.said.append(entry)
        return 0

    def take(self, most: int) -> list[Taken]:
        return [self.arrived.popleft() for _ in range(min(most, len(self.arrived)))]

    def close(self) -> None:
        if self in self.bus:
            self.bus.remove(self)


Backplane = Memory
