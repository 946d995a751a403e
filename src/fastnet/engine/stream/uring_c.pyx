"""Wait with io_uring: one system call hands over all requests and brings all results.

Facts. A multishot accept or recv stays armed and posts a completion each time, so a message costs
no request; its bytes arrive in a buffer of a shared ring that the kernel picks when they are there.
A send right after a receive nearly always succeeds at once, and done inline it gives its buffer
back hot, where a send request would hold it until the next round. A descriptor closed while a
request holds it stays open in the kernel. Multishot accept cannot be told "no more than n".
Decision: receive by ring, send inline, and only the rest by a send request, one at a time for each
connection. While one is out, input waits in memory and, from a bound on, the receive is cancelled,
so a peer that does not read is no longer read. A connection ends by shutdown(2) and is freed when
the kernel holds nothing of it. Near the connection limit accepts are asked for one by one. Running
out of buffers is back-pressure: the receive is armed again once they are back, and counted.
Cost: about half a kilobyte of kernel memory for each armed receive; wants Linux 6.0, and 6.12 for
buffers used in pieces.

Sources: io_uring_setup(2), io_uring_enter(2), io_uring_multishot(7), io_uring_provided_buffers(7).
There is no pure twin: Python has no way to make these calls.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from fastnet.cdefs.accept cimport (
    fn_accept, fn_accept_failed, fn_admit, fn_names_peers, fn_turn_away,
)
from fastnet.cdefs.clock cimport fn_now_ms, fn_now_ns
from fastnet.cdefs.context cimport FN_NOW, FN_RUN, fn_stop_state
from fastnet.cdefs.counters cimport (
    FN_IDLE, FN_REFUSED, FN_RESET, FN_STOPPED, fn_count, fn_count_closed,
)
from fastnet.cdefs.ring cimport (
    fn_ring, fn_ring_ask, fn_ring_close, fn_ring_done, fn_ring_enter, fn_ring_open,
    fn_ring_overflowed, fn_ring_ready, fn_ring_reap, fn_ring_stirs, fn_ring_untold,
)
from fastnet.cdefs.slots cimport fn_idle_touch, fn_map, fn_slot_take, fn_unmap
from fastnet.cdefs.stream cimport (
    fn_stream_finish, fn_stream_open, fn_stream_overdue, fn_stream_start,
)
from fastnet.cdefs.sys cimport (
    EAGAIN, ECANCELED, ECONNABORTED, EMFILE, ENOMEM, EPOLLIN, ETIMEDOUT, F_GETFL, F_SETFL,
    O_NONBLOCK, SHUT_RDWR, SOCK_CLOEXEC, close, fcntl, fn_peer, shutdown, sockaddr_storage,
)
from fastnet.cdefs.trace cimport fn_trace_open
from fastnet.cdefs.uring_abi cimport (
    FN_ACCEPT_MULTISHOT, FN_CQE_MORE, FN_OP_ACCEPT, FN_OP_POLL_ADD, FN_OP_RECV, FN_RECV_MULTISHOT,
    FN_SQE_BUFFER_SELECT, fn_cqe, fn_sqe,
)
from fastnet._errno_c cimport raise_errno
from fastnet.engine.stream._uring_c cimport (
    RECV, SEND, ACCEPT, STOP, POLL, AGAIN, SUBMISSIONS, LEAST_COMPLETIONS, Side, Loop, tag, cancel, end, settle, readable,
    received, reread, taken,
)
from fastnet.engine.context_c cimport NativeLoopContext

import socket

cdef void begin(Loop *loop, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Give an accepted connection a slot and its first turn."""
    cdef uint32_t slot = fn_slot_take(&loop.stream.slots, fd, loop.stream.now_ms)
    if slot == 0:
        fn_turn_away(loop.context, fd, peer, FN_REFUSED)
        return
    if loop.stream.slots.trace != NULL:
        fn_trace_open(&loop.stream.slots.trace[slot], peer)
    settle(loop, slot, fn_stream_open(&loop.stream, &loop.stream.slots.conn[slot]))


cdef int accepted(Loop *loop, int which, const fn_cqe *cqe) noexcept nogil:
    """Returns 0, or -errno if the listener is unusable."""
    cdef sockaddr_storage peer
    cdef int fd = cqe.result
    if not cqe.flags & FN_CQE_MORE:
        loop.armed[which] = loop.cancelling[which] = 0
    if fd >= 0:
        if fn_names_peers(loop.context) and fn_peer(fd, &peer) < 0:
            fn_count(&loop.stream.row.accepted, 1)
            close(fd)
            fn_count_closed(loop.stream.row, FN_RESET)
        elif fn_admit(loop.context, fd, &peer) >= 0:
            begin(loop, fd, &peer)
        return 0
    fd = 0 if fd == -ECANCELED or fd == -EAGAIN else fn_accept_failed(loop.context, fd)
    if fd == -EMFILE:
        loop.resting = True
        loop.rest_over_ms = fn_now_ms() + loop.context.accept_pause_ms
    elif fd != 0 and fd != -ECONNABORTED and fn_stop_state(loop.context) == FN_RUN:
        return fd
    return 0


cdef void tend_listeners(Loop *loop) noexcept nogil:
    """Keep an accept out on every listener, as far as there is room: many at once, one by one, or
    none.
    """
    cdef uint32_t room = loop.stream.slots.capacity - loop.stream.slots.open
    cdef uint8_t mode = 0 if room == 0 or loop.resting or loop.draining else 2 if room > loop.context.accept_drain_max else 1
    cdef fn_sqe *sqe
    cdef int i
    if room == 0 and not loop.full:
        fn_count(&loop.stream.row.accept_pauses, 1)
    loop.full = room == 0
    for i in range(loop.context.listeners):
        if loop.armed[i]:
            if loop.armed[i] > mode and not loop.cancelling[i]:
                loop.cancelling[i] = True
                cancel(loop, tag(ACCEPT, 0, i))
        elif mode:
            sqe = fn_ring_ask(&loop.ring, FN_OP_ACCEPT, loop.context.listener[i], tag(ACCEPT, 0, i))
            sqe.ioprio = FN_ACCEPT_MULTISHOT if mode == 2 else 0
            sqe.op_flags = SOCK_CLOEXEC
            loop.armed[i] = mode


cdef void watch_stop(Loop *loop, int fd) noexcept nogil:
    fn_ring_ask(&loop.ring, FN_OP_POLL_ADD, fd, tag(STOP, 0, 0)).op_flags = EPOLLIN


cdef void sweep(Loop *loop) noexcept nogil:
    """Take what is queued on the listeners, a burst at a time, then shut them down."""
    cdef sockaddr_storage peer
    cdef uint32_t j
    cdef int i, fd, emptied = 0
    for i in range(loop.context.listeners):
        fcntl(loop.context.listener[i], F_SETFL, fcntl(loop.context.listener[i], F_GETFL, 0) | O_NONBLOCK)
        for j in range(loop.context.accept_burst):
            if loop.stream.slots.open == loop.stream.slots.capacity:
                return
            fd = fn_accept(loop.context, loop.context.listener[i], 0, &peer)
            if fd >= 0:
                begin(loop, fd, &peer)
            elif fd != -ECONNABORTED:
                emptied += 1
                break
    loop.sweep -= loop.context.accept_burst
    if emptied == loop.context.listeners or loop.sweep <= 0:
        loop.swept = True
        for i in range(loop.context.listeners):
            shutdown(loop.context.listener[i], SHUT_RDWR)


cdef bint any_armed(const Loop *loop) noexcept nogil:
    cdef int i
    for i in range(loop.context.listeners):
        if loop.armed[i]:
            return True
    return False


cdef bint drain(Loop *loop) noexcept nogil:
    """Once asked to stop: end the accepts, take what is queued, shut the listeners. True when the
    loop is done.
    """
    if not loop.draining:
        loop.draining, loop.sweep = True, loop.context.accept_drain_max
        watch_stop(loop, loop.context.now_fd)
    if fn_stop_state(loop.context) == FN_NOW:
        return True
    if not loop.swept and not any_armed(loop):
        sweep(loop)
    return loop.swept and loop.stream.slots.open == 0


cdef int patience_ms(Loop *loop) noexcept nogil:
    """Close what has been idle too long. Returns how long the ring may wait; -1 for ever."""
    cdef int due
    cdef int32_t rest
    cdef uint32_t slot = fn_stream_overdue(&loop.stream, &due)
    while slot:
        # it may stay until its requests are back
        fn_idle_touch(&loop.stream.slots, slot, loop.stream.now_ms)
        end(loop, slot, FN_IDLE)
        slot = fn_stream_overdue(&loop.stream, &due)
    if loop.resting:
        rest = <int32_t>(loop.rest_over_ms - loop.stream.now_ms)
        loop.resting = rest > 0
        due = rest if loop.resting and (due < 0 or rest < due) else due
    if loop.draining and not loop.swept and not any_armed(loop) and loop.stream.slots.open < loop.stream.slots.capacity:
        return 0
    return due


cdef int complete(Loop *loop, const fn_cqe *cqe) noexcept nogil:
    """Deal with one completion. Returns 0, or -errno if the loop cannot go on."""
    cdef int operation = cqe.user_data >> 56
    cdef uint32_t slot = <uint32_t>cqe.user_data
    if operation == ACCEPT:
        return accepted(loop, slot, cqe)
    if slot == 0:
        return 0  # a request to stop or to cancel has been dealt with
    if (loop.stream.slots.conn[slot].generation & 0xFFFFFF) != (cqe.user_data >> 32 & 0xFFFFFF):
        fn_ring_done(&loop.ring, cqe)
    elif operation == RECV:
        received(loop, slot, cqe)
    elif operation == SEND:
        taken(loop, slot, cqe.result)
    elif operation == POLL:
        readable(loop, slot, cqe)
    elif operation == AGAIN:
        reread(loop, slot)
    return 0


cdef int wait(Loop *loop, int timeout_ms) noexcept nogil:
    """Hand over requests and wait for completions; first without sleeping, for as long as busy
    polling
    allows.

    Spinning looks at shared memory only; the kernel is entered when it says that it has something
    for us.
    """
    cdef int failed
    cdef uint64_t until_ns
    if loop.context.busy_poll_ns and timeout_ms:
        until_ns = fn_now_ns() + loop.context.busy_poll_ns
        failed = fn_ring_enter(&loop.ring, 0, 0) if fn_ring_untold(&loop.ring) else 0
        while failed == 0 and fn_now_ns() < until_ns:
            if fn_ring_stirs(&loop.ring):
                failed = fn_ring_enter(&loop.ring, 0, 0)
                if failed or fn_ring_ready(&loop.ring):
                    fn_count(&loop.stream.row.busy_poll_hits, 1)
                    return failed
        fn_count(&loop.stream.row.busy_poll_misses, 1)
    return fn_ring_enter(&loop.ring, 1, timeout_ms)


cdef int turn(Loop *loop, int timeout_ms) noexcept nogil:
    """Hand over requests, wait for completions, deal with all there are. Returns 0 or -errno."""
    cdef fn_cqe cqe
    cdef int failed = wait(loop, timeout_ms)
    loop.stream.now_ms = fn_now_ms()
    if fn_ring_overflowed(&loop.ring):
        fn_count(&loop.stream.row.ring_overflows, 1)
    while failed == 0 and fn_ring_reap(&loop.ring, &cqe):
        failed = complete(loop, &cqe)
    return failed


cdef int serve(Loop *loop) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef int timeout_ms, failed = 0
    watch_stop(loop, loop.context.drain_fd)
    while failed == 0:
        timeout_ms = patience_ms(loop)  # first, for it ends connections and rests
        tend_listeners(loop)
        failed = turn(loop, timeout_ms)
        if failed == 0 and fn_stop_state(loop.context) != FN_RUN and drain(loop):
            return 0
    return failed


cdef void close_all(Loop *loop) noexcept nogil:
    """End every connection and accept, and wait until the kernel has given back all memory and
    listeners that requests name.

    What a ring still holds when it is closed is let go only later, by a kernel thread: the port
    would still be taken.
    """
    cdef uint32_t slot
    cdef int i
    for i in range(loop.context.listeners):
        if loop.armed[i] and not loop.cancelling[i]:
            loop.cancelling[i] = True
            cancel(loop, tag(ACCEPT, 0, i))
    while True:
        # again each time, for an accept may have been faster
        for slot in range(1, loop.stream.slots.touched + 1):
            if loop.stream.slots.conn[slot].fd >= 0:
                end(loop, slot, FN_STOPPED)
        if loop.stream.slots.open == 0 and not any_armed(loop):
            return
        if turn(loop, -1) < 0:
            return


cdef int run_ring(Loop *loop, uint32_t buffers, uint32_t buffer_bytes) noexcept nogil:
    cdef uint32_t capacity = loop.context.max_connections
    cdef uint32_t completions = 2 * capacity if 2 * capacity > LEAST_COMPLETIONS else LEAST_COMPLETIONS
    cdef int i, result
    result = fn_stream_start(&loop.stream, loop.context, capacity)
    loop.side = <Side *>fn_map((capacity + 1) * sizeof(Side))
    if result == 0:
        result = fn_ring_open(&loop.ring, SUBMISSIONS, completions, buffers, buffer_bytes) if loop.side != NULL else -ENOMEM
    if result == 0:
        for i in range(loop.context.listeners):
            # A request on a non-blocking descriptor fails at once instead of waiting in the kernel.
            fcntl(loop.context.listener[i], F_SETFL, fcntl(loop.context.listener[i], F_GETFL, 0) & ~O_NONBLOCK)
        result = serve(loop)
        close_all(loop)
    fn_ring_close(&loop.ring)
    fn_unmap(loop.side, (capacity + 1) * sizeof(Side))
    fn_stream_finish(&loop.stream)
    return result


def run(context):
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef uint32_t buffers = context.limits.ring_buffers
    cdef uint32_t buffer_bytes = context.limits.ring_buffer_bytes
    cdef Loop loop
    cdef int result
    memset(&loop, 0, sizeof(Loop))
    loop.context = &native.c
    loop.bulk_bytes, loop.bulk_reads = context.limits.ring_bulk_bytes, context.limits.ring_bulk_reads
    loop.ring.fd = -1
    with nogil:
        result = run_ring(&loop, buffers, buffer_bytes)
    raise_errno(result)


def probe():
    """Open a ring and receive a byte through it as `run` does. Raises OSError if this host does not
    let us.
    """
    cdef fn_ring ring
    cdef fn_sqe *sqe
    cdef fn_cqe cqe
    cdef int result, fd
    ours, theirs = socket.socketpair()
    theirs.send(b"?")
    fd = ours.fileno()
    with nogil:
        result = fn_ring_open(&ring, 8, 8, 2, 4096)
        if result == 0:
            sqe = fn_ring_ask(&ring, FN_OP_RECV, fd, 0)
            sqe.flags, sqe.ioprio = FN_SQE_BUFFER_SELECT, FN_RECV_MULTISHOT
            result = fn_ring_enter(&ring, 1, 1000)
        if result == 0:
            result = cqe.result if fn_ring_reap(&ring, &cqe) else -ETIMEDOUT
        fn_ring_close(&ring)
    ours.close()
    theirs.close()
    raise_errno(result)
