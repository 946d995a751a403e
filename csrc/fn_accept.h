/* accept(2) for stream engines: access list, error classes, accept loop of blocking engines.
 *
 * Facts. accept(2) reports pending errors of the new connection as if they were its own, and when
 * it runs out of descriptors or memory the connection stays in the queue, so an immediate retry
 * would spin. When a listener is closed, the kernel resets every connection still in its queue.
 * Decision: a transient error is skipped; a lack of capacity pauses accepting and is counted
 * (transport/accept_errors.py has the same two sets). A draining loop first empties the accept
 * queue, up to accept_drain_max connections, and only then shuts the listener down.
 * The pure twin is engine/stream/_accept_py.py. */
#ifndef FN_ACCEPT_H
#define FN_ACCEPT_H

#include "fn_context.h"
#include "fn_sys.h"
#include "fn_trace.h"

/* Close an accepted connection without serving it, and count why. */
static inline void fn_accept_reject(const struct fn_context *context, int fd,
                                    const struct sockaddr_storage *peer, enum fn_closed why) {
    struct fn_trace trace;
    close(fd);
    fn_count_closed(fn_row(context, 0), why);
    if (context->trace_fd < 0) {
        return;
    }
    fn_trace_open(&trace, peer);
    fn_trace_close(&trace, why, context->trace_fd);
}

/* Whether the peer's address is needed, by the access list or by the trace. */
static inline int fn_accept_needs_peer(const struct fn_context *context) {
    return context->access.networks || context->trace_fd >= 0;
}

/* Count an accepted connection and apply the access list. Returns fd, or -ECONNABORTED if the peer
 * was rejected. */
static inline int fn_accept_admit(const struct fn_context *context, int fd,
                                  const struct sockaddr_storage *peer) {
    fn_count(&fn_row(context, 0)->accepted, 1);
    if (fn_access_allows(&context->access, peer)) {
        return fd;
    }
    fn_accept_reject(context, fd, peer, FN_DENIED);
    return -ECONNABORTED;
}

/* Classify an error of accept(2). Returns -ECONNABORTED: that connection is gone, accept the next;
 * -EMFILE: no capacity, counted here, pause; any other -errno unchanged. */
static inline int fn_accept_error(const struct fn_context *context, int error) {
    switch (-error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        fn_count(&fn_row(context, 0)->accept_pauses, 1);
        return -EMFILE;
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT:
        return -ECONNABORTED;
    default:
        return error;
    }
}

/* Accept one connection that the access list allows. flags: SOCK_NONBLOCK or 0. peer is filled in
 * if fn_accept_needs_peer. Returns a descriptor; -EAGAIN: the queue is empty; -ECONNABORTED: that
 * connection is gone, try again; -EMFILE: pause, already counted; any other -errno: the listener
 * itself is unusable. */
static inline int fn_accept_one(const struct fn_context *context, int listener, int flags,
                                struct sockaddr_storage *peer) {
    int fd = fn_accept4(listener, fn_accept_needs_peer(context) ? peer : NULL, flags);
    return fd >= 0 ? fn_accept_admit(context, fd, peer) : fn_accept_error(context, fd);
}

/* Stop listening, whatever copies of the descriptors other loops and processes hold. */
static inline void fn_accept_shutdown(const struct fn_context *context) {
    for (int i = 0; i < context->listeners; i++) {
        shutdown(context->listener[i], SHUT_RDWR);
    }
}

/* The accept loop of an engine that waits for connections and for nothing else. */
struct fn_acceptor {
    const struct fn_context *context;
    int extra_fd;      /* also wakes the wait when it is readable; -1: none */
    int full;          /* set by the engine: no capacity for another connection */
    int was_full;      /* `full` of the previous call, so that a pause is counted once */
    int draining;      /* the request to drain has been seen */
    int accepts_left;  /* while draining: connections that may still be accepted */
    int next_listener; /* listener to try first */
    int backing_off;   /* the next wait is the accept backoff */
};

static inline struct fn_acceptor fn_acceptor_init(const struct fn_context *context, int extra_fd) {
    return (struct fn_acceptor){.context = context, .extra_fd = extra_fd};
}

/* Try every listener once, round robin. Returns like fn_accept_one. */
static inline int fn_acceptor_try(struct fn_acceptor *acceptor, struct sockaddr_storage *peer) {
    const struct fn_context *context = acceptor->context;
    for (int i = 0; i < context->listeners; i++) {
        int which = acceptor->next_listener % context->listeners;
        acceptor->next_listener++;
        int fd = fn_accept_one(context, context->listener[which], 0, peer);
        if (fd != -EAGAIN) {
            return fd;
        }
    }
    return -EAGAIN;
}

/* Block until a connection, a stop request or extra_fd. Returns 1 if extra_fd is readable, 0
 * otherwise, or -errno. */
static inline int fn_acceptor_wait(struct fn_acceptor *acceptor) {
    const struct fn_context *context = acceptor->context;
    struct pollfd fds[FN_LISTENERS_MAX + 2];
    int stop_fd = acceptor->draining ? context->now_fd : context->drain_fd;
    int timeout_ms = acceptor->backing_off ? (int)context->accept_pause_ms : -1;
    nfds_t n = 2;
    fds[0] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = acceptor->extra_fd, .events = POLLIN};
    if (!acceptor->full && !acceptor->backing_off) {
        for (int i = 0; i < context->listeners; i++) {
            fds[n] = (struct pollfd){.fd = context->listener[i], .events = POLLIN};
            n++;
        }
    }
    int ready = fn_poll(fds, n, timeout_ms);
    acceptor->backing_off = 0;
    return ready < 0 ? ready : (fds[1].revents & POLLIN) != 0;
}

/* Follow the stop word. Returns 1 once no further connection may be accepted. */
static inline int fn_acceptor_stopped(struct fn_acceptor *acceptor) {
    uint32_t stop = fn_stop_state(acceptor->context);
    if (stop == FN_NOW || (acceptor->draining && acceptor->accepts_left <= 0)) {
        return 1;
    }
    if (stop == FN_DRAIN && !acceptor->draining) {
        acceptor->draining = 1;
        acceptor->accepts_left = (int)acceptor->context->accept_drain_max;
    }
    return 0;
}

/* Wait for a connection. Returns a blocking descriptor; -EAGAIN: extra_fd is readable; -ESHUTDOWN:
 * stopped; any other -errno: a listener is unusable. */
static inline int fn_acceptor_next(struct fn_acceptor *acceptor, struct sockaddr_storage *peer) {
    const struct fn_context *context = acceptor->context;
    while (!fn_acceptor_stopped(acceptor)) {
        if (acceptor->full && !acceptor->was_full) {
            fn_count(&fn_row(context, 0)->accept_pauses, 1);
        }
        acceptor->was_full = acceptor->full;
        if (!acceptor->full && !acceptor->backing_off) {
            int fd = fn_acceptor_try(acceptor, peer);
            if (fd >= 0) {
                acceptor->accepts_left--;
                return fd;
            }
            if (fd == -ECONNABORTED) {
                continue;
            }
            if (fd == -EMFILE) {
                acceptor->backing_off = 1;
            } else if (fd != -EAGAIN) {
                /* after a stop request: another loop shut the shared listener down */
                return fn_stop_state(context) == FN_RUN ? fd : -ESHUTDOWN;
            } else if (acceptor->draining) {
                fn_accept_shutdown(context);
                return -ESHUTDOWN;
            }
        }
        int woken = fn_acceptor_wait(acceptor);
        if (woken) {
            return woken < 0 ? woken : -EAGAIN;
        }
    }
    return -ESHUTDOWN;
}

#endif
