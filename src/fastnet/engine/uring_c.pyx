"""Wait with io_uring: one system call hands over all requests and brings all results.

Facts. A multishot accept or recv stays armed and posts a completion each time, so a message costs no request; its bytes
arrive in a buffer of a shared ring that the kernel picks when they are there. A send right after a receive nearly always
succeeds at once, and done inline it gives its buffer back hot, where a send request would hold it until the next round.
A descriptor closed while a request holds it stays open in the kernel. Multishot accept cannot be told "no more than n".
Decision: receive by ring, send inline, and only the rest by a send request, one at a time for each connection. While one is
out, input waits in memory and, from a bound on, the receive is cancelled, so a peer that does not read is no longer read. A
connection ends by shutdown(2) and is freed when the kernel holds nothing of it. Near the connection limit accepts are asked
for one by one. Running out of buffers is back-pressure: the receive is armed again once they are back, and counted.
Cost: about half a kilobyte of kernel memory for each armed receive; wants Linux 6.0, and 6.12 for buffers used in pieces.

Sources: io_uring_setup(2), io_uring_enter(2), io_uring_multishot(7), io_uring_provided_buffers(7). There is no pure twin:
Python has no way to make these calls.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from fastnet.cdefs.accept cimport FN_SWEEP_MAX, fn_accept, fn_accept_failed, fn_admit, fn_names_peers, fn_turn_away
from fastnet.cdefs.counters cimport (
    FN_IDLE, FN_REFUSED, FN_RESET, FN_STOPPED, FN_OVERLOAD, fn_closed, fn_count, fn_count_closed,
)
from fastnet.cdefs.errno cimport raise_errno
from fastnet.cdefs.ring cimport (
    FN_ACCEPT_MULTISHOT, FN_CQE_MORE, FN_OP_ACCEPT, FN_OP_ASYNC_CANCEL, FN_OP_POLL_ADD, FN_OP_RECV, FN_OP_SEND,
    FN_RECV_MULTISHOT, FN_SQE_BUFFER_SELECT, fn_cqe, fn_ring, fn_ring_ask, fn_ring_bytes, fn_ring_close, fn_ring_done,
    fn_ring_enter, fn_ring_open, fn_ring_overflowed, fn_ring_ready, fn_ring_reap, fn_sqe,
)
from fastnet.cdefs.stream cimport (
    FN_CLOSE, FN_PEER_EOF, FN_READS, FN_WHY, FN_WRITES, fn_close_for, fn_conn, fn_idle_touch, fn_map, fn_now_ms, fn_now_ns, fn_slot_take,
    fn_stream, fn_stream_close, fn_stream_drops, fn_stream_finish, fn_stream_flushed, fn_stream_heard, fn_stream_open,
    fn_stream_order, fn_stream_overdue, fn_stream_start, fn_trace_open, fn_unmap,
)
from fastnet.cdefs.sys cimport (
    EAGAIN, ECANCELED, ECONNABORTED, EMFILE, ENOBUFS, ENOMEM, EPOLLIN, ETIMEDOUT, F_GETFL, F_SETFL, MSG_NOSIGNAL, MSG_TRUNC,
    O_NONBLOCK, SHUT_RDWR, SOCK_CLOEXEC, close, fcntl, fn_peer, shutdown, sockaddr_storage,
)
from fastnet.cdefs.work cimport FN_LISTENERS_MAX, FN_NOW, FN_RUN, fn_stop_now, fn_work
from fastnet.cdefs.work_c cimport NativeWork

import socket

cdef enum:
    RECV = 1       # what a completion answers: the top byte of user_data
    SEND = 2
    ACCEPT = 3
    STOP = 4
    CANCEL = 5

cdef enum:
    SUBMISSIONS = 512          # requests handed over in one call; more go in two
    LEAST_COMPLETIONS = 4096   # and otherwise two for each connection, capped by the kernel

cdef struct Side:              # what a connection needs beside its slot because requests are out
    char *pending              # input that came while a send was out
    uint32_t pending_bytes
    uint32_t pending_room
    uint8_t requests           # that the kernel still holds
    uint8_t eof                # the peer's FIN came behind the pending input
    uint8_t cancelling         # the receive has been asked to end
    uint8_t closing            # shut down; freed when no request is out
    uint8_t why                # enum fn_closed, once closing

cdef struct Loop:
    fn_stream stream
    const fn_work *work
    fn_ring ring
    Side *side
    uint8_t[FN_LISTENERS_MAX] armed        # an accept is out: 1 a single one, 2 a multishot
    uint8_t[FN_LISTENERS_MAX] cancelling   # and has been asked to end
    int full
    int resting
    uint32_t rest_over_ms
    int draining
    int sweep
    int swept


cdef inline uint64_t tag(int operation, uint32_t generation, uint32_t slot) noexcept nogil:
    return <uint64_t>operation << 56 | <uint64_t>(generation & 0xFFFFFF) << 32 | slot


cdef void cancel(Loop *loop, uint64_t user_data) noexcept nogil:
    fn_ring_ask(&loop.ring, FN_OP_ASYNC_CANCEL, -1, tag(CANCEL, 0, 0)).address = user_data


cdef void ask_recv(Loop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef fn_sqe *sqe = fn_ring_ask(&loop.ring, FN_OP_RECV, conn.fd, tag(RECV, conn.generation, slot))
    sqe.flags = FN_SQE_BUFFER_SELECT
    sqe.ioprio = FN_RECV_MULTISHOT
    sqe.op_flags = MSG_TRUNC if fn_stream_drops(&loop.stream, conn) else 0
    conn.flags |= FN_READS
    loop.side[slot].requests += 1


cdef void ask_send(Loop *loop, uint32_t slot) noexcept nogil:
    """Without MSG_WAITALL: each part the peer takes is a completion, and so a sign of life."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef fn_sqe *sqe = fn_ring_ask(&loop.ring, FN_OP_SEND, conn.fd, tag(SEND, conn.generation, slot))
    sqe.address = <uint64_t><uintptr_t>conn.parked
    sqe.length = conn.parked_bytes
    sqe.op_flags = MSG_NOSIGNAL
    conn.flags |= FN_WRITES
    loop.side[slot].requests += 1


cdef void free_slot(Loop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    if side.pending_bytes:
        fn_count(&loop.stream.row.parked_bytes, -<uint64_t>side.pending_bytes)
    free(side.pending)
    memset(side, 0, sizeof(Side))
    fn_stream_close(&loop.stream, slot, why)


cdef void end(Loop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    """Close the connection, now or when the kernel has given back what is out."""
    cdef Side *side = &loop.side[slot]
    if side.requests == 0:
        free_slot(loop, slot, why)
    elif not side.closing:
        side.closing, side.why = True, why
        shutdown(loop.stream.slots.conn[slot].fd, SHUT_RDWR)


cdef int keep(Loop *loop, uint32_t slot, const char *bytes, uint32_t n) noexcept nogil:
    """Keep input until what is parked is out. Returns 0 or FN_CLOSE."""
    cdef Side *side = &loop.side[slot]
    cdef uint32_t room = side.pending_room
    cdef char *larger
    if loop.stream.row.parked_bytes + n > loop.work.parked_bytes_max:
        return FN_CLOSE(FN_OVERLOAD)
    if side.pending_bytes + n > room:
        room = side.pending_bytes + n if side.pending_bytes + n > 2 * room else 2 * room
        larger = <char *>realloc(side.pending, room)
        if larger == NULL:
            return FN_CLOSE(FN_OVERLOAD)
        side.pending, side.pending_room = larger, room
    memcpy(side.pending + side.pending_bytes, bytes, n)
    side.pending_bytes += n
    fn_count(&loop.stream.row.parked_bytes, n)
    return 0


cdef int catch_up(Loop *loop, uint32_t slot) noexcept nogil:
    """Nothing is parked any more: give the service what came meanwhile. Returns 0 or FN_CLOSE."""
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint32_t n = side.pending_bytes
    cdef int result = 0
    if n:
        side.pending_bytes = 0
        fn_count(&loop.stream.row.parked_bytes, -<uint64_t>n)
        result = fn_stream_heard(&loop.stream, conn, side.pending, n)
        free(side.pending)
        side.pending, side.pending_room = NULL, 0
    if result == 0 and side.eof and conn.parked_bytes == 0:
        side.eof = False
        result = fn_stream_heard(&loop.stream, conn, NULL, 0)
    return result


cdef inline bint wants_input(Loop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if conn.flags & FN_PEER_EOF or loop.side[slot].eof:
        return False
    return conn.parked_bytes == 0 or loop.side[slot].pending_bytes < loop.work.read_bytes or fn_stream_drops(&loop.stream, conn)


cdef inline void settle(Loop *loop, uint32_t slot, int result) noexcept nogil:
    """After a completion: ask for what the connection waits for now, or end it."""
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if side.closing:
        if side.requests == 0:
            free_slot(loop, slot, <fn_closed>side.why)
        return
    if result == 0 and conn.parked_bytes == 0 and (side.pending_bytes or side.eof):
        result = catch_up(loop, slot)
    if result == 0 and conn.parked_bytes == 0 and loop.stream.service.sent != NULL:
        result = fn_stream_order(&loop.stream, conn)
    if result:
        end(loop, slot, FN_WHY(result))
        return
    if conn.parked_bytes and not conn.flags & FN_WRITES:
        ask_send(loop, slot)
    if wants_input(loop, slot):
        if not conn.flags & FN_READS:
            ask_recv(loop, slot)
    elif conn.flags & FN_READS and not side.cancelling:
        side.cancelling = True
        cancel(loop, tag(RECV, conn.generation, slot))


cdef inline void received(Loop *loop, uint32_t slot, const fn_cqe *cqe) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef int result = 0
    if not cqe.flags & FN_CQE_MORE:
        conn.flags &= ~<uint32_t>FN_READS
        side.requests -= 1
        side.cancelling = False
    if side.closing:
        pass
    elif cqe.result > 0:
        if conn.parked_bytes and not fn_stream_drops(&loop.stream, conn):
            result = keep(loop, slot, fn_ring_bytes(&loop.ring, cqe), cqe.result)
        else:
            result = fn_stream_heard(&loop.stream, conn, fn_ring_bytes(&loop.ring, cqe), cqe.result)
    elif cqe.result == 0:
        if conn.parked_bytes and not fn_stream_drops(&loop.stream, conn):
            side.eof = True
        else:
            result = fn_stream_heard(&loop.stream, conn, NULL, 0)
    elif cqe.result == -ENOBUFS:
        fn_count(&loop.stream.row.ring_starved, 1)
    elif cqe.result != -ECANCELED and cqe.result != -EAGAIN:
        result = fn_close_for(cqe.result)
    fn_ring_done(&loop.ring, cqe)
    settle(loop, slot, result)


cdef inline void taken(Loop *loop, uint32_t slot, int n) noexcept nogil:
    """A send request ended with n bytes taken by the kernel, or -errno."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef int result = 0
    conn.flags &= ~<uint32_t>FN_WRITES
    loop.side[slot].requests -= 1
    if not loop.side[slot].closing:
        if n >= 0:
            result = fn_stream_flushed(&loop.stream, conn, n)
        elif n != -EAGAIN:
            result = fn_close_for(n)
    settle(loop, slot, result)


cdef void begin(Loop *loop, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Give an accepted connection a slot and its first turn."""
    cdef uint32_t slot = fn_slot_take(&loop.stream.slots, fd, loop.stream.now_ms)
    if slot == 0:
        fn_turn_away(loop.work, fd, peer, FN_REFUSED)
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
        if fn_names_peers(loop.work) and fn_peer(fd, &peer) < 0:
            fn_count(&loop.stream.row.accepted, 1)
            close(fd)
            fn_count_closed(loop.stream.row, FN_RESET)
        elif fn_admit(loop.work, fd, &peer) >= 0:
            begin(loop, fd, &peer)
        return 0
    fd = 0 if fd == -ECANCELED or fd == -EAGAIN else fn_accept_failed(loop.work, fd)
    if fd == -EMFILE:
        loop.resting = True
        loop.rest_over_ms = fn_now_ms() + loop.work.accept_pause_ms
    elif fd != 0 and fd != -ECONNABORTED and fn_stop_now(loop.work) == FN_RUN:
        return fd
    return 0


cdef void tend_listeners(Loop *loop) noexcept nogil:
    """Keep an accept out on every listener, as far as there is room: many at once, one by one, or none."""
    cdef uint32_t room = loop.stream.slots.capacity - loop.stream.slots.open
    cdef uint8_t mode = 0 if room == 0 or loop.resting or loop.draining else 2 if room > FN_SWEEP_MAX else 1
    cdef fn_sqe *sqe
    cdef int i
    if room == 0 and not loop.full:
        fn_count(&loop.stream.row.accept_pauses, 1)
    loop.full = room == 0
    for i in range(loop.work.listeners):
        if loop.armed[i]:
            if loop.armed[i] > mode and not loop.cancelling[i]:
                loop.cancelling[i] = True
                cancel(loop, tag(ACCEPT, 0, i))
        elif mode:
            sqe = fn_ring_ask(&loop.ring, FN_OP_ACCEPT, loop.work.listener[i], tag(ACCEPT, 0, i))
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
    for i in range(loop.work.listeners):
        fcntl(loop.work.listener[i], F_SETFL, fcntl(loop.work.listener[i], F_GETFL, 0) | O_NONBLOCK)
        for j in range(loop.work.accept_burst):
            if loop.stream.slots.open == loop.stream.slots.capacity:
                return
            fd = fn_accept(loop.work, loop.work.listener[i], 0, &peer)
            if fd >= 0:
                begin(loop, fd, &peer)
            elif fd != -ECONNABORTED:
                emptied += 1
                break
    loop.sweep -= loop.work.accept_burst
    if emptied == loop.work.listeners or loop.sweep <= 0:
        loop.swept = True
        for i in range(loop.work.listeners):
            shutdown(loop.work.listener[i], SHUT_RDWR)


cdef bint any_armed(const Loop *loop) noexcept nogil:
    cdef int i
    for i in range(loop.work.listeners):
        if loop.armed[i]:
            return True
    return False


cdef bint drain(Loop *loop) noexcept nogil:
    """Once asked to stop: end the accepts, take what is queued, shut the listeners. True when the loop is done."""
    if not loop.draining:
        loop.draining, loop.sweep = True, FN_SWEEP_MAX
        watch_stop(loop, loop.work.now_fd)
    if fn_stop_now(loop.work) == FN_NOW:
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
        fn_idle_touch(&loop.stream.slots, slot, loop.stream.now_ms)  # it may stay until its requests are back
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
    if operation == RECV or operation == SEND:
        if (loop.stream.slots.conn[slot].generation & 0xFFFFFF) != (cqe.user_data >> 32 & 0xFFFFFF):
            fn_ring_done(&loop.ring, cqe)
        elif operation == RECV:
            received(loop, slot, cqe)
        else:
            taken(loop, slot, cqe.result)
    return 0


cdef int wait(Loop *loop, int timeout_ms) noexcept nogil:
    """Hand over requests and wait for completions; first without sleeping, for as long as busy polling allows."""
    cdef int failed
    cdef uint64_t until_ns
    if loop.work.busy_poll_ns and timeout_ms:
        until_ns = fn_now_ns() + loop.work.busy_poll_ns
        while True:
            failed = fn_ring_enter(&loop.ring, 0, 0)
            if failed or fn_ring_ready(&loop.ring):
                fn_count(&loop.stream.row.spins_paid, 1)
                return failed
            if fn_now_ns() >= until_ns:
                break
        fn_count(&loop.stream.row.spins_vain, 1)
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
    cdef int failed = 0
    watch_stop(loop, loop.work.drain_fd)
    while failed == 0:
        tend_listeners(loop)
        failed = turn(loop, patience_ms(loop))
        if failed == 0 and fn_stop_now(loop.work) != FN_RUN and drain(loop):
            return 0
    return failed


cdef void close_all(Loop *loop) noexcept nogil:
    """End every connection, and wait until the kernel has given back all memory that requests name."""
    cdef uint32_t slot
    for slot in range(1, loop.stream.slots.touched + 1):
        if loop.stream.slots.conn[slot].fd >= 0:
            end(loop, slot, FN_STOPPED)
    while loop.stream.slots.open and turn(loop, -1) == 0:
        pass


cdef int run_ring(Loop *loop, uint32_t buffers, uint32_t buffer_bytes) noexcept nogil:
    cdef uint32_t capacity = loop.work.max_connections
    cdef uint32_t completions = 2 * capacity if 2 * capacity > LEAST_COMPLETIONS else LEAST_COMPLETIONS
    cdef int i, result
    result = fn_stream_start(&loop.stream, loop.work, capacity)
    loop.side = <Side *>fn_map((capacity + 1) * sizeof(Side))
    if result == 0:
        result = fn_ring_open(&loop.ring, SUBMISSIONS, completions, buffers, buffer_bytes) if loop.side != NULL else -ENOMEM
    if result == 0:
        for i in range(loop.work.listeners):
            # A request on a non-blocking descriptor fails at once instead of waiting in the kernel.
            fcntl(loop.work.listener[i], F_SETFL, fcntl(loop.work.listener[i], F_GETFL, 0) & ~O_NONBLOCK)
        result = serve(loop)
        close_all(loop)
    fn_ring_close(&loop.ring)
    fn_unmap(loop.side, (capacity + 1) * sizeof(Side))
    fn_stream_finish(&loop.stream)
    return result


def run(work):
    """Serve work's listeners until it is stopped (engine/contract.py)."""
    cdef NativeWork native = NativeWork(work)
    cdef uint32_t buffers = work.limits.ring_buffers
    cdef uint32_t buffer_bytes = work.limits.ring_buffer_bytes
    cdef Loop loop
    cdef int result
    memset(&loop, 0, sizeof(Loop))
    loop.work = &native.c
    loop.ring.fd = -1
    with nogil:
        result = run_ring(&loop, buffers, buffer_bytes)
    raise_errno(result)


def probe():
    """Open a ring and receive a byte through it as `run` does. Raises OSError if this host does not let us."""
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
