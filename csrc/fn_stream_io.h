/* Input and output of one non-blocking connection: read once, call the service, send, buffer the
 * rest.
 *
 * Facts. Readiness is level-triggered, so one read an event is enough and keeps events short. A
 * send right after a read nearly always succeeds. An idle socket is always writable.
 * Decision: send first, and wait for EPOLLOUT only while the write buffer is not empty. One read
 * buffer serves all connections of the loop; only a connection with a write buffer has memory of
 * its own.
 * Cost: a copy of what was buffered; two interest changes each time a peer stops and resumes.
 * The pure twin is engine/stream/_connection_py.py. */
#ifndef FN_STREAM_IO_H
#define FN_STREAM_IO_H

#include "fn_stream.h"

static inline size_t fn_stream_reply_bytes(const struct fn_reply *reply) {
    return reply->part[0].iov_len + (reply->parts > 1 ? reply->part[1].iov_len : 0);
}

/* Put what follows the first `skip` bytes of a reply into the empty write buffer. Static output is
 * referenced, not copied, and not counted. Returns 0 or FN_CLOSE(FN_OVERLOAD). */
static inline int fn_stream_buffer_rest(struct fn_stream *stream, struct fn_conn *conn,
                                        const struct fn_reply *reply, size_t skip) {
    size_t left = fn_stream_reply_bytes(reply) - skip;
    size_t at = 0;
    conn->write_buffer_bytes = (uint32_t)left;
    if (reply->flags & FN_REPLY_STATIC) {
        conn->write_buffer = (char *)reply->part[0].iov_base + skip;
        return 0;
    }
    if (stream->row->write_buffer_bytes + left > stream->context->write_buffer_bytes_max) {
        return FN_CLOSE(FN_OVERLOAD);
    }
    char *block = malloc(left);
    if (!block) {
        return FN_CLOSE(FN_OVERLOAD);
    }
    for (int i = 0; i < reply->parts; i++) {
        size_t n = reply->part[i].iov_len;
        size_t over = skip < n ? skip : n;
        memcpy(block + at, (char *)reply->part[i].iov_base + over, n - over);
        at += n - over;
        skip -= over;
    }
    conn->write_block = block;
    conn->write_buffer = block;
    fn_count(&stream->row->write_buffer_bytes, left);
    return 0;
}

/* Send a reply, or as much as the kernel takes, and buffer the rest. */
static inline int fn_stream_send(struct fn_stream *stream, struct fn_conn *conn,
                                 struct fn_reply *reply) {
    if (reply->flags & FN_REPLY_END) {
        conn->flags |= FN_FIN_QUEUED;
    }
    if (reply->parts) {
        size_t all = fn_stream_reply_bytes(reply);
        ssize_t sent =
            reply->parts == 1
                ? fn_send(conn->fd, reply->part[0].iov_base, all, MSG_DONTWAIT)
                : fn_send_parts(conn->fd, reply->part, reply->parts, MSG_DONTWAIT);
        if (sent == -EAGAIN) {
            sent = 0;
        }
        if (sent < 0) {
            return fn_stream_error((int)sent);
        }
        fn_stream_count_sent(stream, conn, (size_t)sent);
        if ((size_t)sent < all) {
            return fn_stream_buffer_rest(stream, conn, reply, (size_t)sent);
        }
    }
    return fn_stream_finish_output(conn);
}

/* A connection was made: send what the service produces before any input. */
static inline int fn_stream_open(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (!stream->service->open) {
        return 0;
    }
    reply.parts = 0;
    reply.flags = 0;
    stream->service->open(stream->service, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* Handle the result of one read: n bytes, or 0 for end of stream. */
static inline int fn_stream_received(struct fn_stream *stream, struct fn_conn *conn, char *bytes,
                                     size_t n) {
    const struct fn_service *service = stream->service;
    uint32_t slot = (uint32_t)(conn - stream->slots.conn);
    struct fn_reply reply;
    reply.parts = 0;
    reply.flags = 0;
    if (n == 0) {
        conn->flags |= FN_FIN_RECEIVED;
        if (conn->flags & FN_FIN_QUEUED) {
            return fn_stream_finish_output(conn);
        }
        fn_stream_eof_reply(service, &reply);
        return fn_stream_send(stream, conn, &reply);
    }
    fn_count(&stream->row->bytes_in, n);
    fn_count(&stream->row->messages, 1);
    if (stream->slots.trace) {
        stream->slots.trace[slot].bytes_in += n;
    }
    /* After our FIN received bytes are no activity: the peer has the idle timeout to close. */
    if (!(conn->flags & FN_FIN_SENT)) {
        fn_slots_touch(&stream->slots, slot, stream->now_ms);
    }
    if (fn_stream_discards_input(stream, conn)) {
        return 0;
    }
    service->data(service, bytes, n, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* Input is ready: exactly one read. */
static inline int fn_stream_read(struct fn_stream *stream, struct fn_conn *conn) {
    /* MSG_TRUNC: TCP discards the bytes without a copy (tcp(7)); a Unix socket ignores the flag
     * and copies. */
    int flags = fn_stream_discards_input(stream, conn) ? MSG_TRUNC : 0;
    ssize_t n = fn_recv(conn->fd, stream->buffer, stream->context->read_bytes, flags);
    if (n == -EAGAIN) {
        return 0;
    }
    if (n < 0) {
        return fn_stream_error((int)n);
    }
    return fn_stream_received(stream, conn, stream->buffer, (size_t)n);
}

/* The kernel has taken n bytes of the write buffer. */
static inline int fn_stream_flushed(struct fn_stream *stream, struct fn_conn *conn, size_t n) {
    fn_stream_count_sent(stream, conn, n);
    if (conn->write_block) {
        fn_count(&stream->row->write_buffer_bytes, -(uint64_t)n);
    }
    conn->write_buffer += n;
    conn->write_buffer_bytes -= (uint32_t)n;
    if (conn->write_buffer_bytes) {
        return 0;
    }
    free(conn->write_block);
    conn->write_block = NULL;
    return fn_stream_finish_output(conn);
}

/* The send buffer has room: flush the write buffer, or send what the service produces next. */
static inline int fn_stream_write(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (conn->write_buffer_bytes) {
        ssize_t sent =
            fn_send(conn->fd, conn->write_buffer, conn->write_buffer_bytes, MSG_DONTWAIT);
        if (sent == -EAGAIN) {
            return 0;
        }
        if (sent < 0) {
            return fn_stream_error((int)sent);
        }
        return fn_stream_flushed(stream, conn, (size_t)sent);
    }
    if (!stream->service->sent || (conn->flags & FN_FIN_QUEUED)) {
        return 0;
    }
    reply.parts = 0;
    reply.flags = 0;
    stream->service->sent(stream->service, &reply);
    return fn_stream_send(stream, conn, &reply);
}

/* For an engine that sends by request: put what the service produces next into the write buffer,
 * which is empty. */
static inline int fn_stream_queue_output(struct fn_stream *stream, struct fn_conn *conn) {
    struct fn_reply reply;
    if (conn->flags & FN_FIN_QUEUED) {
        return 0;
    }
    reply.parts = 0;
    reply.flags = 0;
    stream->service->sent(stream->service, &reply);
    if (reply.flags & FN_REPLY_END) {
        conn->flags |= FN_FIN_QUEUED;
    }
    if (!reply.parts) {
        return fn_stream_finish_output(conn);
    }
    return fn_stream_buffer_rest(stream, conn, &reply, 0);
}

#endif
