"""csrc/fn_batch.h, csrc/fn_batch_loop.h, csrc/fn_batch_reply.h and csrc/fn_batch_single.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.service cimport fn_call, fn_calls, fn_reply
from fastnet.cdefs.sys cimport sockaddr_storage
from fastnet.cdefs.context cimport fn_context

cdef extern from "fn_batch_single.h" nogil:
    enum:
        FN_BATCH
        FN_CALLS
        FN_PIECES
    struct fn_batch:
        const fn_context *context
        fn_counters *row
        uint32_t trains
        uint32_t pieces
        uint32_t replies
        fn_reply *reply
        sockaddr_storage *peer
        fn_calls calls
        fn_call *call
    uint32_t fn_batch_peer_bytes(const fn_batch *batch, uint32_t i)
    int fn_batch_take(fn_batch *batch, unsigned int most)
    char *fn_batch_train(fn_batch *batch, uint32_t i, uint32_t *bytes, uint32_t *segment)
    void fn_batch_answer(fn_batch *batch, uint32_t peer, const fn_reply *reply, size_t request)
    void fn_batch_flush(fn_batch *batch)
    int fn_single_take(fn_batch *batch)
    void fn_single_answer(fn_batch *batch, const fn_reply *reply, size_t request)

cdef extern from "fn_batch_loop.h" nogil:
    int fn_batch_run(const fn_context *context, int joins, int (*turn)(fn_batch *, int) noexcept nogil, int most, int sweep)
