"""io_uring(7): one system call submits all requests and returns all completions.

Facts. A multishot accept or receive stays armed and posts a completion each time, so a message
costs no request; its bytes arrive in a buffer of a shared ring that the kernel picks when they are
there. A send right after a receive nearly always succeeds immediately, and done inline it returns
its buffer while it is in the cache, where a send request would hold it until the next round. A
descriptor closed while a request holds it stays open in the kernel.
Decision: receive by ring, send inline, and only the rest by a send request, one at a time for each
connection. Connections are in _uring_connection_c.pxd, listeners in _uring_accept_c.pxd, each with
its table of states; here are the ring, the loop and its end. Running out of buffers is
back-pressure: the receive is armed again once they are back, and counted.
Cost: about half a kilobyte of kernel memory for each armed receive; needs Linux 6.0, and 6.12 for
buffers consumed in pieces.

Sources: io_uring_setup(2), io_uring_enter(2), io_uring_multishot(7), io_uring_provided_buffers(7).
There is no pure twin: Python has no way to make these calls.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from fastnet.cdefs.clock cimport fn_now_ms, fn_now_ns
from fastnet.cdefs.context cimport FN_RUN, fn_stop_state
from fastnet.cdefs.counters cimport FN_IDLE, FN_STOPPED, fn_count
from fastnet.cdefs.ring cimport fn_ring, fn_ring_close, fn_ring_open
from fastnet.cdefs.ring_queue cimport (
    fn_ring_buffer_release, fn_ring_enter, fn_ring_has_unsubmitted, fn_ring_has_work,
    fn_ring_overflowed, fn_ring_prepare, fn_ring_ready, fn_ring_reap,
)
from fastnet.cdefs.slots cimport fn_slots_touch
from fastnet.cdefs.stream cimport fn_stream_destroy, fn_stream_expired, fn_stream_init
from fastnet.cdefs.sys cimport ENOMEM, ETIMEDOUT, fn_map, fn_unmap
from fastnet.cdefs.uring_abi cimport (
    FN_OP_RECV, FN_RECV_MULTISHOT, FN_SQE_BUFFER_SELECT, fn_cqe, fn_sqe,
)
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext
from fastnet.engine.stream._uring_accept_c cimport (
    any_accept_out, cancel_accepts, drain, on_accepted, set_blocking, update_accepts, watch_stop,
)
from fastnet.engine.stream._uring_c cimport (
    ACCEPT, POLL, RECV, REREAD, SEND, RingConnection, RingLoop,
)
from fastnet.engine.stream._uring_connection_c cimport (
    close_connection, on_readable, on_received, on_reread, on_sent,
)

import socket

cdef enum:
    SUBMISSIONS = 512        # entries of the submission queue; more requests take two calls
    COMPLETIONS_MIN = 4096   # entries of the completion queue, or two for each connection


cdef int poll_timeout_ms(RingLoop *loop) noexcept nogil:
    """Close idle connections. Returns how long the ring may wait; -1: for ever."""
    cdef int due
    cdef int32_t left
    cdef uint32_t slot = fn_stream_expired(&loop.stream, &due)
    while slot:
        # it may stay until its requests are back
        fn_slots_touch(&loop.stream.slots, slot, loop.stream.now_ms)
        close_connection(loop, slot, FN_IDLE)
        slot = fn_stream_expired(&loop.stream, &due)
    if loop.backing_off:
        left = <int32_t>(loop.accept_resume_ms - loop.stream.now_ms)
        loop.backing_off = left > 0
        due = left if loop.backing_off and (due < 0 or left < due) else due
    if (
        loop.draining
        and not loop.listeners_shut
        and not any_accept_out(loop)
        and loop.stream.slots.open < loop.stream.slots.capacity
    ):
        return 0
    return due


cdef int handle_completion(RingLoop *loop, const fn_cqe *cqe) noexcept nogil:
    """Returns 0, or -errno if a listener is unusable."""
    cdef int operation = cqe.user_data >> 56
    cdef uint32_t slot = <uint32_t>cqe.user_data
    if operation == ACCEPT:
        return on_accepted(loop, slot, cqe)
    if slot == 0:
        return 0  # of a cancel or a stop request
    if (loop.stream.slots.conn[slot].generation & 0xFFFFFF) != (cqe.user_data >> 32 & 0xFFFFFF):
        fn_ring_buffer_release(&loop.ring, cqe)
    elif operation == RECV:
        on_received(loop, slot, cqe)
    elif operation == SEND:
        on_sent(loop, slot, cqe.result)
    elif operation == POLL:
        on_readable(loop, slot, cqe)
    elif operation == REREAD:
        on_reread(loop, slot)
    return 0


cdef int wait_completions(RingLoop *loop, int timeout_ms) noexcept nogil:
    """Submit, and wait for completions; busy-polls for up to busy_poll_ns before blocking.

    Busy-polling reads shared memory only; the kernel is entered when it has work for this thread.
    """
    cdef int failed
    cdef uint64_t until_ns
    if loop.context.busy_poll_ns and timeout_ms:
        until_ns = fn_now_ns() + loop.context.busy_poll_ns
        failed = fn_ring_enter(&loop.ring, 0, 0) if fn_ring_has_unsubmitted(&loop.ring) else 0
        while failed == 0 and fn_now_ns() < until_ns:
            if fn_ring_has_work(&loop.ring):
                failed = fn_ring_enter(&loop.ring, 0, 0)
                if failed or fn_ring_ready(&loop.ring):
                    fn_count(&loop.stream.row.busy_poll_hits, 1)
                    return failed
        fn_count(&loop.stream.row.busy_poll_misses, 1)
    return fn_ring_enter(&loop.ring, 1, timeout_ms)


cdef int run_once(RingLoop *loop, int timeout_ms) noexcept nogil:
    """Submit, wait for completions, handle all of them. Returns 0 or -errno."""
    cdef fn_cqe cqe
    cdef int failed = wait_completions(loop, timeout_ms)
    loop.stream.now_ms = fn_now_ms()
    if fn_ring_overflowed(&loop.ring):
        fn_count(&loop.stream.row.ring_overflows, 1)
    while failed == 0 and fn_ring_reap(&loop.ring, &cqe):
        failed = handle_completion(loop, &cqe)
    return failed


cdef int serve(RingLoop *loop) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef int timeout_ms, failed = 0
    watch_stop(loop, loop.context.drain_fd)
    while failed == 0:
        timeout_ms = poll_timeout_ms(loop)  # first, for it frees slots and ends the backoff
        update_accepts(loop)
        failed = run_once(loop, timeout_ms)
        if failed == 0 and fn_stop_state(loop.context) != FN_RUN and drain(loop):
            return 0
    return failed


cdef void close_all(RingLoop *loop) noexcept nogil:
    """End every connection and accept, and wait until the kernel has completed every request.

    What a ring still holds when it is closed is released only later, by a kernel thread: the port
    would still be taken.
    """
    cdef uint32_t slot
    cancel_accepts(loop)
    while True:
        # again each time, for an accept may have been faster than its cancellation
        for slot in range(1, loop.stream.slots.used_max + 1):
            if loop.stream.slots.conn[slot].fd >= 0:
                close_connection(loop, slot, FN_STOPPED)
        if loop.stream.slots.open == 0 and not any_accept_out(loop):
            return
        if run_once(loop, -1) < 0:
            return


cdef int run_ring(RingLoop *loop, uint32_t buffers, uint32_t buffer_bytes) noexcept nogil:
    """Set up, serve, and close what is still open. Returns 0 or -errno."""
    cdef uint32_t capacity = loop.context.max_connections
    cdef size_t table_bytes = (capacity + 1) * sizeof(RingConnection)
    cdef uint32_t completions = 2 * capacity if 2 * capacity > COMPLETIONS_MIN else COMPLETIONS_MIN
    cdef int result = fn_stream_init(&loop.stream, loop.context, capacity)
    loop.connection = <RingConnection *>fn_map(table_bytes)
    if result == 0 and loop.connection == NULL:
        result = -ENOMEM
    if result == 0:
        result = fn_ring_open(&loop.ring, SUBMISSIONS, completions, buffers, buffer_bytes)
    if result == 0:
        set_blocking(loop, True)
        result = serve(loop)
        close_all(loop)
    fn_ring_close(&loop.ring)
    fn_unmap(loop.connection, table_bytes)
    fn_stream_destroy(&loop.stream)
    return result


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef uint32_t buffers = context.limits.ring_buffers
    cdef uint32_t buffer_bytes = context.limits.ring_buffer_bytes
    cdef RingLoop loop
    cdef int result
    memset(&loop, 0, sizeof(RingLoop))
    loop.context = &native.c
    loop.bulk_bytes = context.limits.ring_bulk_bytes
    loop.bulk_reads = context.limits.ring_bulk_reads
    loop.ring.fd = -1
    with nogil:
        result = run_ring(&loop, buffers, buffer_bytes)
    raise_errno(result)


def probe():
    """Open a ring and receive a byte through it as `run` does. Raises OSError if that fails."""
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
            sqe = fn_ring_prepare(&ring, FN_OP_RECV, fd, 0)
            sqe.flags = FN_SQE_BUFFER_SELECT
            sqe.ioprio = FN_RECV_MULTISHOT
            result = fn_ring_enter(&ring, 1, 1000)
        if result == 0:
            result = cqe.result if fn_ring_reap(&ring, &cqe) else -ETIMEDOUT
        fn_ring_close(&ring)
    ours.close()
    theirs.close()
    raise_errno(result)
