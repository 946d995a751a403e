/* Taking connections: the access list, the errors that are weather, and the wait of the engines
 * that block.
 *
 * Facts. accept(2) hands over errors of the new connection as if they were its own, and runs out of
 * descriptors or memory while the connection stays in the queue, so retrying at once would spin.
 * When a listener is closed, the kernel resets everything still in its queue.
 * Decision: a lost connection is skipped; a lack of resources pauses accepting and is counted. When
 * the server drains, each loop first takes what is already in the queue, a backlog's worth at most,
 * and only then shuts the listener down. */
#ifndef FN_ACCEPT_H
#define FN_ACCEPT_H

#include "fn_sys.h"
#include "fn_trace.h"
#include "fn_context.h"

/* Count and close a connection that was accepted but gets no service. */
static inline void fn_turn_away(const struct fn_context *context, int fd, const struct sockaddr_storage *peer, enum fn_closed why) {
    struct fn_trace trace;
    close(fd);
    fn_count_closed(fn_row(context, 0), why);
    if (context->trace_fd < 0) return;
    fn_trace_open(&trace, peer);
    fn_trace_close(&trace, why, context->trace_fd);
}

/* Whether anybody wants to know who a peer is. */
static inline int fn_names_peers(const struct fn_context *context) { return context->access.networks || context->trace_fd >= 0; }

/* Count an accepted connection and ask the access list. Returns fd, or -ECONNABORTED when it was
 * turned away. */
static inline int fn_admit(const struct fn_context *context, int fd, const struct sockaddr_storage *peer) {
    fn_count(&fn_row(context, 0)->accepted, 1);
    if (fn_access_allows(&context->access, peer)) return fd;
    fn_turn_away(context, fd, peer, FN_DENIED);
    return -ECONNABORTED;
}

/* What an error of accept(2) means: -ECONNABORTED: that connection is gone, try again; -EMFILE:
 * pause, counted here; anything else as it is. */
static inline int fn_accept_failed(const struct fn_context *context, int error) {
    switch (-error) {
    case EMFILE: case ENFILE: case ENOMEM: case ENOBUFS:
        fn_count(&fn_row(context, 0)->accept_pauses, 1);
        return -EMFILE;
    case ECONNABORTED: case EPROTO: case EPERM: case ENETDOWN: case ENOPROTOOPT:
    case EHOSTDOWN: case ENONET: case EHOSTUNREACH: case ENETUNREACH: case ETIMEDOUT:
        return -ECONNABORTED;
    default:
        return error;
    }
}

/* Accept one connection that the access list lets in. flags: SOCK_NONBLOCK or 0. peer is filled
 * when list or trace want it. Returns a descriptor; -EAGAIN: none waiting; -ECONNABORTED: that one
 * is gone, try again; -EMFILE: pause, already counted; any other -errno: the listener itself is
 * unusable. */
static inline int fn_accept(const struct fn_context *context, int listener, int flags, struct sockaddr_storage *peer) {
    int fd = fn_accept4(listener, fn_names_peers(context) ? peer : NULL, flags);
    return fd >= 0 ? fn_admit(context, fd, peer) : fn_accept_failed(context, fd);
}
/* The listeners of an engine that waits for connections and nothing else. */
struct fn_acceptor {
    const struct fn_context *context;
    int extra_fd;  /* also wake for this one, or -1 */
    int full;      /* set by the engine: no room for another connection */
    int was_full;
    int sweep;     /* connections that may still be taken while draining */
    int draining;
    int next;      /* listener to ask first */
    int paused;
};

static inline struct fn_acceptor fn_acceptor_open(const struct fn_context *context, int extra_fd) {
    return (struct fn_acceptor){.context = context, .extra_fd = extra_fd};
}

/* Look at every listener once, a different one first each time. Returns like fn_accept. */
static inline int fn_acceptor_try(struct fn_acceptor *acceptor, struct sockaddr_storage *peer) {
    for (int i = 0; i < acceptor->context->listeners; i++) {
        int which = acceptor->next++ % acceptor->context->listeners;
        int fd = fn_accept(acceptor->context, acceptor->context->listener[which], 0, peer);
        if (fd != -EAGAIN) return fd;
    }
    return -EAGAIN;
}

/* Sleep until there is something to do. Returns 1 if extra_fd is readable, 0 otherwise, or -errno.
 */
static inline int fn_acceptor_wait(struct fn_acceptor *acceptor) {
    const struct fn_context *context = acceptor->context;
    struct pollfd fds[FN_LISTENERS_MAX + 2];
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = acceptor->draining ? context->now_fd : context->drain_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = acceptor->extra_fd, .events = POLLIN};
    if (!acceptor->full && !acceptor->paused)
        for (int i = 0; i < context->listeners; i++) fds[n++] = (struct pollfd){.fd = context->listener[i], .events = POLLIN};
    int ready = fn_poll(fds, n, acceptor->paused ? (int)context->accept_pause_ms : -1);
    acceptor->paused = 0;
    return ready < 0 ? ready : (fds[1].revents & POLLIN) != 0;
}

/* Wait for a connection. Returns a blocking descriptor; -EAGAIN: extra_fd is readable; -ESHUTDOWN:
 * no more will come. */
static inline int fn_acceptor_next(struct fn_acceptor *acceptor, struct sockaddr_storage *peer) {
    const struct fn_context *context = acceptor->context;
    for (;;) {
        uint32_t stop = fn_stop_state(context);
        if (stop == FN_NOW || (acceptor->draining && acceptor->sweep <= 0)) return -ESHUTDOWN;
        if (stop == FN_DRAIN && !acceptor->draining) {
            acceptor->draining = 1;
            acceptor->sweep = (int)context->accept_drain_max;
        }
        if (acceptor->full && !acceptor->was_full) fn_count(&fn_row(context, 0)->accept_pauses, 1);
        acceptor->was_full = acceptor->full;
        if (!acceptor->full && !acceptor->paused) {
            int fd = fn_acceptor_try(acceptor, peer);
            if (fd >= 0) return acceptor->sweep--, fd;
            if (fd == -ECONNABORTED) continue;
            if (fd == -EMFILE)
                acceptor->paused = 1;
            else if (fd != -EAGAIN)
                return fn_stop_state(context) == FN_RUN ? fd : -ESHUTDOWN; /* another loop shut the shared listener down */
            else if (acceptor->draining) {
                for (int i = 0; i < context->listeners; i++) shutdown(context->listener[i], SHUT_RDWR);
                return -ESHUTDOWN;
            }
        }
        int woken = fn_acceptor_wait(acceptor);
        if (woken) return woken < 0 ? woken : -EAGAIN;
    }
}

#endif
