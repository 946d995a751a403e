/* One turn of one non-blocking connection: read once, ask the service, send, park what the kernel
 * did not take.
 *
 * Facts. Readiness is level-triggered, so one read an event is enough and keeps turns short. A send
 * right after a read nearly always succeeds. An idle socket is always writable.
 * Decision: send first and watch for room only while bytes are parked; while they are, a service
 * that answers input gets none, so a peer that does not read is no longer read and its own TCP
 * stops it. One buffer serves all connections of the loop; only a connection with parked bytes has
 * memory of its own.
 * Cost: a copy of what was parked; two interest changes for each time a peer stops and resumes. */
#ifndef FN_STREAM_H
#define FN_STREAM_H

#include "fn_slots.h"
#include "fn_context.h"

struct fn_stream {
    const struct fn_context *context;
    const struct fn_service *service;
    struct fn_counters *row;
    struct fn_slots slots;
    char *buffer; /* context->read_bytes, shared by all connections */
    uint32_t now_ms;
};

/* A turn returns 0 to go on, or minus one minus an enum fn_closed. */
#define FN_CLOSE(why) (-1 - (int)(why))
#define FN_WHY(turn) ((enum fn_closed)(-1 - (turn)))

static inline int fn_close_for(int error) {
    return FN_CLOSE(error == -ECONNRESET || error == -EPIPE ? FN_RESET : FN_ERROR);
}

/* The poller reports an error or a hang-up while nobody reads: FN_CLOSE with the reason the socket
 * gives. */
static inline int fn_socket_close(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return fn_close_for(error ? -error : -ECONNRESET);
}

static inline int fn_stream_start(struct fn_stream *stream, const struct fn_context *context, uint32_t connections) {
    *stream = (struct fn_stream){.context = context, .service = context->service, .row = fn_row(context, 0), .now_ms = fn_now_ms()};
    stream->buffer = malloc(context->read_bytes);
    if (!stream->buffer) return -ENOMEM;
    return fn_slots_open(&stream->slots, connections, context->trace_fd >= 0);
}

static inline void fn_stream_finish(struct fn_stream *stream) {
    fn_slots_close(&stream->slots);
    free(stream->buffer);
}

/* Close the descriptor, count why, free the slot. */
static inline void fn_stream_close(struct fn_stream *stream, uint32_t slot, enum fn_closed why) {
    struct fn_conn *conn = &stream->slots.conn[slot];
    close(conn->fd);
    fn_count_closed(stream->row, why);
    if (conn->block) fn_count(&stream->row->write_buffer_bytes, -(uint64_t)conn->write_buffer_bytes);
    if (stream->slots.trace) fn_trace_close(&stream->slots.trace[slot], why, stream->context->trace_fd);
    fn_slot_free(&stream->slots, slot);
}

static inline void fn_stream_sent(struct fn_stream *stream, struct fn_conn *conn, size_t n) {
    fn_count(&stream->row->bytes_out, n);
    if (stream->slots.trace) stream->slots.trace[conn - stream->slots.conn].bytes_out += n;
    fn_idle_touch(&stream->slots, (uint32_t)(conn - stream->slots.conn), stream->now_ms);
}

/* Keep what is left of a reply after its first skip bytes. */
static inline int fn_stream_park(struct fn_stream *stream, struct fn_conn *conn, const struct fn_reply *reply, size_t skip) {
    size_t left = reply->part[0].iov_len + (reply->parts > 1 ? reply->part[1].iov_len : 0) - skip, at = 0;
    conn->write_buffer_bytes = (uint32_t)left;
    if (reply->flags & FN_STABLE) {
        conn->write_buffer = (char *)reply->part[0].iov_base + skip;
        return 0;
    }
    if (stream->row->write_buffer_bytes + left > stream->context->write_buffer_bytes_max) return FN_CLOSE(FN_OVERLOAD);
    char *block = malloc(left);
    if (!block) return FN_CLOSE(FN_OVERLOAD);
    for (int i = 0; i < reply->parts; i++) {
        size_t n = reply->part[i].iov_len, over = skip < n ? skip : n;
        memcpy(block + at, (char *)reply->part[i].iov_base + over, n - over);
        at += n - over;
        skip -= over;
    }
    conn->write_buffer = conn->block = block;
    fn_count(&stream->row->write_buffer_bytes, left);
    return 0;
}

/* After sending: the half-close or the close that was waiting for it. */
static inline int fn_stream_settle(struct fn_conn *conn) {
    if (conn->write_buffer_bytes || !(conn->flags & FN_ENDING)) return 0;
    if (conn->flags & FN_PEER_EOF) return FN_CLOSE(FN_FINISHED);
    if (!(conn->flags & FN_ENDED)) shutdown(conn->fd, SHUT_WR);
    conn->flags |= FN_ENDED;
    return 0;
}

/* Send a reply, or as much of it as the kernel takes, and park the rest. */
static inline int fn_stream_send(struct fn_stream *stream, struct fn_conn *conn, struct fn_reply *reply) {
    if (reply->flags & FN_END) conn->flags |= FN_ENDING;
    if (reply->parts) {
        size_t all = reply->part[0].iov_len + (reply->parts > 1 ? reply->part[1].iov_len : 0);
        ssize_t sent = reply->parts == 1 ? fn_send(conn->fd, reply->part[0].iov_base, all, MSG_DONTWAIT)
                                         : fn_send_parts(conn->fd, reply->part, reply->parts, MSG_DONTWAIT);
        if (sent == -EAGAIN) sent = 0;
        if (sent < 0) return fn_close_for((int)sent);
        fn_stream_sent(stream, conn, (size_t)sent);
        if ((size_t)sent < all) return fn_stream_park(stream, conn, reply, (size_t)sent);
    }
    return fn_stream_settle(conn);
}

/* The first turn: what the service says before it has read anything. */
static inline int fn_stream_open(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (!stream->service->open) return 0;
    reply.parts = reply.flags = 0;
    stream->service->open(stream->service, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* Whether input is dropped: nobody wants it, or we have said our last word. */
static inline int fn_stream_drops(const struct fn_stream *stream, const struct fn_conn *conn) {
    return !stream->service->data || (conn->flags & FN_ENDING);
}

/* What one read brought: n bytes, or with 0 the end. */
static inline int fn_stream_heard(struct fn_stream *stream, struct fn_conn *conn, char *bytes, size_t n) {
    const struct fn_service *service = stream->service;
    struct fn_reply reply;
    reply.parts = reply.flags = 0;
    if (n == 0) {
        conn->flags |= FN_PEER_EOF;
        if (conn->flags & FN_ENDING) return fn_stream_settle(conn);
        if (service->eof) service->eof(service, &reply);
        if (!service->eof || !service->sent) reply.flags |= FN_END; /* nothing could make it speak again */
        return fn_stream_send(stream, conn, &reply);
    }
    fn_count(&stream->row->bytes_in, n);
    fn_count(&stream->row->messages, 1);
    if (stream->slots.trace) stream->slots.trace[conn - stream->slots.conn].bytes_in += n;
    /* After our FIN the peer's chatter is no activity: it has the idle time-out to finish. */
    if (!(conn->flags & FN_ENDED)) fn_idle_touch(&stream->slots, (uint32_t)(conn - stream->slots.conn), stream->now_ms);
    if (fn_stream_drops(stream, conn)) return 0;
    service->data(service, bytes, n, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* A turn for input: exactly one read. */
static inline int fn_stream_read(struct fn_stream *stream, struct fn_conn *conn) {
    /* MSG_TRUNC: TCP drops the bytes without copying them (tcp(7)); a Unix socket ignores it and
     * copies. */
    int flags = fn_stream_drops(stream, conn) ? MSG_TRUNC : 0;
    ssize_t n = fn_recv(conn->fd, stream->buffer, stream->context->read_bytes, flags);
    if (n == -EAGAIN) return 0;
    return n < 0 ? fn_close_for((int)n) : fn_stream_heard(stream, conn, stream->buffer, (size_t)n);
}

/* The kernel took n of the parked bytes. */
static inline int fn_stream_flushed(struct fn_stream *stream, struct fn_conn *conn, size_t n) {
    fn_stream_sent(stream, conn, n);
    if (conn->block) fn_count(&stream->row->write_buffer_bytes, -(uint64_t)n);
    conn->write_buffer += n;
    conn->write_buffer_bytes -= (uint32_t)n;
    if (conn->write_buffer_bytes) return 0;
    free(conn->block);
    conn->block = NULL;
    return fn_stream_settle(conn);
}

/* A turn for output: what is parked first, then what the service has next. */
static inline int fn_stream_write(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (conn->write_buffer_bytes) {
        ssize_t sent = fn_send(conn->fd, conn->write_buffer, conn->write_buffer_bytes, MSG_DONTWAIT);
        if (sent == -EAGAIN) return 0;
        if (sent < 0) return fn_close_for((int)sent);
        return fn_stream_flushed(stream, conn, (size_t)sent);
    }
    if (!stream->service->sent || (conn->flags & FN_ENDING)) return 0;
    reply.parts = reply.flags = 0;
    stream->service->sent(stream->service, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* What the service has next is only parked, for an engine that sends by request. Nothing is parked
 * yet. */
static inline int fn_stream_order(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (conn->flags & FN_ENDING) return 0;
    reply.parts = reply.flags = 0;
    stream->service->sent(stream->service, &reply);
    if (reply.flags & FN_END) conn->flags |= FN_ENDING;
    return reply.parts ? fn_stream_park(stream, conn, &reply, 0) : fn_stream_settle(conn);
}

/* What to watch for next: FN_READS, FN_WRITES, both or neither. */
static inline uint32_t fn_stream_wants(const struct fn_stream *stream, const struct fn_conn *conn) {
    uint32_t wants = 0;
    int drops = !stream->service->data || (conn->flags & FN_ENDED);
    if (conn->write_buffer_bytes || (stream->service->sent && !(conn->flags & FN_ENDING))) wants |= FN_WRITES;
    if (!(conn->flags & FN_PEER_EOF) && (!conn->write_buffer_bytes || drops)) wants |= FN_READS;
    return wants;
}

/* A connection that has been idle too long, or 0. due_ms: until the next one will have been, -1 if
 * there is none. */
static inline uint32_t fn_stream_overdue(const struct fn_stream *stream, int *due_ms) {
    uint32_t patience = stream->context->idle_timeout_ms, oldest = stream->slots.conn[0].newer;
    *due_ms = -1;
    if (!patience || !oldest) return 0;
    uint32_t idle = stream->now_ms - stream->slots.conn[oldest].active_ms;
    if (idle >= patience) return oldest;
    *due_ms = (int)(patience - idle);
    return 0;
}

#endif
