"""csrc/fn_batch.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.context cimport fn_context
from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.service cimport fn_call, fn_calls, fn_reply
from fastnet.cdefs.sys cimport sockaddr_storage

cdef extern from "fn_batch.h" nogil:
    enum:
        FN_BATCH
        FN_CALLS
        FN_PIECES
    struct fn_batch:
        int fd
        const fn_context *context
        fn_counters *row
        uint32_t replies
        fn_reply *reply
        sockaddr_storage *peer
        fn_calls calls
        fn_call *call
    fn_batch *fn_batch_open(const fn_context *context, int fd, int joins)
    void fn_batch_close(fn_batch *batch)
    uint32_t fn_batch_peer_bytes(const fn_batch *batch, uint32_t i)
