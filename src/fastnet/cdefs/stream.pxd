"""csrc/fn_stream.h and csrc/fn_slots.h"""
from libc.stdint cimport uint32_t, uint64_t

from fastnet.cdefs.counters cimport fn_closed, fn_counters
from fastnet.cdefs.service cimport fn_service
from fastnet.cdefs.sys cimport sockaddr_storage
from fastnet.cdefs.context cimport fn_context

cdef extern from "fn_stream.h" nogil:
    enum:
        FN_PEER_EOF
        FN_READS
        FN_WRITES
    struct fn_trace:
        pass
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
    struct fn_stream:
        const fn_context *context
        const fn_service *service
        fn_counters *row
        fn_slots slots
        char *buffer
        uint32_t now_ms
    uint32_t fn_now_ms()
    uint64_t fn_now_ns()
    void fn_trace_open(fn_trace *trace, const sockaddr_storage *peer)
    uint32_t fn_slot_take(fn_slots *slots, int fd, uint32_t now_ms)
    fn_conn *fn_slot_of(fn_slots *slots, uint64_t tag)
    uint64_t fn_slot_tag(const fn_slots *slots, uint32_t slot)
    fn_closed FN_WHY(int turn)
    void *fn_map(size_t bytes)
    void fn_unmap(void *p, size_t bytes)
    void fn_idle_touch(fn_slots *slots, uint32_t slot, uint32_t now_ms)
    int fn_stream_order(fn_stream *stream, fn_conn *conn)
    int fn_close_for(int error)
    int FN_CLOSE(fn_closed why)
    int fn_socket_close(int fd)
    int fn_stream_start(fn_stream *stream, const fn_context *context, uint32_t connections)
    void fn_stream_finish(fn_stream *stream)
    void fn_stream_close(fn_stream *stream, uint32_t slot, fn_closed why)
    int fn_stream_open(fn_stream *stream, fn_conn *conn)
    int fn_stream_heard(fn_stream *stream, fn_conn *conn, char *bytes, size_t n)
    int fn_stream_drops(const fn_stream *stream, const fn_conn *conn)
    int fn_stream_read(fn_stream *stream, fn_conn *conn)
    int fn_stream_flushed(fn_stream *stream, fn_conn *conn, size_t n)
    int fn_stream_write(fn_stream *stream, fn_conn *conn)
    uint32_t fn_stream_wants(const fn_stream *stream, const fn_conn *conn)
    uint32_t fn_stream_overdue(const fn_stream *stream, int *due_ms)
