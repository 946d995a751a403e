/* One record for each connection that ends, written to a pipe that a Python thread reads and logs
 * (metrics/connection_log.py).
 *
 * Facts. A loop holds no GIL, and a forked child must not touch Python, so neither can log. A write
 * of at most PIPE_BUF bytes to a pipe is atomic (pipe(7)), so all loops and children of a server
 * can share one pipe.
 * Decision: the pipe exists only at log level debug; when it is full the record is dropped, for a
 * log must not stop a server.
 * Cost: one write(2) a connection, and 64 bytes a slot, at debug level only. */
#ifndef FN_TRACE_H
#define FN_TRACE_H

#include "fn_access.h"
#include "fn_clock.h"
#include "fn_counters.h"
#include "fn_sys.h"

struct fn_trace {
    uint64_t opened_ns; /* becomes the duration when the record is written */
    uint64_t bytes_in, bytes_out;
    uint16_t family, port; /* host byte order */
    uint8_t address[16];
    uint8_t why; /* enum fn_closed */
    uint8_t pad[19];
};
_Static_assert(sizeof(struct fn_trace) == 64, "metrics/connection_log.py unpacks 64 bytes");

static inline void fn_trace_open(struct fn_trace *trace, const struct sockaddr_storage *peer) {
    *trace = (struct fn_trace){.opened_ns = fn_now_ns(), .family = peer->ss_family};
    fn_address16(peer, trace->address);
    if (peer->ss_family == AF_INET) trace->port = ntohs(((const struct sockaddr_in *)peer)->sin_port);
    if (peer->ss_family == AF_INET6) trace->port = ntohs(((const struct sockaddr_in6 *)peer)->sin6_port);
}

static inline void fn_trace_close(struct fn_trace *trace, enum fn_closed why, int pipe) {
    trace->opened_ns = fn_now_ns() - trace->opened_ns;
    trace->why = (uint8_t)why;
    ssize_t written;
    FN_RETRY(written, write(pipe, trace, sizeof *trace));
}

#endif
