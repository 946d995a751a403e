from fastnet.cdefs.mover cimport fn_mover, fn_step


cdef class NativeMover:
    cdef fn_mover c
    cdef fn_step out
    cdef fn_step into
    cdef str name
    cdef object reader
    cdef int one_step(
        self, fn_step step, int sock, int file, long long offset, unsigned long long count
    ) except -1
    cdef tuple some(
        self, fn_step step, bint out, int sock, int file, long long offset,
        unsigned long long count, double slice_s
    )
