from fastnet.cdefs.context cimport fn_context
from fastnet.cdefs.service cimport fn_service


cdef class NativeService:
    cdef fn_service c
    cdef bytes text


cdef class NativeLoopContext:
    cdef fn_context c
    cdef tuple keep
