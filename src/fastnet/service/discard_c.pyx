"""Discard (RFC 863), native: a table without `data`, so the kernel discards TCP bytes.

The bytes are not copied (MSG_TRUNC, tcp(7)). The pure twin is discard_py.py.
"""

from fastnet.engine.context_c cimport NativeService


def create():
    return NativeService(b"")
