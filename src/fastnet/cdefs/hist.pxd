"""csrc/fn_hist.h"""

from libc.stdint cimport uint64_t


cdef extern from "fn_hist.h" nogil:
    struct fn_hist:
        uint64_t *counts
        uint64_t total
        uint64_t sum
        uint64_t max

    int fn_hist_open(fn_hist *h, uint64_t *counts, size_t slots, unsigned sub_bits)
    void fn_hist_reset(fn_hist *h)
    void fn_hist_record(fn_hist *h, uint64_t value, uint64_t n)
