"""Identity of a source file, for resuming, and the unit of its allocated size."""

from __future__ import annotations

import os

BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""


def identity(found: os.stat_result) -> str:
    """The identity of a file: device, inode and ctime.

    It changes when the file is replaced or written to; utimensat(2) cannot set a ctime.
    """
    return f"{found.st_dev:x}-{found.st_ino:x}-{found.st_ctime_ns:x}"
