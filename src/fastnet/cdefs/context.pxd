"""csrc/fn_context.h"""
from libc.stdint cimport uint32_t, uint64_t

from fastnet.cdefs.access cimport fn_access
from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.service cimport fn_service

cdef extern from "fn_context.h" nogil:
    enum:
        FN_LISTENERS_MAX
    enum fn_stop:
        FN_RUN
        FN_DRAIN
        FN_NOW
    struct fn_context:
        int *listener
        int listeners
        const fn_service *service
        fn_access access
        const uint32_t *stop
        int drain_fd
        int now_fd
        char *rows
        uint32_t row_bytes
        int trace_fd
        uint32_t max_connections
        uint32_t accept_burst
        uint32_t accept_drain_max
        uint32_t answered_port_min
        uint32_t send_timeout_ms
        uint32_t accept_pause_ms
        uint32_t events_per_wait
        uint32_t idle_timeout_ms
        uint32_t tick_ms
        uint32_t pool_size
        uint32_t pool_queue_max
        uint32_t thread_stack_bytes
        uint32_t read_bytes
        int answer_any_port
        uint32_t unvalidated_reply_bytes_max
        uint32_t datagram_bytes_max
        uint64_t busy_poll_ns
        uint64_t write_buffer_bytes_max
    uint32_t fn_stop_state(const fn_context *context)
    fn_counters *fn_row(const fn_context *context, uint32_t index)
