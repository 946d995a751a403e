"""csrc/fn_stream_io.h"""
from fastnet.cdefs.slots cimport fn_conn
from fastnet.cdefs.stream cimport fn_stream

cdef extern from "fn_stream_io.h" nogil:
    int fn_stream_open(fn_stream *stream, fn_conn *conn)
    int fn_stream_received(fn_stream *stream, fn_conn *conn, char *bytes, size_t n)
    int fn_stream_read(fn_stream *stream, fn_conn *conn)
    int fn_stream_flushed(fn_stream *stream, fn_conn *conn, size_t n)
    int fn_stream_write(fn_stream *stream, fn_conn *conn)
    int fn_stream_queue_output(fn_stream *stream, fn_conn *conn)
