/* One connection from its first byte to its last, on a blocking socket: what iterative, fork,
 * thread and pool run.
 *
 * Facts. A blocking recv(2) is one system call a message and needs no readiness call, which is the
 * whole charm of these models; but it also sleeps through a stop request and an idle time-out.
 * Decision: the socket's own patience (SO_RCVTIMEO, SO_SNDTIMEO) wakes it every tick to look. No
 * descriptor is closed or shut down from another thread, so there is no race to lose. Nothing is
 * allocated: a forked child may be anywhere in malloc. Cost: two setsockopt(2) a connection, and
 * four wake-ups a second for each idle one. */
#ifndef FN_BLOCKING_H
#define FN_BLOCKING_H

#include "fn_stream.h"

struct fn_talk {
    const struct fn_context *context;
    struct fn_counters *row;
    int fd;
    char *buffer; /* context->read_bytes */
    uint32_t active_ms;
    uint32_t flags; /* FN_ENDING, FN_PEER_EOF */
};

/* A call gave up after its tick. Returns 0 to try again, or FN_CLOSE(why). */
static inline int fn_talk_patience(const struct fn_talk *talk) {
    uint32_t idle = talk->context->idle_timeout_ms;
    if (fn_stop_state(talk->context) == FN_NOW) return FN_CLOSE(FN_STOPPED);
    return idle && fn_now_ms() - talk->active_ms >= idle ? FN_CLOSE(FN_IDLE) : 0;
}

static inline int fn_talk_send_all(struct fn_talk *talk, const char *bytes, size_t n) {
    while (n) {
        ssize_t sent = fn_send(talk->fd, bytes, n, 0);
        int turn = 0;
        if (sent == -EAGAIN)
            turn = fn_talk_patience(talk), sent = 0;
        else if (sent < 0)
            return fn_close_for((int)sent);
        else {
            fn_count(&talk->row->bytes_out, (uint64_t)sent);
            talk->active_ms = fn_now_ms();
            if (n > (size_t)sent && fn_stop_state(talk->context) == FN_NOW) turn = FN_CLOSE(FN_STOPPED);
        }
        if (turn) return turn;
        bytes += sent;
        n -= (size_t)sent;
    }
    return 0;
}

/* Send a reply to its end. Two pieces go out as one packet when the kernel takes both at once. */
static inline int fn_talk_reply(struct fn_talk *talk, struct fn_reply *reply) {
    int turn = 0;
    size_t skip = 0;
    if (reply->parts > 1) {
        ssize_t sent = fn_send_parts(talk->fd, reply->part, reply->parts, 0);
        if (sent < 0 && sent != -EAGAIN) return fn_close_for((int)sent);
        if (sent > 0) fn_count(&talk->row->bytes_out, (uint64_t)sent), skip = (size_t)sent;
    }
    for (int i = 0; i < reply->parts && turn == 0; i++) {
        size_t n = reply->part[i].iov_len, over = skip < n ? skip : n;
        turn = fn_talk_send_all(talk, (char *)reply->part[i].iov_base + over, n - over);
        skip -= over;
    }
    if (turn == 0 && (reply->flags & FN_END)) {
        talk->flags |= FN_ENDING;
        if (talk->flags & FN_PEER_EOF) return FN_CLOSE(FN_FINISHED);
        shutdown(talk->fd, SHUT_WR);
    }
    return turn;
}

/* What one read brought: n bytes, the end, or an error. Returns 0 to go on or FN_CLOSE(why). */
static inline int fn_talk_heard(struct fn_talk *talk, ssize_t n, int drops) {
    const struct fn_service *service = talk->context->service;
    struct fn_reply reply;
    if (n < 0) return fn_close_for((int)n);
    reply.parts = reply.flags = 0;
    if (n == 0) {
        talk->flags |= FN_PEER_EOF;
        if (talk->flags & FN_ENDING) return FN_CLOSE(FN_FINISHED);
        if (service->eof) service->eof(service, &reply);
        if (!service->eof || !service->sent) reply.flags |= FN_END; /* nothing could make it speak again */
        return fn_talk_reply(talk, &reply);
    }
    fn_count(&talk->row->bytes_in, (uint64_t)n);
    fn_count(&talk->row->messages, 1);
    /* After our FIN the peer's chatter is no activity, and keeps recv from ever giving up: look at
     * the clock here. */
    if (talk->flags & FN_ENDING) return fn_talk_patience(talk);
    talk->active_ms = fn_now_ms();
    if (drops) return 0;
    service->data(service, talk->buffer, (size_t)n, &reply);
    return fn_talk_reply(talk, &reply);
}

/* Read; first without sleeping, for as long as busy polling allows. Returns like fn_recv. */
static inline ssize_t fn_talk_recv(struct fn_talk *talk, int flags) {
    const struct fn_context *context = talk->context;
    if (context->busy_poll_ns && !(flags & MSG_DONTWAIT)) {
        uint64_t until_ns = fn_now_ns() + context->busy_poll_ns;
        do {
            ssize_t n = fn_recv(talk->fd, talk->buffer, context->read_bytes, flags | MSG_DONTWAIT);
            if (n != -EAGAIN) return fn_count(&talk->row->busy_poll_hits, 1), n;
        } while (fn_now_ns() < until_ns);
        fn_count(&talk->row->busy_poll_misses, 1);
    }
    return fn_recv(talk->fd, talk->buffer, context->read_bytes, flags);
}

/* Talk until one side ends it. Returns FN_CLOSE(why). */
static inline int fn_talk_through(struct fn_talk *talk) {
    const struct fn_service *service = talk->context->service;
    struct fn_reply reply;
    int turn = 0;
    reply.parts = reply.flags = 0;
    if (service->open) service->open(service, &reply), turn = fn_talk_reply(talk, &reply);
    while (turn == 0) {
        if (fn_stop_state(talk->context) == FN_NOW) return FN_CLOSE(FN_STOPPED);
        int speaks = service->sent && !(talk->flags & FN_ENDING);
        int drops = !service->data || (talk->flags & FN_ENDING);
        if (!(talk->flags & FN_PEER_EOF)) {
            int flags = (drops ? MSG_TRUNC : 0) | (speaks ? MSG_DONTWAIT : 0);
            ssize_t n = fn_talk_recv(talk, flags);
            if (n != -EAGAIN)
                turn = fn_talk_heard(talk, n, drops);
            else if (!speaks)
                turn = fn_talk_patience(talk);
        }
        if (turn == 0 && speaks) {
            reply.parts = reply.flags = 0;
            service->sent(service, &reply);
            turn = fn_talk_reply(talk, &reply);
        }
    }
    return turn;
}

/* Serve the connection fd to its end and close it. row: counters that nobody else writes meanwhile.
   buffer: context->read_bytes of the caller's own. peer: as fn_accept filled it. */
static inline void fn_serve(const struct fn_context *context, struct fn_counters *row, int fd,
                            const struct sockaddr_storage *peer, char *buffer) {
    struct fn_talk talk = {.context = context, .row = row, .fd = fd, .buffer = buffer, .active_ms = fn_now_ms()};
    uint32_t idle = context->idle_timeout_ms;
    uint64_t in = row->bytes_in, out = row->bytes_out;
    struct fn_trace trace;
    if (context->trace_fd >= 0) fn_trace_open(&trace, peer);
    fn_set_patience(fd, idle && idle < context->tick_ms ? idle : context->tick_ms);
    enum fn_closed why = FN_WHY(fn_talk_through(&talk));
    close(fd);
    fn_count_closed(row, why);
    if (context->trace_fd < 0) return;
    trace.bytes_in = row->bytes_in - in;
    trace.bytes_out = row->bytes_out - out;
    fn_trace_close(&trace, why, context->trace_fd);
}

#endif
