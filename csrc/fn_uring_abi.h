/* io_uring's binary interface, the part that is used, with FN_ for the kernel's IORING_.
 *
 * Written from its documentation (io_uring_setup(2), io_uring_enter(2), io_uring_register(2)), so
 * that neither the age of the system's headers nor liburing decides what works: the running kernel
 * does. */
#ifndef FN_URING_ABI_H
#define FN_URING_ABI_H

#include <stdint.h>

enum { /* system call numbers, the same on every 64-bit port */
    FN_SYS_URING_SETUP = 425,
    FN_SYS_URING_ENTER = 426,
    FN_SYS_URING_REGISTER = 427
};
enum { /* io_uring_params.flags */
    FN_SETUP_CQSIZE = 1 << 3,
    FN_SETUP_CLAMP = 1 << 4,
    FN_SETUP_SUBMIT_ALL = 1 << 7,
    FN_SETUP_COOP_TASKRUN = 1 << 8,
    FN_SETUP_TASKRUN_FLAG = 1 << 9,
    FN_SETUP_SINGLE_ISSUER = 1 << 12,
    FN_SETUP_DEFER_TASKRUN = 1 << 13,
    FN_SETUP_NO_SQARRAY = 1 << 16
};
enum { /* io_uring_params.features */
    FN_FEAT_SINGLE_MMAP = 1 << 0,
    FN_FEAT_NODROP = 1 << 1,
    FN_FEAT_EXT_ARG = 1 << 8
};
enum { /* flags of io_uring_enter(2) */
    FN_ENTER_GETEVENTS = 1 << 0,
    FN_ENTER_EXT_ARG = 1 << 3
};
enum { /* flags word of the submission queue */
    FN_SQ_CQ_OVERFLOW = 1 << 1,
    FN_SQ_TASKRUN = 1 << 2
};
enum { /* io_uring_sqe.opcode */
    FN_OP_NOP = 0,
    FN_OP_POLL_ADD = 6,
    FN_OP_ACCEPT = 13,
    FN_OP_ASYNC_CANCEL = 14,
    FN_OP_SEND = 26,
    FN_OP_RECV = 27
};
enum { FN_SQE_BUFFER_SELECT = 1 << 5 }; /* io_uring_sqe.flags */
enum { /* io_uring_sqe.ioprio */
    FN_ACCEPT_MULTISHOT = 1 << 0,
    FN_RECV_MULTISHOT = 1 << 1
};
enum { FN_POLL_MULTISHOT = 1 << 0 }; /* io_uring_sqe.length; it reports edges, not levels */
enum { /* io_uring_cqe.flags */
    FN_CQE_BUFFER = 1 << 0,
    FN_CQE_MORE = 1 << 1,
    FN_CQE_BUF_MORE = 1 << 4,
    FN_CQE_BUFFER_SHIFT = 16
};
enum { FN_REGISTER_PBUF_RING = 22 }; /* opcode of io_uring_register(2) */
enum { FN_PBUF_RING_INC = 2 };       /* io_uring_buf_reg.flags */

#define FN_OFF_SQ_RING 0ull
#define FN_OFF_SQES 0x10000000ull

struct fn_sqe {
    uint8_t opcode, flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t offset, address;
    uint32_t length, op_flags;
    uint64_t user_data;
    uint16_t buffer_group, personality;
    int32_t file_index;
    uint64_t more[2];
};
struct fn_cqe {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
};
struct fn_sq_offsets {
    uint32_t head, tail, mask, entries, flags, dropped, array, reserved;
    uint64_t user_address;
};
struct fn_cq_offsets {
    uint32_t head, tail, mask, entries, overflow, cqes, flags, reserved;
    uint64_t user_address;
};
struct fn_ring_params {
    uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
    uint32_t reserved[3];
    struct fn_sq_offsets sq;
    struct fn_cq_offsets cq;
};
/* One entry of a provided-buffer ring; the ring's tail is `reserved` of entry 0. */
struct fn_ring_buffer {
    uint64_t address;
    uint32_t length;
    uint16_t id, reserved;
};
struct fn_buffer_register {
    uint64_t address;
    uint32_t entries;
    uint16_t group, flags;
    uint64_t reserved[3];
};
struct fn_enter_arg {
    uint64_t sigmask;
    uint32_t sigmask_bytes, min_wait_us;
    uint64_t timeout;
};

_Static_assert(sizeof(struct fn_sqe) == 64, "io_uring_sqe has 64 bytes");
_Static_assert(sizeof(struct fn_cqe) == 16, "io_uring_cqe has 16 bytes");
_Static_assert(sizeof(struct fn_ring_params) == 120, "io_uring_params has 120 bytes");
_Static_assert(sizeof(struct fn_ring_buffer) == 16, "io_uring_buf has 16 bytes");
_Static_assert(sizeof(struct fn_buffer_register) == 40, "io_uring_buf_reg has 40 bytes");
_Static_assert(sizeof(struct fn_enter_arg) == 24, "io_uring_getevents_arg has 24 bytes");

#endif
