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
    fn_closed FN_WHY(int turn)
    int FN_CLOSE(fn_closed why)
    int fn_close_for(int error)
    int fn_socket_close(int fd)
    int fn_stream_start(fn_stream *stream, const fn_context *context, uint32_t connections)
    void fn_stream_finish(fn_stream *stream)
    void fn_stream_close(fn_stream *stream, uint32_t slot, fn_closed why)
    int fn_stream_open(fn_stream *stream, fn_conn *conn)
    int fn_stream_heard(fn_stream *stream, fn_conn *conn, char *bytes, size_t n)
    int fn_stream_drops(const fn_stream *stream, const fn_conn *conn)
    int fn_stream_read(fn_stream *stream, fn_conn *conn)
    int fn_stream_order(fn_stream *stream, fn_conn *conn)
    int fn_stream_flushed(fn_stream *stream, fn_conn *conn, size_t n)
    int fn_stream_write(fn_stream *stream, fn_conn *conn)
    uint32_t fn_stream_wants(const fn_stream *stream, const fn_conn *conn)
    uint32_t fn_stream_overdue(const fn_stream *stream, int *due_ms)
