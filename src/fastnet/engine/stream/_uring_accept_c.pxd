"""Listeners of the uring engine: accept requests, backoff, draining the accept queue.

Facts. A multishot accept stays armed and posts a completion for each connection; it cannot be
limited to n. A request on a non-blocking descriptor fails with -EAGAIN instead of waiting.
Decision: near the connection limit accepts are submitted one by one, and at the limit none. A
draining loop cancels them and empties the queue with accept4(2), a burst at a time, before it shuts
the listeners down.

AcceptMode         event                                       next
ACCEPT_IDLE        more free slots than accept_drain_max       ACCEPT_MULTISHOT
ACCEPT_IDLE        a free slot                                 ACCEPT_SINGLE
ACCEPT_MULTISHOT   fewer slots, accept backoff or draining     cancelled
any but IDLE       its completion without IORING_CQE_F_MORE    ACCEPT_IDLE
"""
from libc.stdint cimport uint8_t, uint32_t

from fastnet.cdefs.accept cimport (
    fn_accept_admit, fn_accept_error, fn_accept_needs_peer, fn_accept_one, fn_accept_reject,
    fn_accept_shutdown,
)
from fastnet.cdefs.clock cimport fn_now_ms
from fastnet.cdefs.context cimport FN_NOW, FN_RUN, fn_stop_state
from fastnet.cdefs.counters cimport FN_REFUSED, FN_RESET, fn_count, fn_count_closed
from fastnet.cdefs.ring_queue cimport fn_ring_prepare
from fastnet.cdefs.slots cimport fn_slots_allocate
from fastnet.cdefs.stream_io cimport fn_stream_open
from fastnet.cdefs.sys cimport (
    EAGAIN, ECANCELED, ECONNABORTED, EMFILE, EPOLLIN, F_GETFL, F_SETFL, O_NONBLOCK, SOCK_CLOEXEC,
    close, fcntl, fn_getpeername, sockaddr_storage,
)
from fastnet.cdefs.trace cimport fn_trace_open
from fastnet.cdefs.uring_abi cimport (
    FN_ACCEPT_MULTISHOT, FN_CQE_MORE, FN_OP_ACCEPT, FN_OP_POLL_ADD, fn_cqe, fn_sqe,
)
from fastnet.engine.stream._uring_c cimport ACCEPT, STOP, RingLoop, cancel, user_data
from fastnet.engine.stream._uring_connection_c cimport update_requests

cdef enum AcceptMode:
    ACCEPT_IDLE = 0
    ACCEPT_SINGLE = 1
    ACCEPT_MULTISHOT = 2


cdef inline void open_connection(
    RingLoop *loop, int fd, const sockaddr_storage *peer
) noexcept nogil:
    """Give an accepted connection a slot and send what the service produces first."""
    cdef uint32_t slot = fn_slots_allocate(&loop.stream.slots, fd, loop.stream.now_ms)
    if slot == 0:
        fn_accept_reject(loop.context, fd, peer, FN_REFUSED)
        return
    if loop.stream.slots.trace != NULL:
        fn_trace_open(&loop.stream.slots.trace[slot], peer)
    update_requests(loop, slot, fn_stream_open(&loop.stream, &loop.stream.slots.conn[slot]))


cdef inline int on_accepted(RingLoop *loop, int which, const fn_cqe *cqe) noexcept nogil:
    """An accept has completed. Returns 0, or -errno if the listener is unusable."""
    cdef sockaddr_storage peer
    cdef int fd = cqe.result
    if not cqe.flags & FN_CQE_MORE:
        loop.accept_mode[which] = ACCEPT_IDLE
        loop.cancelling[which] = False
    if fd >= 0:
        if fn_accept_needs_peer(loop.context) and fn_getpeername(fd, &peer) < 0:
            fn_count(&loop.stream.row.accepted, 1)
            close(fd)
            fn_count_closed(loop.stream.row, FN_RESET)
        elif fn_accept_admit(loop.context, fd, &peer) >= 0:
            open_connection(loop, fd, &peer)
        return 0
    if fd == -ECANCELED or fd == -EAGAIN:
        return 0
    fd = fn_accept_error(loop.context, fd)
    if fd == -EMFILE:
        loop.backing_off = True
        loop.accept_resume_ms = fn_now_ms() + loop.context.accept_pause_ms
    elif fd != -ECONNABORTED and fn_stop_state(loop.context) == FN_RUN:
        return fd
    return 0


cdef inline void cancel_accept(RingLoop *loop, int which) noexcept nogil:
    """Cancel the accept on a listener, unless that has been done."""
    if not loop.cancelling[which]:
        loop.cancelling[which] = True
        cancel(loop, user_data(ACCEPT, 0, which))


cdef inline uint8_t next_accept_mode(const RingLoop *loop) noexcept nogil:
    cdef uint32_t room = loop.stream.slots.capacity - loop.stream.slots.open
    if room == 0 or loop.backing_off or loop.draining:
        return ACCEPT_IDLE
    return ACCEPT_MULTISHOT if room > loop.context.accept_drain_max else ACCEPT_SINGLE


cdef inline void update_accepts(RingLoop *loop) noexcept nogil:
    """Keep an accept out on every listener, as far as there are free slots."""
    cdef bint full = loop.stream.slots.open == loop.stream.slots.capacity
    cdef uint8_t mode = next_accept_mode(loop)
    cdef fn_sqe *sqe
    cdef int i
    if full and not loop.full:
        fn_count(&loop.stream.row.accept_pauses, 1)
    loop.full = full
    for i in range(loop.context.listeners):
        if loop.accept_mode[i] != ACCEPT_IDLE:
            if loop.accept_mode[i] > mode:
                cancel_accept(loop, i)
        elif mode != ACCEPT_IDLE:
            sqe = fn_ring_prepare(
                &loop.ring, FN_OP_ACCEPT, loop.context.listener[i], user_data(ACCEPT, 0, i)
            )
            sqe.ioprio = FN_ACCEPT_MULTISHOT if mode == ACCEPT_MULTISHOT else 0
            sqe.op_flags = SOCK_CLOEXEC
            loop.accept_mode[i] = mode


cdef inline void cancel_accepts(RingLoop *loop) noexcept nogil:
    cdef int i
    for i in range(loop.context.listeners):
        if loop.accept_mode[i] != ACCEPT_IDLE:
            cancel_accept(loop, i)


cdef inline bint any_accept_out(const RingLoop *loop) noexcept nogil:
    cdef int i
    for i in range(loop.context.listeners):
        if loop.accept_mode[i] != ACCEPT_IDLE:
            return True
    return False


cdef inline void set_blocking(const RingLoop *loop, bint blocking) noexcept nogil:
    cdef int i, fd, flags
    for i in range(loop.context.listeners):
        fd = loop.context.listener[i]
        flags = fcntl(fd, F_GETFL, 0)
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK if blocking else flags | O_NONBLOCK)


cdef inline void drain_accept_queue(RingLoop *loop) noexcept nogil:
    """Accept what is queued on the listeners, a burst at a time, then shut them down."""
    cdef sockaddr_storage peer
    cdef uint32_t j
    cdef int i, fd, emptied = 0
    set_blocking(loop, False)
    for i in range(loop.context.listeners):
        for j in range(loop.context.accept_burst):
            if loop.stream.slots.open == loop.stream.slots.capacity:
                return
            fd = fn_accept_one(loop.context, loop.context.listener[i], 0, &peer)
            if fd >= 0:
                open_connection(loop, fd, &peer)
            elif fd != -ECONNABORTED:
                emptied += 1
                break
    loop.accepts_left -= loop.context.accept_burst
    if emptied == loop.context.listeners or loop.accepts_left <= 0:
        loop.listeners_shut = True
        fn_accept_shutdown(loop.context)


cdef inline void watch_stop(RingLoop *loop, int fd) noexcept nogil:
    """Wake the loop when the request to drain or to stop arrives."""
    fn_ring_prepare(&loop.ring, FN_OP_POLL_ADD, fd, user_data(STOP, 0, 0)).op_flags = EPOLLIN


cdef inline bint drain(RingLoop *loop) noexcept nogil:
    """After a stop request: end the accepts, empty the queue, shut the listeners down. Returns True
    when the loop is done.
    """
    if not loop.draining:
        loop.draining = True
        loop.accepts_left = loop.context.accept_drain_max
        watch_stop(loop, loop.context.now_fd)
    if fn_stop_state(loop.context) == FN_NOW:
        return True
    if not loop.listeners_shut and not any_accept_out(loop):
        drain_accept_queue(loop)
    return loop.listeners_shut and loop.stream.slots.open == 0
