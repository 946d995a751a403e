"""csrc/fn_batch_receive.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.batch cimport fn_batch

cdef extern from "fn_batch_receive.h" nogil:
    int fn_batch_receive(fn_batch *batch, unsigned int messages_max)
    char *fn_batch_message(fn_batch *batch, uint32_t i, uint32_t *bytes, uint32_t *segment)
