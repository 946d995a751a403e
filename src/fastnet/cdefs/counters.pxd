"""csrc/fn_counters.h"""
from libc.stdint cimport uint64_t

cdef extern from "fn_counters.h" nogil:
    const char *fn_counter_names
    struct fn_counters:
        uint64_t accepted
        uint64_t accept_pauses
        uint64_t write_buffer_bytes
        uint64_t ring_starved
        uint64_t ring_overflows
        uint64_t busy_poll_hits
        uint64_t busy_poll_misses
        uint64_t bytes_in
        uint64_t messages
        uint64_t unanswered
        uint64_t truncated
        uint64_t kernel_drops
        uint64_t amplification_blocked
        uint64_t handler_errors
    enum fn_closed:
        FN_FINISHED
        FN_RESET
        FN_IDLE
        FN_DENIED
        FN_REFUSED
        FN_OVERLOAD
        FN_KILLED
        FN_STOPPED
        FN_ERROR
    void fn_count(uint64_t *word, uint64_t n)
    void fn_count_closed(fn_counters *row, fn_closed why)
