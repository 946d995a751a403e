"""Errors of the receiver's file system as TransferError with a hint, and the umask.

Used by raw mode and by fastnet/1, so that both report the same failure in the same words.
"""

from __future__ import annotations

import errno

from fastnet.apps.transfer.events import ErrorCode
from fastnet.errors import TransferError, TransferRefused, reason

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or over the file size limit."""
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""link(2) on a file system that has no hard links, or no more for this file."""


def cannot_write(name: str, error: OSError | ValueError) -> TransferError:
    """The error of a failed write to `name`; ValueError stands for a path with a NUL byte."""
    why = reason(error) if isinstance(error, OSError) else "not a path"
    if isinstance(error, OSError) and error.errno in FULL:
        hint = (
            "Free some space, raise the limit (ulimit -f, quota), or receive to another file system"
        )
        return TransferError(f"cannot write {name}: {why}", hint, ErrorCode.DISK_FULL)
    if isinstance(error, BrokenPipeError):
        return TransferError(f"cannot write {name}: its reader is gone", "", ErrorCode.TARGET)
    return TransferError(
        f"cannot write {name}: {why}", "Check the folder and its permissions", ErrorCode.TARGET
    )


def came_into_being(name: str) -> TransferRefused:
    """The error for a target that another process created during the transfer."""
    hint = "Receive elsewhere, or say --overwrite always"
    return TransferRefused(f"{name} came into being while it was received", hint, ErrorCode.EXISTS)


def umask() -> int:
    """The umask of this process, from /proc: umask(2) cannot be read without setting it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
