/* The queues of an io_uring: prepare, submit and wait, reap, release a provided buffer.
 *
 * Facts. Both queues are memory shared with the kernel: we store a submission and release the tail,
 * the kernel releases the completion tail and we acquire it. */
#ifndef FN_RING_QUEUE_H
#define FN_RING_QUEUE_H

#include "fn_ring.h"

/* Submit what was prepared and wait for at least `least` completions. timeout_ms: -1 waits for
 * ever. Returns 0 or -errno; a timeout, a signal and a full completion queue are no errors. */
static inline int fn_ring_enter(struct fn_ring *ring, uint32_t least, int timeout_ms) {
    struct timespec time = {
        .tv_sec = timeout_ms / 1000,
        .tv_nsec = (timeout_ms % 1000) * 1000000L,
    };
    struct fn_enter_arg arg = {.timeout = timeout_ms < 0 ? 0 : (uint64_t)(uintptr_t)&time};
    uint32_t *tail = fn_ring_word(ring, ring->params.sq.tail);
    uint32_t *head = fn_ring_word(ring, ring->params.sq.head);
    __atomic_store_n(tail, ring->sq_tail, __ATOMIC_RELEASE);
    long submitted = syscall(FN_SYS_URING_ENTER, ring->fd, ring->sq_tail - ring->sq_submitted,
                             least, FN_ENTER_GETEVENTS | FN_ENTER_EXT_ARG, &arg, sizeof arg);
    if (submitted >= 0) {
        ring->sq_submitted += (uint32_t)submitted;
        return 0;
    }
    if (errno == ETIME || errno == EINTR || errno == EBUSY || errno == EAGAIN) {
        ring->sq_submitted = __atomic_load_n(head, __ATOMIC_ACQUIRE);
        return 0;
    }
    return -errno;
}

/* A cleared submission entry to fill in. A full queue is submitted first. */
static inline struct fn_sqe *fn_ring_prepare(struct fn_ring *ring, uint8_t opcode, int fd,
                                             uint64_t user_data) {
    uint32_t *head = fn_ring_word(ring, ring->params.sq.head);
    while (ring->sq_tail - __atomic_load_n(head, __ATOMIC_ACQUIRE) == ring->params.sq_entries) {
        fn_ring_enter(ring, 0, 0);
    }
    struct fn_sqe *sqe = &ring->sqe[ring->sq_tail & (ring->params.sq_entries - 1)];
    ring->sq_tail++;
    *sqe = (struct fn_sqe){.opcode = opcode, .fd = fd, .user_data = user_data};
    return sqe;
}

/* Whether a completion can be reaped. */
static inline int fn_ring_ready(const struct fn_ring *ring) {
    uint32_t *tail = fn_ring_word(ring, ring->params.cq.tail);
    return ring->cq_head != __atomic_load_n(tail, __ATOMIC_ACQUIRE);
}

static inline uint32_t fn_ring_sq_flags(const struct fn_ring *ring) {
    return __atomic_load_n(fn_ring_word(ring, ring->params.sq.flags), __ATOMIC_RELAXED);
}

/* Whether fn_ring_enter would bring a completion, read from memory alone: one is ready, or the
 * kernel has task work pending for this thread. */
static inline int fn_ring_has_work(const struct fn_ring *ring) {
    return fn_ring_ready(ring) || (fn_ring_sq_flags(ring) & FN_SQ_TASKRUN);
}

/* Whether completions piled up in the kernel because the queue was full. */
static inline int fn_ring_overflowed(const struct fn_ring *ring) {
    return (fn_ring_sq_flags(ring) & FN_SQ_CQ_OVERFLOW) != 0;
}

/* Whether prepared entries have not been submitted. */
static inline int fn_ring_has_unsubmitted(const struct fn_ring *ring) {
    return ring->sq_tail != ring->sq_submitted;
}

/* Copy the next completion out, so that its entry is free immediately. Returns 1, or 0 if there is
 * none. */
static inline int fn_ring_reap(struct fn_ring *ring, struct fn_cqe *out) {
    if (!fn_ring_ready(ring)) {
        return 0;
    }
    *out = ring->cqe[ring->cq_head & (ring->params.cq_entries - 1)];
    ring->cq_head++;
    __atomic_store_n(fn_ring_word(ring, ring->params.cq.head), ring->cq_head, __ATOMIC_RELEASE);
    return 1;
}

/* The bytes of a receive completion. */
static inline char *fn_ring_buffer_bytes(const struct fn_ring *ring, const struct fn_cqe *cqe) {
    uint32_t id = cqe->flags >> FN_CQE_BUFFER_SHIFT;
    return ring->memory + (size_t)id * ring->buffer_bytes + ring->consumed[id];
}

/* The bytes of a receive completion are no longer needed: release its buffer, or its piece. */
static inline void fn_ring_buffer_release(struct fn_ring *ring, const struct fn_cqe *cqe) {
    uint16_t id = (uint16_t)(cqe->flags >> FN_CQE_BUFFER_SHIFT);
    if (!(cqe->flags & FN_CQE_BUFFER)) {
        return;
    }
    if (ring->incremental && cqe->result >= 0 && (cqe->flags & FN_CQE_BUF_MORE)) {
        ring->consumed[id] += (uint32_t)cqe->result;
    } else {
        fn_ring_buffer_add(ring, id);
    }
}

#endif
