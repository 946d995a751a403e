/* Connection records, written to a pipe that a Python thread reads and logs.
 *
 * Facts. A loop holds no GIL, and a forked child must not touch Python, so neither can log. A write
 * of at most PIPE_BUF bytes to a pipe is atomic (pipe(7)), so all loops and children of a server
 * can share one pipe.
 * Decision: the pipe exists only at log level debug. When it is full the record is dropped: logging
 * must not block a server.
 * Cost: one write(2) a connection, and 64 bytes a slot, at debug level only.
 * The reader is metrics/connection_log.py. */
#ifndef FN_TRACE_H
#define FN_TRACE_H

#include "fn_access.h"
#include "fn_clock.h"
#include "fn_counters.h"
#include "fn_sys.h"

struct fn_trace {
    uint64_t opened_ns;  /* when it was accepted; in the record: how long it was open */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint16_t family;     /* AF_... */
    uint16_t port;       /* host byte order */
    uint8_t address[16]; /* as fn_access_address fills it in */
    uint8_t why;         /* enum fn_closed */
    uint8_t pad[19];
};
_Static_assert(sizeof(struct fn_trace) == 64, "metrics/connection_log.py unpacks 64 bytes");

/* Begin a record when the connection is accepted. */
static inline void fn_trace_open(struct fn_trace *trace, const struct sockaddr_storage *peer) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
    *trace = (struct fn_trace){.opened_ns = fn_now_ns(), .family = peer->ss_family};
    fn_access_address(peer, trace->address);
    if (peer->ss_family == AF_INET) {
        trace->port = ntohs(v4->sin_port);
    }
    if (peer->ss_family == AF_INET6) {
        trace->port = ntohs(v6->sin6_port);
    }
}

/* Complete the record and write it; a full pipe drops it. */
static inline void fn_trace_close(struct fn_trace *trace, enum fn_closed why, int pipe) {
    trace->opened_ns = fn_now_ns() - trace->opened_ns;
    trace->why = (uint8_t)why;
    ssize_t written;
    FN_RETRY(written, write(pipe, trace, sizeof *trace));
}

#endif
