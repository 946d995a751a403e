"""A child process with one system call denied by a seccomp(2) filter.

A container's filter and an old kernel deny it too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
IO_URING_SETUP = 425


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def blocks(error: int, call: int = IO_URING_SETUP) -> Callable[[], None]:
    """What a child does before it executes a command (preexec_fn).

    From then on `call` fails with `error`.
    """
    steps = [
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, call),
        (RETURN, 0, 0, FAIL_WITH | error),
        (RETURN, 0, 0, ALLOW),
    ]
    text = b"".join(struct.pack("HBBI", *step) for step in steps)
    program = Program(len(steps), text)
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def install() -> None:
        for arguments in (
            (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)),
        ):
            if prctl(*arguments) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return install
