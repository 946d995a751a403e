/* One io_uring: set-up and tear-down of its queues and of the ring of provided buffers.
 *
 * Facts. With SINGLE_ISSUER | DEFER_TASKRUN all kernel work for the ring happens in our own
 * io_uring_enter(2), which is fastest and ties the ring to the thread that made it. The kernel
 * picks a provided buffer only when data has arrived, so idle connections hold none; with
 * IOU_PBUF_RING_INC (Linux 6.12) a buffer is consumed piece by piece, so a few large ones serve
 * small and large messages alike.
 * Decision: set-up steps down a list of flags until the kernel takes one; nothing is decided by
 * version numbers. The ring belongs to the thread that opens it and is unmapped in forked children
 * (MADV_DONTFORK), where using it would corrupt it. fn_ring_queue.h submits and reaps. */
#ifndef FN_RING_H
#define FN_RING_H

#include <stdlib.h>

#include "fn_clock.h"
#include "fn_sys.h"
#include "fn_uring_abi.h"

struct fn_ring {
    int fd;
    struct fn_ring_params params;
    char *queues;                  /* both queues, one mapping */
    size_t queues_bytes;
    struct fn_sqe *sqe;            /* submission entries */
    uint32_t sq_tail;              /* next entry to fill in */
    uint32_t sq_submitted;         /* first entry the kernel has not consumed */
    struct fn_cqe *cqe;            /* completion entries */
    uint32_t cq_head;              /* next completion to reap */
    struct fn_ring_buffer *buffer; /* the ring of provided buffers */
    char *memory;                  /* what its entries point to */
    uint32_t *consumed;            /* bytes of each buffer already handed out */
    uint32_t buffers;              /* how many; a power of two */
    uint32_t buffer_bytes;         /* size of each */
    uint16_t buffer_tail;          /* next entry of the ring of buffers */
    int incremental;               /* the kernel consumes a buffer piece by piece */
};

static inline uint32_t *fn_ring_word(const struct fn_ring *ring, uint32_t offset) {
    return (uint32_t *)(ring->queues + offset);
}

/* io_uring_setup(2) with the best flags this kernel takes. Returns a descriptor or -errno. */
static inline int fn_ring_setup(struct fn_ring_params *params, uint32_t entries,
                                uint32_t completions) {
    static const uint32_t ladder[] = {
        FN_SETUP_SINGLE_ISSUER | FN_SETUP_DEFER_TASKRUN | FN_SETUP_TASKRUN_FLAG |
            FN_SETUP_NO_SQARRAY,
        FN_SETUP_SINGLE_ISSUER | FN_SETUP_DEFER_TASKRUN | FN_SETUP_TASKRUN_FLAG,
        FN_SETUP_COOP_TASKRUN | FN_SETUP_TASKRUN_FLAG,
        0,
    };
    long fd = -EINVAL;
    for (size_t i = 0; i < sizeof ladder / sizeof *ladder && fd == -EINVAL; i++) {
        *params = (struct fn_ring_params){.cq_entries = completions};
        params->flags = FN_SETUP_CQSIZE | FN_SETUP_CLAMP | FN_SETUP_SUBMIT_ALL | ladder[i];
        fd = syscall(FN_SYS_URING_SETUP, entries, params);
        if (fd < 0) {
            fd = -errno;
        }
    }
    return (int)fd;
}

/* Map a part of the ring, or with fd -1 anonymous memory. Returns NULL without memory. */
static inline void *fn_ring_map(int fd, size_t bytes, uint64_t offset) {
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (p == MAP_FAILED) {
        return NULL;
    }
    madvise(p, bytes, MADV_DONTFORK);
    return p;
}

static inline void fn_ring_close(struct fn_ring *ring) {
    if (ring->fd >= 0) {
        close(ring->fd);
    }
    fn_unmap(ring->queues, ring->queues_bytes);
    fn_unmap(ring->sqe, ring->params.sq_entries * sizeof(struct fn_sqe));
    fn_unmap(ring->buffer, ring->buffers * sizeof(struct fn_ring_buffer));
    fn_unmap(ring->memory, (size_t)ring->buffers * ring->buffer_bytes);
    free(ring->consumed);
}

/* Return the whole buffer `id` to the kernel. */
static inline void fn_ring_buffer_add(struct fn_ring *ring, uint16_t id) {
    struct fn_ring_buffer *entry = &ring->buffer[ring->buffer_tail & (ring->buffers - 1)];
    entry->address = (uint64_t)(uintptr_t)(ring->memory + (size_t)id * ring->buffer_bytes);
    entry->length = ring->buffer_bytes;
    entry->id = id;
    ring->consumed[id] = 0;
    ring->buffer_tail++;
    __atomic_store_n(&ring->buffer[0].reserved, ring->buffer_tail, __ATOMIC_RELEASE);
}

/* Register a ring of buffers as group 0, incremental if the kernel can. Returns 0 or -errno. */
static inline int fn_ring_register_buffers(struct fn_ring *ring, uint32_t buffers,
                                           uint32_t bytes) {
    struct fn_buffer_register request = {.entries = buffers, .flags = FN_PBUF_RING_INC};
    ring->buffers = buffers;
    ring->buffer_bytes = bytes;
    ring->consumed = calloc(buffers, sizeof *ring->consumed);
    ring->buffer = fn_ring_map(-1, buffers * sizeof(struct fn_ring_buffer), 0);
    ring->memory = fn_ring_map(-1, (size_t)buffers * bytes, 0);
    if (!ring->consumed || !ring->buffer || !ring->memory) {
        return -ENOMEM;
    }
    request.address = (uint64_t)(uintptr_t)ring->buffer;
    long failed =
        syscall(FN_SYS_URING_REGISTER, ring->fd, FN_REGISTER_PBUF_RING, &request, 1);
    ring->incremental = failed == 0;
    if (failed) {
        request.flags = 0;
        failed = syscall(FN_SYS_URING_REGISTER, ring->fd, FN_REGISTER_PBUF_RING, &request, 1);
    }
    if (failed) {
        return -errno;
    }
    for (uint32_t i = 0; i < buffers; i++) {
        fn_ring_buffer_add(ring, (uint16_t)i);
    }
    return 0;
}

/* Open a ring with its buffers. Returns 0 or -errno; fn_ring_close in either case. */
static inline int fn_ring_open(struct fn_ring *ring, uint32_t entries, uint32_t completions,
                               uint32_t buffers, uint32_t bytes) {
    const uint32_t needs = FN_FEAT_SINGLE_MMAP | FN_FEAT_NODROP | FN_FEAT_EXT_ARG;
    *ring = (struct fn_ring){.fd = -1};
    int fd = fn_ring_setup(&ring->params, entries, completions);
    if (fd < 0) {
        return fd;
    }
    ring->fd = fd;
    if ((ring->params.features & needs) != needs) {
        return -ENOSYS;
    }
    size_t sq = ring->params.sq.array + ring->params.sq_entries * sizeof(uint32_t);
    size_t cq = ring->params.cq.cqes + ring->params.cq_entries * sizeof(struct fn_cqe);
    size_t sqe_bytes = ring->params.sq_entries * sizeof(struct fn_sqe);
    ring->queues_bytes = sq > cq ? sq : cq;
    ring->queues = fn_ring_map(fd, ring->queues_bytes, FN_OFF_SQ_RING);
    ring->sqe = fn_ring_map(fd, sqe_bytes, FN_OFF_SQES);
    if (!ring->queues || !ring->sqe) {
        return -ENOMEM;
    }
    ring->cqe = (struct fn_cqe *)(ring->queues + ring->params.cq.cqes);
    if (!(ring->params.flags & FN_SETUP_NO_SQARRAY)) {
        for (uint32_t i = 0; i < ring->params.sq_entries; i++) {
            fn_ring_word(ring, ring->params.sq.array)[i] = i;
        }
    }
    return fn_ring_register_buffers(ring, buffers, bytes);
}

#endif
