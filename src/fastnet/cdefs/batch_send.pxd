"""csrc/fn_batch_send.h"""
from fastnet.cdefs.batch cimport fn_batch

cdef extern from "fn_batch_send.h" nogil:
    void fn_batch_flush(fn_batch *batch)
