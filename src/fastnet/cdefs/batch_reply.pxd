"""csrc/fn_batch_reply.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.batch cimport fn_batch
from fastnet.cdefs.service cimport fn_reply

cdef extern from "fn_batch_reply.h" nogil:
    void fn_batch_add_reply(
        fn_batch *batch, uint32_t peer, const fn_reply *reply, size_t request
    )
