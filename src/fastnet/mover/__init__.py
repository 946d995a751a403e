"""File to socket and back, how: one row a mover. To add one, write its file and its row.

`choose` settles which one moves a file, by what the file is, where it is and what was measured
there (docs/benchmarks.md).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from fastnet import probes
from fastnet.errors import UnsupportedError
from fastnet.mover.contract import Mover
from fastnet.registry import BACKENDS, Registry, Row


@dataclass(frozen=True)
class MoverRow(Row):
    """sends, receives: which direction it is made for; in the other one it copies."""

    sends: bool = True
    receives: bool = True


MOVERS: Registry[MoverRow] = Registry(
    __name__,
    {
        "sendfile": MoverRow(
            "page cache to socket, no copy",
            "sendfile_py",
            "sendfile_c",
            needs=lambda: probes.why_not(probes.sendfile),
            receives=False,
        ),
        "splice": MoverRow(
            "through a pipe, one copy less",
            "splice_py",
            "splice_c",
            needs=lambda: probes.why_not(probes.splice),
        ),
        "copy": MoverRow("through a buffer, any file or stream", "copy_py", "copy_c"),
    },
)

SENDS_BEST = ("sendfile", "splice", "copy")
"""The same on every file system: sendfile(2) is splice(2) with a pipe of its own and half the
calls.
"""

RECEIVES_BEST = {
    "tmpfs": ("splice", "copy"),
    "ext4": ("splice", "copy"),
    "overlay": ("splice", "copy"),
    "": ("splice", "copy"),
}
"""By type of the file system; "" is every other one."""


@dataclass(frozen=True)
class MoverChoice:
    """A mover and a backend that work here, and why just these."""

    name: str
    backend: str
    reason: str

    def make(self) -> Mover:
        """A new mover, for one direction of one socket."""
        mover: Mover = MOVERS.load(self.name, self.backend).Mover()
        return mover


def choose(
    direction: str,
    file_fd: int,
    mover: str = "auto",
    backend: str = "auto",
    is_tapped: bool = False,
) -> MoverChoice:
    """Settle `auto`. direction: "send" or "receive". is_tapped: somebody wants to read along, at
    memory's speed.

    Raises UnsupportedError for what is asked for by name and absent.
    """
    names: tuple[str, ...] = (mover,)
    why = "asked for"
    if mover == "auto":
        names, why = best(direction, file_fd, is_tapped)
    elif mover not in able(direction):
        raise UnsupportedError(
            f"{mover} cannot {direction}", f"Movers that can: {', '.join(able(direction))}"
        )
    refused: list[str] = []
    for candidate in BACKENDS if backend == "auto" else (backend,):
        for name in names:
            missing = MOVERS.why_not(name, candidate)
            if not missing:
                return MoverChoice(name, candidate, f"{why}; {refused[0]}" if refused else why)
            refused.append(f"no {candidate} {name}: {missing}")
    hint = "`fastnet doctor` lists what works here and why the rest does not"
    raise UnsupportedError(f"cannot move a file: {refused[0]}", hint)


def able(direction: str) -> list[str]:
    """Movers made for a direction."""
    return [
        name for name, row in MOVERS.items() if (row.sends if direction == "send" else row.receives)
    ]


def best(direction: str, file_fd: int, is_tapped: bool) -> tuple[tuple[str, ...], str]:
    """Movers for this file, the best first, and why.

    A copy through a buffer in the cache is cheaper than none and a second look at the page cache
    (docs/benchmarks.md).
    """
    status = os.fstat(file_fd)
    if not stat.S_ISREG(status.st_mode):
        return ("copy",), "a stream has no offsets"
    if is_tapped:
        return ("copy",), "digest in the same buffer"
    if direction == "send":
        return SENDS_BEST, "fewest copies and calls"
    kind = file_system(status.st_dev)
    return RECEIVES_BEST.get(
        kind, RECEIVES_BEST[""]
    ), f"measured best on {kind or 'most file systems'}"


def file_system(device: int) -> str:
    """The type of the file system on a device (proc(5), mountinfo), or "" when it cannot be
    told.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                if before.split()[2] == wanted:
                    return after.split()[0]
    except OSError:
        pass
    return ""
