"""Declarations of the headers in csrc: one .pxd a header, cdefs/STEM.pxd for csrc/fn_STEM.h."""
