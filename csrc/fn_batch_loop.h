/* The loop around one datagram socket: what every native row of datagram/ does between its turns.
 *
 * Facts. A turn that finds nothing has cost one system call; waking up costs many times that.
 * Decision: turns follow each other until nothing is queued; then the loop spins, if it may, a
 * message a turn, so that the first is answered before the kernel looks for a second; then it
 * sleeps in epoll(7), beside the request to stop. */
#ifndef FN_DATAGRAM_LOOP_H
#define FN_DATAGRAM_LOOP_H

#include <sys/epoll.h>

#include "fn_clock.h"
#include "fn_batch.h"
#include "fn_sys.h"

/* Take and answer up to `most` messages. Returns -EAGAIN when nothing is queued any more, another
 * -errno, or 0 and more. */
typedef int (*fn_turn)(struct fn_batch *batch, int most);

/* Until there is a datagram or a request to stop; first without sleeping, for as long as busy
 * polling allows. Returns 0 or
 * -errno. */
static inline int fn_batch_wait(struct fn_batch *batch, int epoll, fn_turn turn) {
    struct epoll_event event;
    if (batch->context->busy_poll_ns) {
        uint64_t until_ns = fn_now_ns() + batch->context->busy_poll_ns;
        while (fn_now_ns() < until_ns)
            if (turn(batch, 1) != -EAGAIN || fn_stop_state(batch->context) != FN_RUN) return fn_count(&batch->row->busy_poll_hits, 1), 0;
        fn_count(&batch->row->busy_poll_misses, 1);
    }
    int n = fn_epoll_wait(epoll, &event, 1, -1);
    return n < 0 ? n : 0;
}

/* Serve until stopped. most: messages a turn. sweep: turns that a drain may take for what is
 * queued. Returns 0 or -errno. */
static inline int fn_batch_serve(struct fn_batch *batch, int epoll, fn_turn turn, int most, int sweep) {
    int failed = fn_epoll_set(epoll, EPOLL_CTL_ADD, batch->fd, EPOLLIN, 0);
    if (!failed) failed = fn_epoll_set(epoll, EPOLL_CTL_ADD, batch->context->drain_fd, EPOLLIN, 1);
    while (!failed && sweep && fn_stop_state(batch->context) != FN_NOW) {
        int n = turn(batch, most);
        if (fn_stop_state(batch->context) != FN_RUN)
            sweep = n == -EAGAIN ? 0 : sweep - 1;
        else if (n == -EAGAIN)
            failed = fn_batch_wait(batch, epoll, turn);
    }
    if (batch->context->service->batch) batch->context->service->batch(batch->context->service, &batch->calls);
    return failed;
}

/* The life of a loop on the listener of `context`. joins: see fn_batch_open. Returns 0 or -errno.
 */
static inline int fn_batch_run(const struct fn_context *context, int joins, fn_turn turn, int most, int sweep) {
    struct fn_batch *batch = fn_batch_open(context, context->listener[0], joins);
    int epoll = epoll_create1(EPOLL_CLOEXEC), result = !batch ? -ENOMEM : epoll < 0 ? -errno : 0;
    if (!result) result = fn_batch_serve(batch, epoll, turn, most, sweep);
    if (epoll >= 0) close(epoll);
    fn_batch_close(batch);
    return result;
}

#endif
