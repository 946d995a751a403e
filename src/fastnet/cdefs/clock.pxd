"""csrc/fn_clock.h"""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "fn_clock.h" nogil:
    uint64_t fn_now_ns()
    uint32_t fn_now_ms()
    uint64_t fn_thread_cpu_ns()
