"""csrc/fn_slots.h"""
from libc.stdint cimport uint32_t, uint64_t

from fastnet.cdefs.trace cimport fn_trace

cdef extern from "fn_slots.h" nogil:
    enum:
        FN_PEER_EOF
        FN_READS
        FN_WRITES
    struct fn_conn:
        int fd
        uint32_t generation
        uint32_t flags
        const char *write_buffer
        uint32_t write_buffer_bytes
    struct fn_slots:
        fn_conn *conn
        fn_trace *trace
        uint32_t open
        uint32_t capacity
        uint32_t touched
    void *fn_map(size_t bytes)
    void fn_unmap(void *p, size_t bytes)
    uint32_t fn_slot_take(fn_slots *slots, int fd, uint32_t now_ms)
    fn_conn *fn_slot_of(fn_slots *slots, uint64_t tag)
    uint64_t fn_slot_tag(const fn_slots *slots, uint32_t slot)
    void fn_idle_touch(fn_slots *slots, uint32_t slot, uint32_t now_ms)
