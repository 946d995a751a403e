"""splice(2) mover, native: csrc/fn_mover.h. Twin: splice_py.py."""

from fastnet.cdefs.mover cimport fn_splice_in, fn_splice_out
from fastnet.mover._base_c cimport NativeMover

from fastnet.mover._pipe import open_pipe


cdef class Mover(NativeMover):
    """One direction of one socket."""

    def __cinit__(self):
        self.name = "splice"
        self.out = fn_splice_out
        self.into = fn_splice_in
        self.c.pipe_out, self.c.pipe_in, self.c.pipe_bytes = open_pipe()

    @property
    def pipe_bytes(self):
        return self.c.pipe_bytes
