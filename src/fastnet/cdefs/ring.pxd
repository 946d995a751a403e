"""csrc/fn_ring.h and csrc/fn_uring_abi.h"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "fn_ring.h" nogil:
    enum:
        FN_OP_NOP
        FN_OP_POLL_ADD
        FN_OP_ACCEPT
        FN_OP_ASYNC_CANCEL
        FN_OP_SEND
        FN_OP_RECV
        FN_SQE_BUFFER_SELECT
        FN_RECV_MULTISHOT
        FN_ACCEPT_MULTISHOT
        FN_POLL_MULTISHOT
        FN_CQE_BUFFER
        FN_CQE_MORE
    struct fn_sqe:
        uint8_t flags
        uint16_t ioprio
        uint64_t address
        uint32_t length
        uint32_t op_flags
    struct fn_cqe:
        uint64_t user_data
        int32_t result
        uint32_t flags
    struct fn_ring:
        int fd
    int fn_ring_open(fn_ring *ring, uint32_t entries, uint32_t completions, uint32_t buffers, uint32_t bytes)
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
