"""csrc/fn_trace.h"""
from fastnet.cdefs.sys cimport sockaddr_storage

cdef extern from "fn_trace.h" nogil:
    struct fn_trace:
        pass
    void fn_trace_open(fn_trace *trace, const sockaddr_storage *peer)
