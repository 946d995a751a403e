/* The connections of one non-blocking loop: a slot each, found by index and generation, never by a
 * bare descriptor.
 *
 * Facts. A descriptor number is free for reuse the moment it is closed, so an event still in the
 * batch can name a stranger. Memory from mmap(2) costs nothing until it is touched.
 * Decision: all slots the limit allows are mapped at once and never move; a freed slot is reused
 * first and its generation goes up, which makes stale events recognisable. The connections hang in
 * a list in order of their last byte, so the idle ones are found at its head without looking at the
 * others. Slot 0 is that list's anchor and never a connection.
 * Cost: 48 bytes for a connection that has ever lived. */
#ifndef FN_SLOTS_H
#define FN_SLOTS_H

#include <stdlib.h>
#include <sys/mman.h>

#include "fn_trace.h"

enum {
    FN_ENDING = 1,   /* half-close as soon as nothing is parked */
    FN_ENDED = 2,    /* our FIN is out; what still comes is dropped */
    FN_PEER_EOF = 4, /* the peer's FIN is in */
    FN_READS = 8,    /* the engine watches for input */
    FN_WRITES = 16   /* the engine watches for room in the send buffer */
};

struct fn_conn {
    int fd; /* -1: free */
    uint32_t generation;
    uint32_t older, newer; /* neighbours by last byte; newer alone chains the free slots */
    uint32_t active_ms;
    uint32_t flags;
    const char *write_buffer; /* ordered but not yet taken by the kernel */
    uint32_t write_buffer_bytes;
    char *block; /* where parked points, if the bytes are ours to free */
};
_Static_assert(sizeof(struct fn_conn) <= 64, "the design promises 64 bytes a connection");

struct fn_slots {
    struct fn_conn *conn;
    struct fn_trace *trace; /* NULL unless connections are traced */
    uint32_t capacity, open, touched, free; /* touched: the highest slot ever used */
};

static inline void *fn_map(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static inline void fn_unmap(void *p, size_t bytes) {
    if (p) munmap(p, bytes);
}

/* Returns 0 or -ENOMEM. */
static inline int fn_slots_open(struct fn_slots *slots, uint32_t capacity, int traced) {
    *slots = (struct fn_slots){.capacity = capacity};
    slots->conn = fn_map((capacity + 1) * sizeof(struct fn_conn));
    if (!slots->conn) return -ENOMEM;
    if (traced) slots->trace = fn_map((capacity + 1) * sizeof(struct fn_trace));
    if (traced && !slots->trace) {
        munmap(slots->conn, (capacity + 1) * sizeof(struct fn_conn));
        return -ENOMEM;
    }
    return 0;
}

static inline void fn_slots_close(struct fn_slots *slots) {
    fn_unmap(slots->conn, (slots->capacity + 1) * sizeof(struct fn_conn));
    fn_unmap(slots->trace, (slots->capacity + 1) * sizeof(struct fn_trace));
}

static inline void fn_idle_unlink(struct fn_slots *slots, uint32_t slot) {
    struct fn_conn *all = slots->conn, *conn = &all[slot];
    all[conn->older].newer = conn->newer;
    all[conn->newer].older = conn->older;
}

static inline void fn_idle_newest(struct fn_slots *slots, uint32_t slot, uint32_t now_ms) {
    struct fn_conn *all = slots->conn, *conn = &all[slot];
    conn->active_ms = now_ms;
    conn->older = all[0].older;
    conn->newer = 0;
    all[all[0].older].newer = slot;
    all[0].older = slot;
}

/* Bytes moved on this connection: it is now the last to become idle. */
static inline void fn_idle_touch(struct fn_slots *slots, uint32_t slot, uint32_t now_ms) {
    if (slots->conn[slot].active_ms == now_ms) return; /* at most a tick out of order, and no list to mend */
    fn_idle_unlink(slots, slot);
    fn_idle_newest(slots, slot, now_ms);
}

/* A slot for fd, or 0 when all are taken. */
static inline uint32_t fn_slot_take(struct fn_slots *slots, int fd, uint32_t now_ms) {
    if (slots->open == slots->capacity) return 0;
    uint32_t slot = slots->free;
    if (slot)
        slots->free = slots->conn[slot].newer;
    else
        slot = ++slots->touched;
    struct fn_conn *conn = &slots->conn[slot];
    *conn = (struct fn_conn){.fd = fd, .generation = conn->generation + 1};
    fn_idle_newest(slots, slot, now_ms);
    slots->open++;
    return slot;
}

static inline void fn_slot_free(struct fn_slots *slots, uint32_t slot) {
    struct fn_conn *conn = &slots->conn[slot];
    fn_idle_unlink(slots, slot);
    free(conn->block);
    conn->block = NULL;
    conn->fd = -1;
    conn->newer = slots->free;
    slots->free = slot;
    slots->open--;
}

/* The slot an event tag names, or NULL if that connection is gone. */
static inline struct fn_conn *fn_slot_of(struct fn_slots *slots, uint64_t tag) {
    struct fn_conn *conn = &slots->conn[(uint32_t)tag];
    return conn->fd >= 0 && conn->generation == (uint32_t)(tag >> 32) ? conn : NULL;
}

static inline uint64_t fn_slot_tag(const struct fn_slots *slots, uint32_t slot) {
    return (uint64_t)slots->conn[slot].generation << 32 | slot;
}

#endif
