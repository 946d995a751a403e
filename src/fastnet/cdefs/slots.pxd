"""csrc/fn_slots.h"""
from libc.stdint cimport uint32_t, uint64_t

from fastnet.cdefs.trace cimport fn_trace

cdef extern from "fn_slots.h" nogil:
    enum:
        FN_FIN_RECEIVED
        FN_READ_INTEREST
        FN_WRITE_INTEREST
    struct fn_conn:
        int fd
        uint32_t generation
        uint32_t flags
        const char *write_buffer
        uint32_t write_buffer_bytes
    struct fn_slots:
        fn_conn *conn
        fn_trace *trace
        uint32_t capacity
        uint32_t open
        uint32_t used_max
    void fn_slots_touch(fn_slots *slots, uint32_t slot, uint32_t now_ms)
    uint32_t fn_slots_allocate(fn_slots *slots, int fd, uint32_t now_ms)
    fn_conn *fn_slots_find(fn_slots *slots, uint64_t tag)
    uint64_t fn_slots_tag(const fn_slots *slots, uint32_t slot)
