"""csrc/fn_stream.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.context cimport fn_context
from fastnet.cdefs.counters cimport fn_closed, fn_counters
from fastnet.cdefs.service cimport fn_service
from fastnet.cdefs.slots cimport fn_conn, fn_slots

cdef extern from "fn_stream.h" nogil:
    struct fn_stream:
        const fn_context *context
        const fn_service *service
        fn_counters *row
        fn_slots slots
        char *buffer
        uint32_t now_ms
    int FN_CLOSE(fn_closed why)
    fn_closed FN_CLOSE_REASON(int result)
    int fn_stream_error(int error)
    int fn_stream_socket_error(int fd)
    int fn_stream_init(fn_stream *stream, const fn_context *context, uint32_t connections_max)
    void fn_stream_destroy(fn_stream *stream)
    void fn_stream_close(fn_stream *stream, uint32_t slot, fn_closed why)
    int fn_stream_discards_input(const fn_stream *stream, const fn_conn *conn)
    uint32_t fn_stream_interest(const fn_stream *stream, const fn_conn *conn)
    uint32_t fn_stream_expired(const fn_stream *stream, int *due_ms)
