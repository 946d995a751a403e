"""csrc/fn_smallfile.h"""

from libc.stdint cimport int64_t


cdef extern from "fn_smallfile.h" nogil:
    struct fn_small:
        int folder
        unsigned int mode
        const char *name
        const char *content
        size_t size
        int64_t mtime_ns

    int fn_small_read(const char *place, const char *identity, char *to, size_t size)
    int fn_small_make(const fn_small *file)
