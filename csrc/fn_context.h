/* What one loop is given: numbers and pointers, read-only but for its own counters (the contract is
 * engine/stream/contract.py). */
#ifndef FN_CONTEXT_H
#define FN_CONTEXT_H

#include <stdint.h>

#include "fn_access.h"
#include "fn_counters.h"
#include "fn_service.h"

#define FN_LISTENERS_MAX 8

/* The word that tells loops to stop; shared by threads and processes. */
enum fn_stop { FN_RUN, FN_DRAIN, FN_NOW };

struct fn_context {
    int listener[FN_LISTENERS_MAX];
    int listeners;
    const struct fn_service *service;
    struct fn_access access;
    const uint32_t *stop;           /* enum fn_stop */
    int drain_fd, now_fd;           /* eventfds, readable for good once the word is at least FN_DRAIN, FN_NOW */
    char *rows;                     /* counter rows: row 0 is the loop's, row i + 1 belongs to connection slot i */
    uint32_t row_bytes;
    int trace_fd;                   /* a pipe for connection records, or -1 */
    uint32_t accept_drain_max;      /* connections taken from the queue of a draining server, at most */
    uint32_t answered_port_min;     /* datagrams: no reply to a lower port */
    uint32_t send_timeout_ms;       /* datagrams: wait for room in the send buffer */
    uint32_t max_connections, accept_burst, accept_pause_ms, events_per_wait;
    uint32_t idle_timeout_ms, tick_ms;
    uint32_t pool_size, pool_queue_max, thread_stack_bytes;
    uint32_t read_bytes;
    int answer_any_port;            /* datagrams: also ports that may answer back for ever */
    uint32_t unvalidated_reply_bytes_max;  /* datagrams: longest reply to a shorter request */
    uint32_t datagram_bytes_max;    /* datagrams: longest that is taken and sent */
    uint64_t busy_poll_ns;          /* look that long before sleeping; 0: sleep at once */
    uint64_t write_buffer_bytes_max;
};

static inline uint32_t fn_stop_state(const struct fn_context *context) {
    return __atomic_load_n(context->stop, __ATOMIC_ACQUIRE);
}

static inline struct fn_counters *fn_row(const struct fn_context *context, uint32_t index) {
    return (struct fn_counters *)(context->rows + (uint64_t)index * context->row_bytes);
}

#endif
