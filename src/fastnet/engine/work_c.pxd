from fastnet.cdefs.service cimport fn_service
from fastnet.cdefs.work cimport fn_work


cdef class NativeService:
    cdef fn_service c
    cdef bytes text


cdef class NativeWork:
    cdef fn_work c
    cdef tuple keep
