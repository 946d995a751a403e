"""csrc/fn_mover_slice.h"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastnet.cdefs.mover cimport fn_mover, fn_step

cdef extern from "fn_mover_slice.h" nogil:
    int fn_move_some(
        fn_mover *m, fn_step step, int out, int sock, int file, int64_t offset, uint64_t count,
        uint32_t slice_ms, uint64_t *moved, int *ended,
    )
