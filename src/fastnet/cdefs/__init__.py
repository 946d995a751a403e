"""Declarations of the headers in csrc: cdefs/STEM.pxd for csrc/fn_STEM.h."""
