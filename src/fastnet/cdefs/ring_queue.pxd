"""csrc/fn_ring_queue.h"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastnet.cdefs.ring cimport fn_ring
from fastnet.cdefs.uring_abi cimport fn_cqe, fn_sqe

cdef extern from "fn_ring_queue.h" nogil:
    fn_sqe *fn_ring_prepare(fn_ring *ring, uint8_t opcode, int fd, uint64_t user_data)
    int fn_ring_enter(fn_ring *ring, uint32_t least, int timeout_ms)
    int fn_ring_ready(const fn_ring *ring)
    int fn_ring_has_work(const fn_ring *ring)
    int fn_ring_has_unsubmitted(const fn_ring *ring)
    int fn_ring_reap(fn_ring *ring, fn_cqe *out)
    int fn_ring_overflowed(const fn_ring *ring)
    char *fn_ring_buffer_bytes(const fn_ring *ring, const fn_cqe *cqe)
    void fn_ring_buffer_release(fn_ring *ring, const fn_cqe *cqe)
