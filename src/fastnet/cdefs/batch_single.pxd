"""csrc/fn_batch_single.h"""
from fastnet.cdefs.batch cimport fn_batch
from fastnet.cdefs.service cimport fn_reply

cdef extern from "fn_batch_single.h" nogil:
    int fn_batch_single_receive(fn_batch *batch)
    void fn_batch_single_reply(fn_batch *batch, const fn_reply *reply, size_t request)
