"""Discard (RFC 863), native: a table without `data`, so the kernel drops TCP bytes uncopied. Twin:
discard_py.py.
"""

from fastnet.engine.context_c cimport NativeService


def create():
    return NativeService(b"")
