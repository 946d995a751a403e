"""Receive loop of every native datagram engine: busy-poll, block, drain, stop.

Facts. A receive that finds nothing has cost one system call; waking up costs many times that.
Decision: an engine is one function that receives and answers up to a batch. The loop calls it until
nothing is queued; then, if busy polling is on, a message a time, so that the first is answered
before the kernel is asked for a second; then it blocks in epoll(7), beside the stop request. The
functions are inline, so each engine's extension holds its own compiled copy. The pure twin is
DatagramLoop in single_py.py, function for function.
"""
from libc.stdint cimport uint64_t

from fastnet.cdefs.batch cimport fn_batch, fn_batch_close, fn_batch_open
from fastnet.cdefs.clock cimport fn_now_ns
from fastnet.cdefs.context cimport FN_NOW, FN_RUN, fn_context, fn_stop_state
from fastnet.cdefs.counters cimport fn_count
from fastnet.cdefs.sys cimport (
    EAGAIN, ENOMEM, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, close, epoll_create1, epoll_event, errno,
    fn_epoll_set, fn_epoll_wait,
)

# Receive and answer up to messages_max. Returns -EAGAIN when nothing is queued any more, another
# -errno, or 0 and more.
ctypedef int (*fn_handle_messages)(fn_batch *batch, int messages_max) noexcept nogil


cdef inline int wait_readable(
    fn_batch *batch, int epoll, fn_handle_messages handle_messages
) noexcept nogil:
    """Until there is a datagram or a stop request; busy-polls first. Returns 0 or -errno."""
    cdef epoll_event event
    cdef uint64_t until_ns
    cdef int n
    if batch.context.busy_poll_ns:
        until_ns = fn_now_ns() + batch.context.busy_poll_ns
        while fn_now_ns() < until_ns:
            if handle_messages(batch, 1) != -EAGAIN or fn_stop_state(batch.context) != FN_RUN:
                fn_count(&batch.row.busy_poll_hits, 1)
                return 0
        fn_count(&batch.row.busy_poll_misses, 1)
    n = fn_epoll_wait(epoll, &event, 1, -1)
    return n if n < 0 else 0


cdef inline int serve(
    fn_batch *batch, int epoll, fn_handle_messages handle_messages, int messages_max,
    int drain_batches,
) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef int n, failed
    failed = fn_epoll_set(epoll, EPOLL_CTL_ADD, batch.fd, EPOLLIN, 0)
    if failed == 0:
        failed = fn_epoll_set(epoll, EPOLL_CTL_ADD, batch.context.drain_fd, EPOLLIN, 1)
    while failed == 0 and drain_batches and fn_stop_state(batch.context) != FN_NOW:
        n = handle_messages(batch, messages_max)
        if fn_stop_state(batch.context) != FN_RUN:
            drain_batches = 0 if n == -EAGAIN else drain_batches - 1
        elif n == -EAGAIN:
            failed = wait_readable(batch, epoll, handle_messages)
    if batch.context.service.batch != NULL:  # no datagrams: release what the replies were made of
        batch.context.service.batch(batch.context.service, &batch.calls)
    return failed


cdef inline int run_loop(
    const fn_context *context, bint joins, fn_handle_messages handle_messages, int messages_max,
    int drain_batches,
) noexcept nogil:
    """Set up, serve the context's socket, and tear down. Returns 0 or -errno.

    joins: trains are received whole and made (csrc/fn_batch.h). drain_batches: most batches that a
    stopping loop answers.
    """
    cdef fn_batch *batch = fn_batch_open(context, context.listener[0], joins)
    cdef int epoll = epoll_create1(EPOLL_CLOEXEC)
    cdef int result = -errno if epoll < 0 else 0
    if batch == NULL:
        result = -ENOMEM
    if result == 0:
        result = serve(batch, epoll, handle_messages, messages_max, drain_batches)
    if epoll >= 0:
        close(epoll)
    fn_batch_close(batch)
    return result
