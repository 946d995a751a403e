/* The arguments of one loop as plain numbers and pointers: engine/context.py, unpacked.
 *
 * Read-only for the loop, except for its own counter rows. Every number comes from limits/, so none
 * is typed twice. */
#ifndef FN_CONTEXT_H
#define FN_CONTEXT_H

#include <stdint.h>

#include "fn_access.h"
#include "fn_counters.h"
#include "fn_service.h"

#define FN_LISTENERS_MAX 8

/* The stop word of a server, shared by its threads and processes (engine/stop.py). */
enum fn_stop {
    FN_RUN,   /* serve */
    FN_DRAIN, /* accept no more; finish established connections */
    FN_NOW    /* close every connection */
};

struct fn_context {
    int listener[FN_LISTENERS_MAX];
    int listeners;                 /* how many */
    const struct fn_service *service;
    struct fn_access access;       /* networks that are admitted or rejected */
    const uint32_t *stop;          /* enum fn_stop */
    int drain_fd;                  /* eventfd, readable for ever once the word is FN_DRAIN */
    int now_fd;                    /* eventfd, readable for ever once the word is FN_NOW */
    char *rows;                    /* counters: row 0 of the loop, row i + 1 of slot i */
    uint32_t row_bytes;            /* distance between two rows */
    int trace_fd;                  /* pipe for connection records, or -1 */
    uint32_t max_connections;      /* connections open in this loop */
    uint32_t accept_burst;         /* accepts before established connections are handled */
    uint32_t accept_drain_max;     /* accepts of a draining loop */
    uint32_t accept_pause_ms;      /* accept backoff after EMFILE */
    uint32_t events_per_wait;      /* events of one epoll_wait */
    uint32_t idle_timeout_ms;      /* 0: none */
    uint32_t tick_ms;              /* socket timeout of blocking engines */
    uint32_t pool_size;            /* threads of the pool engine */
    uint32_t pool_queue_max;       /* accepted connections that wait for one of them */
    uint32_t thread_stack_bytes;
    uint32_t read_bytes;           /* one read */
    uint64_t write_buffer_bytes_max; /* write buffers of all connections of the loop */
    uint64_t busy_poll_ns;         /* busy-poll before blocking; 0: block immediately */
    int answer_any_port;           /* datagrams: also reply to ports below answered_port_min */
    uint32_t answered_port_min;    /* datagrams: lowest port that gets a reply */
    uint32_t send_timeout_ms;      /* datagrams: wait for room in the send buffer */
    uint32_t datagram_bytes_max;   /* datagrams: longest that is received or sent */
    uint32_t unvalidated_reply_bytes_max; /* datagrams: longest reply to a shorter request */
};

/* The stop word: an enum fn_stop. */
static inline uint32_t fn_stop_state(const struct fn_context *context) {
    return __atomic_load_n(context->stop, __ATOMIC_ACQUIRE);
}

/* A counter row: 0 of the loop, i + 1 of connection slot, thread or child i. */
static inline struct fn_counters *fn_row(const struct fn_context *context, uint32_t index) {
    return (struct fn_counters *)(context->rows + (uint64_t)index * context->row_bytes);
}

#endif
