"""Declarations of the csrc headers, one .pxd each, and the one extension type that hands work to
native loops.
"""
