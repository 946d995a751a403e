/* One io_uring: set up, ask, wait, reap, and the ring of buffers the kernel receives into. It knows
 * no service.
 *
 * Facts. Both queues are memory shared with the kernel: we store a submission and release the tail,
 * the kernel releases the completion tail and we acquire it. With SINGLE_ISSUER | DEFER_TASKRUN all
 * kernel context for the ring happens in our own io_uring_enter(2), which is fastest and ties the
 * ring to the thread that made it. A provided buffer is chosen by the kernel only when data is
 * there, so idle connections hold none; with IOU_PBUF_RING_INC (Linux 6.12) a buffer is used up
 * piece by piece, so a few large ones serve small and large messages alike.
 * Decision: set-up steps down a ladder of flags until the kernel takes one; nothing is decided by
 * version numbers. The ring belongs to the thread that opens it and is unmapped in forked children
 * (MADV_DONTFORK), where using it would corrupt it. */
#ifndef FN_RING_H
#define FN_RING_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fn_clock.h"
#include "fn_sys.h"
#include "fn_uring_abi.h"

struct fn_ring {
    int fd;
    struct fn_ring_params params;
    char *queues; /* both rings, one mapping */
    size_t queues_bytes;
    struct fn_sqe *sqe;
    uint32_t sq_tail, sq_told; /* ours; what the kernel has been told */
    struct fn_cqe *cqe;
    uint32_t cq_head;
    struct fn_ring_buffer *buffer; /* the ring of buffers, and the memory they name */
    char *memory;
    uint32_t *used; /* bytes of each buffer already handed out */
    uint32_t buffers, buffer_bytes;
    uint16_t buffer_tail;
    int incremental;
};

static inline uint32_t *fn_ring_word(const struct fn_ring *ring, uint32_t offset) { return (uint32_t *)(ring->queues + offset); }

/* io_uring_setup(2) with the best flags this kernel takes. Returns a descriptor or -errno. */
static inline int fn_ring_setup(struct fn_ring_params *params, uint32_t entries, uint32_t completions) {
    static const uint32_t ladder[] = {
        FN_SETUP_SINGLE_ISSUER | FN_SETUP_DEFER_TASKRUN | FN_SETUP_TASKRUN_FLAG | FN_SETUP_NO_SQARRAY,
        FN_SETUP_SINGLE_ISSUER | FN_SETUP_DEFER_TASKRUN | FN_SETUP_TASKRUN_FLAG,
        FN_SETUP_COOP_TASKRUN | FN_SETUP_TASKRUN_FLAG,
        0,
    };
    long fd = -EINVAL;
    for (size_t i = 0; i < sizeof ladder / sizeof *ladder && fd == -EINVAL; i++) {
        *params = (struct fn_ring_params){.cq_entries = completions};
        params->flags = FN_SETUP_CQSIZE | FN_SETUP_CLAMP | FN_SETUP_SUBMIT_ALL | ladder[i];
        fd = syscall(FN_SYS_URING_SETUP, entries, params);
        if (fd < 0) fd = -errno;
    }
    return (int)fd;
}

static inline void *fn_ring_map(int fd, size_t bytes, uint64_t offset) {
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_DONTFORK);
    return p;
}

static inline void fn_ring_close(struct fn_ring *ring) {
    if (ring->fd >= 0) close(ring->fd);
    if (ring->queues) munmap(ring->queues, ring->queues_bytes);
    if (ring->sqe) munmap(ring->sqe, ring->params.sq_entries * sizeof(struct fn_sqe));
    if (ring->buffer) munmap(ring->buffer, ring->buffers * sizeof(struct fn_ring_buffer));
    if (ring->memory) munmap(ring->memory, (size_t)ring->buffers * ring->buffer_bytes);
    free(ring->used);
}

/* Give buffer id back to the kernel, whole. Visible after fn_ring_buffers_publish. */
static inline void fn_ring_buffer_add(struct fn_ring *ring, uint16_t id) {
    struct fn_ring_buffer *entry = &ring->buffer[ring->buffer_tail & (ring->buffers - 1)];
    entry->address = (uint64_t)(uintptr_t)(ring->memory + (size_t)id * ring->buffer_bytes);
    entry->length = ring->buffer_bytes;
    entry->id = id;
    ring->used[id] = 0;
    ring->buffer_tail++;
    __atomic_store_n(&ring->buffer[0].reserved, ring->buffer_tail, __ATOMIC_RELEASE);
}

/* Register a ring of buffers as group 0, incremental if the kernel can. Returns 0 or -errno. */
static inline int fn_ring_buffers(struct fn_ring *ring, uint32_t buffers, uint32_t bytes) {
    struct fn_buffer_register request = {.entries = buffers, .flags = FN_PBUF_RING_INC};
    ring->buffers = buffers;
    ring->buffer_bytes = bytes;
    ring->used = calloc(buffers, sizeof *ring->used);
    ring->buffer = fn_ring_map(-1, buffers * sizeof(struct fn_ring_buffer), 0);
    ring->memory = fn_ring_map(-1, (size_t)buffers * bytes, 0);
    if (!ring->used || !ring->buffer || !ring->memory) return -ENOMEM;
    request.address = (uint64_t)(uintptr_t)ring->buffer;
    long failed = syscall(FN_SYS_URING_REGISTER, ring->fd, FN_REGISTER_PBUF_RING, &request, 1);
    ring->incremental = failed == 0;
    if (failed) {
        request.flags = 0;
        failed = syscall(FN_SYS_URING_REGISTER, ring->fd, FN_REGISTER_PBUF_RING, &request, 1);
    }
    if (failed) return -errno;
    for (uint32_t i = 0; i < buffers; i++) fn_ring_buffer_add(ring, (uint16_t)i);
    return 0;
}

/* Open a ring with its buffers. Returns 0 or -errno; fn_ring_close in either case. */
static inline int fn_ring_open(struct fn_ring *ring, uint32_t entries, uint32_t completions, uint32_t buffers, uint32_t bytes) {
    const uint32_t needs = FN_FEAT_SINGLE_MMAP | FN_FEAT_NODROP | FN_FEAT_EXT_ARG;
    *ring = (struct fn_ring){.fd = -1};
    int fd = fn_ring_setup(&ring->params, entries, completions);
    if (fd < 0) return fd;
    ring->fd = fd;
    if ((ring->params.features & needs) != needs) return -ENOSYS;
    size_t sq = ring->params.sq.array + ring->params.sq_entries * sizeof(uint32_t);
    size_t cq = ring->params.cq.cqes + ring->params.cq_entries * sizeof(struct fn_cqe);
    ring->queues_bytes = sq > cq ? sq : cq;
    ring->queues = fn_ring_map(fd, ring->queues_bytes, FN_OFF_SQ_RING);
    ring->sqe = fn_ring_map(fd, ring->params.sq_entries * sizeof(struct fn_sqe), FN_OFF_SQES);
    if (!ring->queues || !ring->sqe) return -ENOMEM;
    ring->cqe = (struct fn_cqe *)(ring->queues + ring->params.cq.cqes);
    if (!(ring->params.flags & FN_SETUP_NO_SQARRAY))
        for (uint32_t i = 0; i < ring->params.sq_entries; i++) fn_ring_word(ring, ring->params.sq.array)[i] = i;
    return fn_ring_buffers(ring, buffers, bytes);
}

/* Tell the kernel what was asked, wait for at least `least` completions. timeout_ms: -1 waits for
 * ever. Returns 0, or -errno; a time-out, a signal and a full completion queue are no errors. */
static inline int fn_ring_enter(struct fn_ring *ring, uint32_t least, int timeout_ms) {
    struct timespec time = {.tv_sec = timeout_ms / 1000, .tv_nsec = (timeout_ms % 1000) * 1000000L};
    struct fn_enter_arg arg = {.timeout = timeout_ms < 0 ? 0 : (uint64_t)(uintptr_t)&time};
    __atomic_store_n(fn_ring_word(ring, ring->params.sq.tail), ring->sq_tail, __ATOMIC_RELEASE);
    long told = syscall(FN_SYS_URING_ENTER, ring->fd, ring->sq_tail - ring->sq_told, least,
                        FN_ENTER_GETEVENTS | FN_ENTER_EXT_ARG, &arg, sizeof arg);
    if (told >= 0)
        ring->sq_told += (uint32_t)told;
    else if (errno == ETIME || errno == EINTR || errno == EBUSY || errno == EAGAIN)
        ring->sq_told = __atomic_load_n(fn_ring_word(ring, ring->params.sq.head), __ATOMIC_ACQUIRE);
    else
        return -errno;
    return 0;
}

/* An empty submission. The queue is handed over first if it is full. */
static inline struct fn_sqe *fn_ring_ask(struct fn_ring *ring, uint8_t opcode, int fd, uint64_t user_data) {
    while (ring->sq_tail - __atomic_load_n(fn_ring_word(ring, ring->params.sq.head), __ATOMIC_ACQUIRE) == ring->params.sq_entries)
        fn_ring_enter(ring, 0, 0);
    struct fn_sqe *sqe = &ring->sqe[ring->sq_tail++ & (ring->params.sq_entries - 1)];
    *sqe = (struct fn_sqe){.opcode = opcode, .fd = fd, .user_data = user_data};
    return sqe;
}

/* Whether completions wait to be reaped. */
static inline int fn_ring_ready(const struct fn_ring *ring) {
    return ring->cq_head != __atomic_load_n(fn_ring_word(ring, ring->params.cq.tail), __ATOMIC_ACQUIRE);
}

/* Whether fn_ring_enter would bring something, told by memory alone: completions, or kernel context
 * that waits for us. */
static inline int fn_ring_stirs(const struct fn_ring *ring) {
    return fn_ring_ready(ring) || __atomic_load_n(fn_ring_word(ring, ring->params.sq.flags), __ATOMIC_RELAXED) & FN_SQ_TASKRUN;
}

/* Whether there are requests the kernel has not been told of. */
static inline int fn_ring_untold(const struct fn_ring *ring) { return ring->sq_tail != ring->sq_told; }

/* The next completion, copied out, so that its place is free at once. Returns 1, or 0 when there is
 * none. */
static inline int fn_ring_reap(struct fn_ring *ring, struct fn_cqe *out) {
    if (!fn_ring_ready(ring)) return 0;
    *out = ring->cqe[ring->cq_head++ & (ring->params.cq_entries - 1)];
    __atomic_store_n(fn_ring_word(ring, ring->params.cq.head), ring->cq_head, __ATOMIC_RELEASE);
    return 1;
}

/* Whether completions piled up in the kernel because our queue was full. */
static inline int fn_ring_overflowed(const struct fn_ring *ring) {
    return (__atomic_load_n(fn_ring_word(ring, ring->params.sq.flags), __ATOMIC_RELAXED) & FN_SQ_CQ_OVERFLOW) != 0;
}

/* Where the bytes of a receive completion lie. */
static inline char *fn_ring_bytes(const struct fn_ring *ring, const struct fn_cqe *cqe) {
    uint32_t id = cqe->flags >> FN_CQE_BUFFER_SHIFT;
    return ring->memory + (size_t)id * ring->buffer_bytes + ring->used[id];
}

/* The bytes of a receive completion have been dealt with. */
static inline void fn_ring_done(struct fn_ring *ring, const struct fn_cqe *cqe) {
    uint16_t id = (uint16_t)(cqe->flags >> FN_CQE_BUFFER_SHIFT);
    if (!(cqe->flags & FN_CQE_BUFFER)) return;
    if (ring->incremental && cqe->result >= 0 && (cqe->flags & FN_CQE_BUF_MORE))
        ring->used[id] += (uint32_t)cqe->result;
    else
        fn_ring_buffer_add(ring, id);
}

#endif
