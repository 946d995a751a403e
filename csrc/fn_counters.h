/* Counters of a loop: one 64-bit word each, in memory that Python and forked children share.
 *
 * Facts. Every row has one writer, so an add is a plain load and store; relaxed atomics keep a
 * reader in another thread or process from a torn word, and cost nothing on 64-bit hosts.
 * Decision: the list stands here once. metrics/counters.py has the same names and is compared with
 * it at import. */
#ifndef FN_COUNTERS_H
#define FN_COUNTERS_H

#include <stdint.h>

/* The words closed_* are in the order of enum fn_closed below. */
#define FN_COUNTERS(WORD)       \
    WORD(accepted)              \
    WORD(accept_pauses)         \
    WORD(bytes_in)              \
    WORD(bytes_out)             \
    WORD(messages)              \
    WORD(write_buffer_bytes)    \
    WORD(ring_starved)          \
    WORD(ring_overflows)        \
    WORD(busy_poll_hits)        \
    WORD(busy_poll_misses)      \
    WORD(replies)               \
    WORD(unanswered)            \
    WORD(unsent)                \
    WORD(truncated)             \
    WORD(kernel_drops)          \
    WORD(amplification_blocked) \
    WORD(handler_errors)        \
    WORD(closed_finished)       \
    WORD(closed_reset)          \
    WORD(closed_idle)           \
    WORD(closed_denied)         \
    WORD(closed_refused)        \
    WORD(closed_overload)       \
    WORD(closed_killed)         \
    WORD(closed_stopped)        \
    WORD(closed_error)

#define FN_WORD(name) uint64_t name;
struct fn_counters {
    FN_COUNTERS(FN_WORD)
};
#undef FN_WORD

#define FN_NAME(name) #name " "
static const char fn_counter_names[] = FN_COUNTERS(FN_NAME);
#undef FN_NAME

/* Why a connection was closed. */
enum fn_closed {
    FN_FINISHED, /* both directions ended with FIN */
    FN_RESET,    /* the peer disconnected: ECONNRESET or EPIPE */
    FN_IDLE,     /* no byte for idle_timeout */
    FN_DENIED,   /* rejected by the access list */
    FN_REFUSED,  /* accepted, but there was no thread, process or select slot for it */
    FN_OVERLOAD, /* slow readers had filled the write buffers of the loop */
    FN_KILLED,   /* its child process died of a signal */
    FN_STOPPED,  /* the server stopped first */
    FN_ERROR     /* any other error of the socket */
};

/* Add n to a counter of the caller's own row. */
static inline void fn_count(uint64_t *word, uint64_t n) {
    __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void fn_count_closed(struct fn_counters *row, enum fn_closed why) {
    fn_count(&row->closed_finished + why, 1);
}

#endif
