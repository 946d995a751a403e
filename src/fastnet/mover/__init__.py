"""Movers between file and socket: one row each. To add one, write its file and its row.

`choose` selects the mover for a file by its type and by measurement (docs/benchmarks.md). With a
fast digest a copy through a buffer in the cache is cheaper than a zero-copy call and a second pass
over the page cache.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from fastnet import probes
from fastnet.errors import UnsupportedError
from fastnet.mover.contract import Mover
from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class MoverRow(Row):
    """A mover and the directions it is made for; in the other one it copies."""

    sends: bool = True
    """From a file to a socket."""
    receives: bool = True
    """From a socket to a file."""


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

SEND_ORDER = ("sendfile", "splice", "copy")
"""Best first: sendfile(2) is splice(2) with a pipe of its own and half the system calls."""

RECEIVE_ORDER = ("splice", "copy")
"""Best first, the same on every file system measured (ext4, tmpfs, overlay)."""


@dataclass(frozen=True)
class MoverChoice:
    """A mover and a backend that work here."""

    name: str
    """Row of MOVERS."""
    backend: str
    """native or python."""
    reason: str
    """Why this one, for the report."""

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
    """Select the mover for a file.

    Args:
        direction: "send" or "receive".
        file_fd: The open file; not used when `mover` is named.
        mover: A row of MOVERS, or "auto".
        backend: "native", "python" or "auto".
        is_tapped: A digest as fast as memory reads the bytes on their way (M12).
    Raises:
        UnsupportedError: A mover or backend requested by name is not available.
    """
    names: tuple[str, ...] = (mover,)
    why = "asked for"
    if mover == "auto":
        names, why = candidates(direction, file_fd, is_tapped)
    elif mover not in (supported := movers_for(direction)):
        raise UnsupportedError(
            f"{mover} cannot {direction}", f"Movers that can: {', '.join(supported)}"
        )
    found = MOVERS.choose(names, backend, purpose="cannot move a file")
    reason = f"{why}; {found.reason}" if found.reason else why
    return MoverChoice(found.name, found.backend, reason)


def movers_for(direction: str) -> list[str]:
    """Names of the movers made for a direction."""
    return [
        name for name, row in MOVERS.items() if (row.sends if direction == "send" else row.receives)
    ]


def candidates(direction: str, file_fd: int, is_tapped: bool) -> tuple[tuple[str, ...], str]:
    """Movers for this file, best first, and why."""
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        return ("copy",), "a stream has no offsets"
    if is_tapped:
        return ("copy",), "digest in the same buffer"
    if direction == "send":
        return SEND_ORDER, "fewest copies and calls"
    return RECEIVE_ORDER, "fewest copies"
