"""csrc/fn_access.h"""
from libc.stdint cimport uint32_t

cdef extern from "fn_access.h" nogil:
    struct fn_network:
        pass
    struct fn_access:
        const fn_network *network
        uint32_t networks
        uint32_t any_allow
