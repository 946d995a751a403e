/* One connection from accept to close on a blocking socket: for iterative, fork, thread and pool.
 *
 * Facts. A blocking recv(2) is one system call a message and needs no readiness call, but it also
 * sleeps through a stop request and an idle timeout.
 * Decision: the socket's own timeout (SO_RCVTIMEO, SO_SNDTIMEO) wakes the call every tick to check
 * both. No descriptor is closed or shut down from another thread, so there is no race to lose.
 * Nothing is allocated: a forked child may hold any lock of malloc.
 * Cost: two setsockopt(2) a connection, and four wake-ups a second for each idle one.
 * The pure twin is engine/stream/_blocking_py.py. */
#ifndef FN_BLOCKING_H
#define FN_BLOCKING_H

#include "fn_stream.h"

struct fn_blocking {
    const struct fn_context *context;
    struct fn_counters *row; /* counters with no other writer meanwhile */
    int fd;
    char *buffer;            /* context->read_bytes */
    uint32_t active_ms;      /* when the last byte moved */
    uint32_t flags;          /* FN_FIN_QUEUED, FN_FIN_RECEIVED */
};

/* A call returned after its tick. Returns 0 to retry, or FN_CLOSE(why). */
static inline int fn_blocking_check_deadline(const struct fn_blocking *conn) {
    uint32_t timeout_ms = conn->context->idle_timeout_ms;
    if (fn_stop_state(conn->context) == FN_NOW) {
        return FN_CLOSE(FN_STOPPED);
    }
    if (timeout_ms && fn_now_ms() - conn->active_ms >= timeout_ms) {
        return FN_CLOSE(FN_IDLE);
    }
    return 0;
}

/* Send n bytes to their end. Returns 0 or FN_CLOSE(why). */
static inline int fn_blocking_send_all(struct fn_blocking *conn, const char *bytes, size_t n) {
    while (n) {
        ssize_t sent = fn_send(conn->fd, bytes, n, 0);
        int result = 0;
        if (sent == -EAGAIN) {
            result = fn_blocking_check_deadline(conn);
            sent = 0;
        } else if (sent < 0) {
            return fn_stream_error((int)sent);
        } else {
            fn_count(&conn->row->bytes_out, (uint64_t)sent);
            conn->active_ms = fn_now_ms();
            if (n > (size_t)sent && fn_stop_state(conn->context) == FN_NOW) {
                result = FN_CLOSE(FN_STOPPED);
            }
        }
        if (result) {
            return result;
        }
        bytes += sent;
        n -= (size_t)sent;
    }
    return 0;
}

/* Send a reply to its end. Two pieces leave in one segment if the kernel takes both in one call. */
static inline int fn_blocking_send_reply(struct fn_blocking *conn, struct fn_reply *reply) {
    int result = 0;
    size_t skip = 0;
    if (reply->parts > 1) {
        ssize_t sent = fn_send_parts(conn->fd, reply->part, reply->parts, 0);
        if (sent < 0 && sent != -EAGAIN) {
            return fn_stream_error((int)sent);
        }
        if (sent > 0) {
            fn_count(&conn->row->bytes_out, (uint64_t)sent);
            skip = (size_t)sent;
        }
    }
    for (int i = 0; i < reply->parts && result == 0; i++) {
        size_t n = reply->part[i].iov_len;
        size_t over = skip < n ? skip : n;
        result = fn_blocking_send_all(conn, (char *)reply->part[i].iov_base + over, n - over);
        skip -= over;
    }
    if (result == 0 && (reply->flags & FN_REPLY_END)) {
        conn->flags |= FN_FIN_QUEUED;
        if (conn->flags & FN_FIN_RECEIVED) {
            return FN_CLOSE(FN_FINISHED);
        }
        shutdown(conn->fd, SHUT_WR);
    }
    return result;
}

/* Handle the result of one read: n bytes, 0 for end of stream, or -errno. Returns 0 to continue,
 * or FN_CLOSE(why). */
static inline int fn_blocking_received(struct fn_blocking *conn, ssize_t n, int discards) {
    const struct fn_service *service = conn->context->service;
    struct fn_reply reply;
    if (n < 0) {
        return fn_stream_error((int)n);
    }
    reply.parts = 0;
    reply.flags = 0;
    if (n == 0) {
        conn->flags |= FN_FIN_RECEIVED;
        if (conn->flags & FN_FIN_QUEUED) {
            return FN_CLOSE(FN_FINISHED);
        }
        fn_stream_eof_reply(service, &reply);
        return fn_blocking_send_reply(conn, &reply);
    }
    fn_count(&conn->row->bytes_in, (uint64_t)n);
    fn_count(&conn->row->messages, 1);
    /* After our FIN received bytes are no activity, and they keep recv(2) from ever timing out:
     * check the clock here. */
    if (conn->flags & FN_FIN_QUEUED) {
        return fn_blocking_check_deadline(conn);
    }
    conn->active_ms = fn_now_ms();
    if (discards) {
        return 0;
    }
    service->data(service, conn->buffer, (size_t)n, &reply);
    return fn_blocking_send_reply(conn, &reply);
}

/* recv(2) into the buffer; busy-polls for up to busy_poll_ns before blocking. Returns like
 * fn_recv. */
static inline ssize_t fn_blocking_recv(struct fn_blocking *conn, int flags) {
    const struct fn_context *context = conn->context;
    if (context->busy_poll_ns && !(flags & MSG_DONTWAIT)) {
        uint64_t until_ns = fn_now_ns() + context->busy_poll_ns;
        do {
            ssize_t n =
                fn_recv(conn->fd, conn->buffer, context->read_bytes, flags | MSG_DONTWAIT);
            if (n != -EAGAIN) {
                fn_count(&conn->row->busy_poll_hits, 1);
                return n;
            }
        } while (fn_now_ns() < until_ns);
        fn_count(&conn->row->busy_poll_misses, 1);
    }
    return fn_recv(conn->fd, conn->buffer, context->read_bytes, flags);
}

/* Serve until either side closes. Returns FN_CLOSE(why). */
static inline int fn_blocking_run(struct fn_blocking *conn) {
    const struct fn_service *service = conn->context->service;
    struct fn_reply reply;
    int result = 0;
    reply.parts = 0;
    reply.flags = 0;
    if (service->open) {
        service->open(service, &reply);
        result = fn_blocking_send_reply(conn, &reply);
    }
    while (result == 0) {
        if (fn_stop_state(conn->context) == FN_NOW) {
            return FN_CLOSE(FN_STOPPED);
        }
        int produces = service->sent && !(conn->flags & FN_FIN_QUEUED);
        int discards = !service->data || (conn->flags & FN_FIN_QUEUED);
        if (!(conn->flags & FN_FIN_RECEIVED)) {
            int flags = (discards ? MSG_TRUNC : 0) | (produces ? MSG_DONTWAIT : 0);
            ssize_t n = fn_blocking_recv(conn, flags);
            if (n != -EAGAIN) {
                result = fn_blocking_received(conn, n, discards);
            } else if (!produces) {
                result = fn_blocking_check_deadline(conn);
            }
        }
        if (result == 0 && produces) {
            reply.parts = 0;
            reply.flags = 0;
            service->sent(service, &reply);
            result = fn_blocking_send_reply(conn, &reply);
        }
    }
    return result;
}

/* Serve the connection fd to its end and close it. row: counters with no other writer meanwhile.
 * buffer: context->read_bytes of the caller's own. peer: as fn_accept_one filled it in. */
static inline void fn_blocking_serve(const struct fn_context *context, struct fn_counters *row,
                                     int fd, const struct sockaddr_storage *peer, char *buffer) {
    struct fn_blocking conn = {
        .context = context,
        .row = row,
        .fd = fd,
        .buffer = buffer,
        .active_ms = fn_now_ms(),
    };
    uint32_t idle_ms = context->idle_timeout_ms;
    uint32_t tick_ms = context->tick_ms;
    uint64_t in = row->bytes_in;
    uint64_t out = row->bytes_out;
    struct fn_trace trace;
    if (context->trace_fd >= 0) {
        fn_trace_open(&trace, peer);
    }
    fn_set_socket_timeout(fd, idle_ms && idle_ms < tick_ms ? idle_ms : tick_ms);
    enum fn_closed why = FN_CLOSE_REASON(fn_blocking_run(&conn));
    close(fd);
    fn_count_closed(row, why);
    if (context->trace_fd < 0) {
        return;
    }
    trace.bytes_in = row->bytes_in - in;
    trace.bytes_out = row->bytes_out - out;
    fn_trace_close(&trace, why, context->trace_fd);
}

#endif
