"""csrc/fn_ring.h"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastnet.cdefs.uring_abi cimport fn_cqe, fn_sqe

cdef extern from "fn_ring.h" nogil:
    struct fn_ring:
        int fd
    int fn_ring_open(
        fn_ring *ring, uint32_t entries, uint32_t completions, uint32_t buffers, uint32_t bytes
    )
    void fn_ring_close(fn_ring *ring)
    fn_sqe *fn_ring_ask(fn_ring *ring, uint8_t opcode, int fd, uint64_t user_data)
    int fn_ring_enter(fn_ring *ring, uint32_t least, int timeout_ms)
    int fn_ring_ready(const fn_ring *ring)
    int fn_ring_stirs(const fn_ring *ring)
    int fn_ring_untold(const fn_ring *ring)
    int fn_ring_reap(fn_ring *ring, fn_cqe *out)
    int fn_ring_overflowed(const fn_ring *ring)
    char *fn_ring_bytes(const fn_ring *ring, const fn_cqe *cqe)
    void fn_ring_done(fn_ring *ring, const fn_cqe *cqe)
