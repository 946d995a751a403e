"""What a process holds now, and what of it is new.

Descriptors, children and threads, as /proc tells it.

Facts. A detached native thread and a forked child are visible only to the kernel. A thread is
still listed for a moment after it was joined.
Decision: ask /proc, and give what is on its way out a second to be gone.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import eventually

GRACE_S = 2.0


def descriptors() -> dict[int, str]:
    """Open descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of this very listing
    return found


def threads() -> set[int]:
    """Kernel thread ids, also of threads Python does not know."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def children() -> set[int]:
    """Processes whose parent is this one, zombies too."""
    found: set[int] = set()
    for task in threads():
        try:
            found.update(
                int(pid) for pid in Path(f"/proc/self/task/{task}/children").read_text().split()
            )
        except OSError:
            continue  # the thread ended meanwhile
    return found


@dataclass(frozen=True)
class Leftovers:
    descriptors: dict[int, str]
    threads: set[int]
    children: set[int]

    @classmethod
    def now(cls) -> Leftovers:
        return cls(descriptors(), threads(), children())

    def new(self) -> list[str]:
        """What this process holds now and did not hold then, in words."""
        now = Leftovers.now()
        return [
            *(
                f"descriptor {fd} ({what})"
                for fd, what in now.descriptors.items()
                if self.descriptors.get(fd) != what
            ),
            *(f"thread {tid}" for tid in now.threads - self.threads),
            *(f"child {pid}" for pid in now.children - self.children),
        ]

    def what_is_new(self) -> list[str]:
        """The same once what is on its way out has gone."""
        if self.new():
            gc.collect()
            eventually(lambda: not self.new(), GRACE_S, fail=False)
        return self.new()
