"""Copy mover, native: csrc/fn_mover.h. Twin: copy_py.py."""

from fastnet.cdefs.mover cimport fn_copy_in, fn_copy_out
from fastnet.mover._base_c cimport NativeMover


cdef class Mover(NativeMover):
    """One direction of one socket."""

    def __cinit__(self):
        self.name = "copy"
        self.out = fn_copy_out
        self.into = fn_copy_in
