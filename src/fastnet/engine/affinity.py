"""CPU affinity of loops: parsing of --cpus, assignment, sched_setaffinity(2).

Facts. The scheduler moves a thread to any free processor, and a moved thread has cold caches.
Affinity belongs to a thread and is inherited by the threads and children it starts
(sched_setaffinity(2)).
Decision: each loop is bound before it starts, so its threads and children share its processor.
`usable` is what this process may use, by its own affinity or its container's, not what the machine
has.
Cost: a loop waits for its own processor even while another one is idle.
"""

from __future__ import annotations

import os

from fastnet.errors import ConfigError

AUTO = "auto"


def usable() -> list[int]:
    """The processors this process may run on."""
    return sorted(os.sched_getaffinity(0))


def parse(text: str) -> tuple[int, ...]:
    """Parse a list of processors such as "0-3,6"; () for "auto". Raises ConfigError."""
    if text == AUTO:
        return ()
    found: list[int] = []
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)):
            raise ConfigError(
                f"{text!r} is not a list of processors",
                "Write numbers and ranges, as in 0-3,6, or auto",
            )
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ConfigError(
            f"{text!r} names no processor", "A range goes from its smaller number to its larger"
        )
    return tuple(found)


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def assign(text: str, loops: int) -> list[int]:
    """A processor for each loop, in turn. Raises ConfigError for one this process may not use."""
    here = usable()
    chosen = parse(text) or tuple(here)
    if forbidden := sorted(set(chosen) - set(here)):
        names = ", ".join(map(str, forbidden))
        raise ConfigError(
            f"cannot run on processor {names}", f"Usable here: {', '.join(map(str, here))}"
        )
    return [chosen[i % len(chosen)] for i in range(loops)]


def bind(cpu: int | None) -> None:
    """Keep the calling thread on one processor; None leaves it free."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
