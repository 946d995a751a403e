/* The connections of one non-blocking loop: what they wait for, how they close, when they expire.
 *
 * Decision: everything is derived from the write buffer and three flags of FIN (fn_slots.h), so no
 * state is kept twice. While the write buffer is not empty, a service that answers input gets none:
 * a peer that does not read is no longer read, and TCP flow control stops it.
 * The pure twin is engine/stream/_connection_py.py; reads and writes are in fn_stream_io.h. */
#ifndef FN_STREAM_H
#define FN_STREAM_H

#include "fn_context.h"
#include "fn_slots.h"

/* The connections of one loop. */
struct fn_stream {
    const struct fn_context *context;
    const struct fn_service *service;
    struct fn_counters *row; /* the loop's counters */
    struct fn_slots slots;
    char *buffer;            /* read buffer, context->read_bytes, shared by all connections */
    uint32_t now_ms;         /* the time, as of the last wait */
};

/* An event handler returns 0 to continue, or FN_CLOSE(why): minus one minus an enum fn_closed. */
#define FN_CLOSE(why) (-1 - (int)(why))
#define FN_CLOSE_REASON(result) ((enum fn_closed)(-1 - (result)))

/* FN_CLOSE for an error of a socket call, -errno. */
static inline int fn_stream_error(int error) {
    return FN_CLOSE(error == -ECONNRESET || error == -EPIPE ? FN_RESET : FN_ERROR);
}

/* FN_CLOSE for the pending error of a socket that the poller reports while it is not read. */
static inline int fn_stream_socket_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return fn_stream_error(error ? -error : -ECONNRESET);
}

/* Returns 0 or -ENOMEM; fn_stream_destroy in either case. */
static inline int fn_stream_init(struct fn_stream *stream, const struct fn_context *context,
                                 uint32_t connections_max) {
    *stream = (struct fn_stream){
        .context = context,
        .service = context->service,
        .row = fn_row(context, 0),
        .now_ms = fn_now_ms(),
    };
    stream->buffer = malloc(context->read_bytes);
    if (!stream->buffer) {
        return -ENOMEM;
    }
    return fn_slots_open(&stream->slots, connections_max, context->trace_fd >= 0);
}

static inline void fn_stream_destroy(struct fn_stream *stream) {
    fn_slots_close(&stream->slots);
    free(stream->buffer);
}

/* Close the descriptor, count why, release the slot. */
static inline void fn_stream_close(struct fn_stream *stream, uint32_t slot, enum fn_closed why) {
    struct fn_conn *conn = &stream->slots.conn[slot];
    close(conn->fd);
    fn_count_closed(stream->row, why);
    if (conn->write_block) {
        fn_count(&stream->row->write_buffer_bytes, -(uint64_t)conn->write_buffer_bytes);
    }
    if (stream->slots.trace) {
        fn_trace_close(&stream->slots.trace[slot], why, stream->context->trace_fd);
    }
    fn_slots_release(&stream->slots, slot);
}

/* Count n bytes that the kernel has taken. */
static inline void fn_stream_count_sent(struct fn_stream *stream, struct fn_conn *conn, size_t n) {
    uint32_t slot = (uint32_t)(conn - stream->slots.conn);
    fn_count(&stream->row->bytes_out, n);
    if (stream->slots.trace) {
        stream->slots.trace[slot].bytes_out += n;
    }
    fn_slots_touch(&stream->slots, slot, stream->now_ms);
}

/* Half-close or close, if that was queued behind output that is now out. */
static inline int fn_stream_finish_output(struct fn_conn *conn) {
    if (conn->write_buffer_bytes || !(conn->flags & FN_FIN_QUEUED)) {
        return 0;
    }
    if (conn->flags & FN_FIN_RECEIVED) {
        return FN_CLOSE(FN_FINISHED);
    }
    if (!(conn->flags & FN_FIN_SENT)) {
        shutdown(conn->fd, SHUT_WR);
    }
    conn->flags |= FN_FIN_SENT;
    return 0;
}

/* The reply to the peer's FIN, with END unless the service produces output by itself. */
static inline void fn_stream_eof_reply(const struct fn_service *service, struct fn_reply *reply) {
    if (service->eof) {
        service->eof(service, reply);
    }
    if (!service->eof || !service->sent) {
        reply->flags |= FN_REPLY_END;
    }
}

/* Whether input is discarded: the service accepts none, or our FIN is queued. */
static inline int fn_stream_discards_input(const struct fn_stream *stream,
                                           const struct fn_conn *conn) {
    return !stream->service->data || (conn->flags & FN_FIN_QUEUED);
}

/* What to wait for next: FN_READ_INTEREST, FN_WRITE_INTEREST, both or 0. */
static inline uint32_t fn_stream_interest(const struct fn_stream *stream,
                                          const struct fn_conn *conn) {
    uint32_t interest = 0;
    int discards = !stream->service->data || (conn->flags & FN_FIN_SENT);
    int produces = stream->service->sent && !(conn->flags & FN_FIN_QUEUED);
    if (conn->write_buffer_bytes || produces) {
        interest |= FN_WRITE_INTEREST;
    }
    if (!(conn->flags & FN_FIN_RECEIVED) && (!conn->write_buffer_bytes || discards)) {
        interest |= FN_READ_INTEREST;
    }
    return interest;
}

/* Returns a connection whose idle timeout has expired, or 0. due_ms: milliseconds until the next
 * one expires, -1: never. */
static inline uint32_t fn_stream_expired(const struct fn_stream *stream, int *due_ms) {
    uint32_t timeout_ms = stream->context->idle_timeout_ms;
    uint32_t oldest = stream->slots.conn[0].newer;
    *due_ms = -1;
    if (!timeout_ms || !oldest) {
        return 0;
    }
    uint32_t idle_ms = stream->now_ms - stream->slots.conn[oldest].active_ms;
    if (idle_ms >= timeout_ms) {
        return oldest;
    }
    *due_ms = (int)(timeout_ms - idle_ms);
    return 0;
}

#endif
