"""csrc/fn_blocking.h"""
from fastnet.cdefs.context cimport fn_context
from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.sys cimport sockaddr_storage

cdef extern from "fn_blocking.h" nogil:
    void fn_blocking_serve(
        const fn_context *context, fn_counters *row, int fd, const sockaddr_storage *peer,
        char *buffer,
    )
