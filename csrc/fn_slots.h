/* Table of the connections of one non-blocking loop: slot index and generation, never a bare fd.
 *
 * Facts. A descriptor number is free for reuse the moment it is closed, so an event still in the
 * batch can name another connection. Memory from mmap(2) costs nothing until it is touched.
 * Decision: all slots the limit allows are mapped in one call and never move; a released slot is
 * reused first and its generation is incremented, which makes stale events recognisable. The
 * connections are linked in order of their last byte, so the idle ones are found at the head of
 * that list without a scan. Slot 0 is the anchor of the list and never a connection.
 * Cost: 48 bytes for a slot that has ever been used. */
#ifndef FN_SLOTS_H
#define FN_SLOTS_H

#include <stdlib.h>

#include "fn_trace.h"

enum {
    FN_FIN_QUEUED = 1,     /* the service has sent END: half-close once the write buffer is empty */
    FN_FIN_SENT = 2,       /* shutdown(SHUT_WR) was called; further input is discarded */
    FN_FIN_RECEIVED = 4,   /* the peer has half-closed */
    FN_READ_INTEREST = 8,  /* the engine waits for input */
    FN_WRITE_INTEREST = 16 /* the engine waits for room in the send buffer */
};

struct fn_conn {
    int fd;                      /* -1: the slot is free */
    uint32_t generation;         /* incremented each time the slot is allocated */
    uint32_t older;              /* neighbour in the list by last byte */
    uint32_t newer;              /* the same; in a free slot: the next free slot */
    uint32_t active_ms;          /* when the last byte moved */
    uint32_t flags;              /* FN_FIN_..., FN_..._INTEREST */
    const char *write_buffer;    /* output the kernel has not taken yet */
    uint32_t write_buffer_bytes; /* its length */
    char *write_block;           /* the heap block that holds it; NULL: static output */
};
_Static_assert(sizeof(struct fn_conn) <= 64, "the design promises 64 bytes a connection");

struct fn_slots {
    struct fn_conn *conn;   /* capacity + 1 of them */
    struct fn_trace *trace; /* the same; NULL unless connections are traced */
    uint32_t capacity;      /* connections at most */
    uint32_t open;          /* connections now */
    uint32_t used_max;      /* highest slot ever used */
    uint32_t free_slot;     /* head of the free list; 0: empty */
};

/* Returns 0 or -ENOMEM. */
static inline int fn_slots_open(struct fn_slots *slots, uint32_t capacity, int traced) {
    *slots = (struct fn_slots){.capacity = capacity};
    slots->conn = fn_map((capacity + 1) * sizeof(struct fn_conn));
    if (!slots->conn) {
        return -ENOMEM;
    }
    if (!traced) {
        return 0;
    }
    slots->trace = fn_map((capacity + 1) * sizeof(struct fn_trace));
    if (!slots->trace) {
        fn_unmap(slots->conn, (capacity + 1) * sizeof(struct fn_conn));
        slots->conn = NULL;
        return -ENOMEM;
    }
    return 0;
}

static inline void fn_slots_close(struct fn_slots *slots) {
    fn_unmap(slots->conn, (slots->capacity + 1) * sizeof(struct fn_conn));
    fn_unmap(slots->trace, (slots->capacity + 1) * sizeof(struct fn_trace));
}

static inline void fn_slots_unlink(struct fn_slots *slots, uint32_t slot) {
    struct fn_conn *all = slots->conn;
    struct fn_conn *conn = &all[slot];
    all[conn->older].newer = conn->newer;
    all[conn->newer].older = conn->older;
}

static inline void fn_slots_append(struct fn_slots *slots, uint32_t slot, uint32_t now_ms) {
    struct fn_conn *all = slots->conn;
    struct fn_conn *conn = &all[slot];
    conn->active_ms = now_ms;
    conn->older = all[0].older;
    conn->newer = 0;
    all[all[0].older].newer = slot;
    all[0].older = slot;
}

/* Bytes moved on this connection: it becomes the last to expire. */
static inline void fn_slots_touch(struct fn_slots *slots, uint32_t slot, uint32_t now_ms) {
    if (slots->conn[slot].active_ms == now_ms) {
        return; /* at most a tick out of order, and no list to relink */
    }
    fn_slots_unlink(slots, slot);
    fn_slots_append(slots, slot, now_ms);
}

/* Allocate a slot for fd. Returns its index, or 0 if the table is full. */
static inline uint32_t fn_slots_allocate(struct fn_slots *slots, int fd, uint32_t now_ms) {
    if (slots->open == slots->capacity) {
        return 0;
    }
    uint32_t slot = slots->free_slot;
    if (slot) {
        slots->free_slot = slots->conn[slot].newer;
    } else {
        slots->used_max++;
        slot = slots->used_max;
    }
    struct fn_conn *conn = &slots->conn[slot];
    *conn = (struct fn_conn){.fd = fd, .generation = conn->generation + 1};
    fn_slots_append(slots, slot, now_ms);
    slots->open++;
    return slot;
}

/* Free a slot and its write buffer; the descriptor is closed already. */
static inline void fn_slots_release(struct fn_slots *slots, uint32_t slot) {
    struct fn_conn *conn = &slots->conn[slot];
    fn_slots_unlink(slots, slot);
    free(conn->write_block);
    conn->write_block = NULL;
    conn->fd = -1;
    conn->newer = slots->free_slot;
    slots->free_slot = slot;
    slots->open--;
}

/* The connection an event tag names, or NULL if it is closed. */
static inline struct fn_conn *fn_slots_find(struct fn_slots *slots, uint64_t tag) {
    struct fn_conn *conn = &slots->conn[(uint32_t)tag];
    return conn->fd >= 0 && conn->generation == (uint32_t)(tag >> 32) ? conn : NULL;
}

/* The event tag of a connection: its generation above its slot. */
static inline uint64_t fn_slots_tag(const struct fn_slots *slots, uint32_t slot) {
    return (uint64_t)slots->conn[slot].generation << 32 | slot;
}

#endif
