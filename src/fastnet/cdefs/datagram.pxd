"""csrc/fn_datagram.h and csrc/fn_replies.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.service cimport fn_reply
from fastnet.cdefs.work cimport fn_work

cdef extern from "fn_replies.h" nogil:
    enum:
        FN_BATCH
        FN_PIECES
    struct fn_batch:
        const fn_work *work
        fn_counters *row
        uint32_t trains
        uint32_t pieces
        uint32_t replies
        fn_reply *reply
    fn_batch *fn_batch_open(const fn_work *work, int fd)
    void fn_batch_close(fn_batch *batch)
    int fn_batch_take(fn_batch *batch)
    char *fn_batch_train(fn_batch *batch, uint32_t i, uint32_t *bytes, uint32_t *segment)
    void fn_batch_answer(fn_batch *batch, uint32_t peer, const fn_reply *reply)
    void fn_batch_flush(fn_batch *batch)
