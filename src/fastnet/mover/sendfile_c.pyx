"""sendfile(2) mover, native: csrc/fn_mover.h. Twin: sendfile_py.py."""

from fastnet.cdefs.mover cimport fn_sendfile_in, fn_sendfile_out
from fastnet.mover._base_c cimport NativeMover


cdef class Mover(NativeMover):
    """One direction of one socket."""

    def __cinit__(self):
        self.name = "sendfile"
        self.out = fn_sendfile_out
        self.into = fn_sendfile_in
