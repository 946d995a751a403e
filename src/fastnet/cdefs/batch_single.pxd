"""csrc/fn_batch_single.h"""
from fastnet.cdefs.batch cimport fn_batch
from fastnet.cdefs.service cimport fn_reply

cdef extern from "fn_batch_single.h" nogil:
    int fn_single_take(fn_batch *batch)
    void fn_single_answer(fn_batch *batch, const fn_reply *reply, size_t request)
