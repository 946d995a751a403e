"""csrc/fn_ring.h"""
from libc.stdint cimport uint32_t

cdef extern from "fn_ring.h" nogil:
    struct fn_ring:
        int fd
    int fn_ring_open(
        fn_ring *ring, uint32_t entries, uint32_t completions, uint32_t buffers, uint32_t bytes
    )
    void fn_ring_close(fn_ring *ring)
