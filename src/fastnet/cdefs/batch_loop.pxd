"""csrc/fn_batch_loop.h"""
from fastnet.cdefs.batch cimport fn_batch
from fastnet.cdefs.context cimport fn_context

cdef extern from "fn_batch_loop.h" nogil:
    ctypedef int (*fn_turn)(fn_batch *, int) noexcept nogil
    int fn_batch_run(const fn_context *context, int joins, fn_turn turn, int most, int sweep)
