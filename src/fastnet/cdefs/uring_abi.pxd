"""csrc/fn_uring_abi.h"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "fn_uring_abi.h" nogil:
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
