"""One connection of the uring engine: what is asked of the kernel for it, and what completions mean
to
it.

The engine's argument is in engine/stream/uring_c.pyx. Completions carry what they answer in the top
byte of user_data, then 24 bits of the slot's generation and the slot, so that one that comes late
is recognised. The functions are inline, as in loop.pxd.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from fastnet.cdefs.context cimport FN_LISTENERS_MAX, fn_context
from fastnet.cdefs.counters cimport FN_OVERLOAD, fn_closed, fn_count
from fastnet.cdefs.ring cimport fn_ring, fn_ring_ask, fn_ring_bytes, fn_ring_done
from fastnet.cdefs.slots cimport FN_PEER_EOF, FN_READS, FN_WRITES, fn_conn
from fastnet.cdefs.stream cimport (
    FN_CLOSE, FN_WHY, fn_close_for, fn_stream, fn_stream_close, fn_stream_drops, fn_stream_flushed,
    fn_stream_heard, fn_stream_order,
)
from fastnet.cdefs.sys cimport (
    EAGAIN, ECANCELED, ENOBUFS, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP, MSG_DONTWAIT, MSG_NOSIGNAL,
    MSG_TRUNC, SHUT_RDWR, fn_recv, shutdown,
)
from fastnet.cdefs.uring_abi cimport (
    FN_CQE_MORE, FN_OP_ASYNC_CANCEL, FN_OP_NOP, FN_OP_POLL_ADD, FN_OP_RECV, FN_OP_SEND,
    FN_POLL_MULTISHOT, FN_RECV_MULTISHOT, FN_SQE_BUFFER_SELECT, fn_cqe, fn_sqe,
)

cdef enum:
    RECV = 1       # what a completion answers: the top byte of user_data
    SEND = 2
    ACCEPT = 3
    STOP = 4
    CANCEL = 5
    POLL = 6
    AGAIN = 7

cdef enum:
    SUBMISSIONS = 512          # requests handed over in one call; more go in two
    LEAST_COMPLETIONS = 4096   # and otherwise two for each connection, capped by the kernel

cdef struct Side:              # what a connection needs beside its slot because requests are out
    char *pending              # input that came while a send was out
    uint32_t pending_bytes
    uint32_t pending_room
    uint8_t requests           # that the kernel still holds
    # long messages of late: how many short reads until it is read by the ring again
    uint8_t bulk             
    uint8_t polled             # if FN_READS: a poll is out, not a receive
    uint8_t due                # polled: there may be input that no further edge will tell of
    uint8_t hung_up            # polled: the end of the stream is among it
    uint8_t again              # a turn has been asked for
    uint8_t eof                # the peer's FIN came behind the pending input
    uint8_t cancelling         # the receive or the poll has been asked to end
    uint8_t closing            # shut down; freed when no request is out
    uint8_t why                # enum fn_closed, once closing

cdef struct Loop:
    fn_stream stream
    const fn_context *context
    fn_ring ring
    Side *side
    uint32_t bulk_bytes, bulk_reads
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


cdef inline void cancel(Loop *loop, uint64_t user_data) noexcept nogil:
    fn_ring_ask(&loop.ring, FN_OP_ASYNC_CANCEL, -1, tag(CANCEL, 0, 0)).address = user_data


cdef inline void ask_recv(Loop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef fn_sqe *sqe = fn_ring_ask(&loop.ring, FN_OP_RECV, conn.fd, tag(RECV, conn.generation, slot))
    sqe.flags = FN_SQE_BUFFER_SELECT
    sqe.ioprio = FN_RECV_MULTISHOT
    sqe.op_flags = MSG_TRUNC if fn_stream_drops(&loop.stream, conn) else 0
    conn.flags |= FN_READS
    loop.side[slot].polled = False
    loop.side[slot].requests += 1


cdef inline void ask_poll(Loop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef fn_sqe *sqe = fn_ring_ask(&loop.ring, FN_OP_POLL_ADD, conn.fd, tag(POLL, conn.generation, slot))
    sqe.length = FN_POLL_MULTISHOT
    sqe.op_flags = EPOLLIN | EPOLLRDHUP
    conn.flags |= FN_READS
    loop.side[slot].polled = True
    loop.side[slot].requests += 1


cdef inline void ask_turn(Loop *loop, uint32_t slot) noexcept nogil:
    """A turn without an event, after those of the others."""
    fn_ring_ask(&loop.ring, FN_OP_NOP, -1, tag(AGAIN, loop.stream.slots.conn[slot].generation, slot))
    loop.side[slot].again = True
    loop.side[slot].requests += 1


cdef inline void stop_reading(Loop *loop, uint32_t slot) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    if not side.cancelling:
        side.cancelling = True
        cancel(loop, tag(POLL if side.polled else RECV, loop.stream.slots.conn[slot].generation, slot))


cdef inline void ask_send(Loop *loop, uint32_t slot) noexcept nogil:
    """Without MSG_WAITALL: each part the peer takes is a completion, and so a sign of life."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef fn_sqe *sqe = fn_ring_ask(&loop.ring, FN_OP_SEND, conn.fd, tag(SEND, conn.generation, slot))
    sqe.address = <uint64_t><uintptr_t>conn.write_buffer
    sqe.length = conn.write_buffer_bytes
    sqe.op_flags = MSG_NOSIGNAL
    conn.flags |= FN_WRITES
    loop.side[slot].requests += 1


cdef inline void free_slot(Loop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    if side.pending_bytes:
        fn_count(&loop.stream.row.write_buffer_bytes, -<uint64_t>side.pending_bytes)
    free(side.pending)
    memset(side, 0, sizeof(Side))
    fn_stream_close(&loop.stream, slot, why)


cdef inline void end(Loop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    """Close the connection, now or when the kernel has given back what is out."""
    cdef Side *side = &loop.side[slot]
    if side.requests == 0:
        free_slot(loop, slot, why)
    elif not side.closing:
        side.closing, side.why = True, why
        shutdown(loop.stream.slots.conn[slot].fd, SHUT_RDWR)  # ends a receive, but not a poll
        if side.polled and loop.stream.slots.conn[slot].flags & FN_READS:
            stop_reading(loop, slot)


cdef inline int keep(Loop *loop, uint32_t slot, const char *bytes, uint32_t n) noexcept nogil:
    """Keep input until what is parked is out. Returns 0 or FN_CLOSE."""
    cdef Side *side = &loop.side[slot]
    cdef uint32_t room = side.pending_room
    cdef char *larger
    if loop.stream.row.write_buffer_bytes + n > loop.context.write_buffer_bytes_max:
        return FN_CLOSE(FN_OVERLOAD)
    if side.pending_bytes + n > room:
        room = side.pending_bytes + n if side.pending_bytes + n > 2 * room else 2 * room
        larger = <char *>realloc(side.pending, room)
        if larger == NULL:
            return FN_CLOSE(FN_OVERLOAD)
        side.pending, side.pending_room = larger, room
    memcpy(side.pending + side.pending_bytes, bytes, n)
    side.pending_bytes += n
    fn_count(&loop.stream.row.write_buffer_bytes, n)
    return 0


cdef inline int catch_up(Loop *loop, uint32_t slot) noexcept nogil:
    """Nothing is parked any more: give the service what came meanwhile. Returns 0 or FN_CLOSE."""
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint32_t n = side.pending_bytes
    cdef int result = 0
    if n:
        side.pending_bytes = 0
        fn_count(&loop.stream.row.write_buffer_bytes, -<uint64_t>n)
        result = fn_stream_heard(&loop.stream, conn, side.pending, n)
        free(side.pending)
        side.pending, side.pending_room = NULL, 0
    if result == 0 and side.eof and conn.write_buffer_bytes == 0:
        side.eof = False
        result = fn_stream_heard(&loop.stream, conn, NULL, 0)
    return result


cdef inline bint wants_input(Loop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if conn.flags & FN_PEER_EOF or loop.side[slot].eof:
        return False
    return conn.write_buffer_bytes == 0 or fn_stream_drops(&loop.stream, conn)


cdef inline void settle(Loop *loop, uint32_t slot, int result) noexcept nogil:
    """After a completion: ask for what the connection waits for now, or end it."""
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if side.closing:
        if side.requests == 0:
            free_slot(loop, slot, <fn_closed>side.why)
        return
    if result == 0 and conn.write_buffer_bytes == 0 and (side.pending_bytes or side.eof):
        result = catch_up(loop, slot)
    if result == 0 and conn.write_buffer_bytes == 0 and loop.stream.service.sent != NULL:
        result = fn_stream_order(&loop.stream, conn)
    if result:
        end(loop, slot, FN_WHY(result))
        return
    if conn.write_buffer_bytes and not conn.flags & FN_WRITES:
        ask_send(loop, slot)
    settle_input(loop, slot)


cdef inline void settle_input(Loop *loop, uint32_t slot) noexcept nogil:
    """Ask for input in the way that suits the connection, for another turn, or for no more."""
    cdef Side *side = &loop.side[slot]
    cdef bint wanted = wants_input(loop, slot)
    if not loop.stream.slots.conn[slot].flags & FN_READS:
        if wanted and side.bulk:
            ask_poll(loop, slot)
        elif wanted:
            ask_recv(loop, slot)
    elif not side.polled:
        if side.bulk or not wanted:
            stop_reading(loop, slot)
    elif side.due:
        if wanted and not side.again:
            ask_turn(loop, slot)
    elif not side.bulk:
        stop_reading(loop, slot)


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
        if <uint32_t>cqe.result >= loop.bulk_bytes:
            side.bulk = loop.bulk_reads
        if conn.write_buffer_bytes and not fn_stream_drops(&loop.stream, conn):
            result = keep(loop, slot, fn_ring_bytes(&loop.ring, cqe), cqe.result)
        else:
            result = fn_stream_heard(&loop.stream, conn, fn_ring_bytes(&loop.ring, cqe), cqe.result)
    elif cqe.result == 0:
        if conn.write_buffer_bytes and not fn_stream_drops(&loop.stream, conn):
            side.eof = True
        else:
            result = fn_stream_heard(&loop.stream, conn, NULL, 0)
    elif cqe.result == -ENOBUFS:
        fn_count(&loop.stream.row.ring_starved, 1)
    elif cqe.result != -ECANCELED and cqe.result != -EAGAIN:
        result = fn_close_for(cqe.result)
    fn_ring_done(&loop.ring, cqe)
    settle(loop, slot, result)


cdef inline int read_bulk(Loop *loop, uint32_t slot) noexcept nogil:
    """One read into the loop's one buffer, which stays in the cache. Returns 0 or FN_CLOSE."""
    cdef Side *side = &loop.side[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef int flags = MSG_DONTWAIT | (MSG_TRUNC if fn_stream_drops(&loop.stream, conn) else 0)
    cdef ssize_t n = fn_recv(conn.fd, loop.stream.buffer, loop.context.read_bytes, flags)
    side.due = n == loop.context.read_bytes or (side.hung_up and n > 0)
    if n < 0:
        return 0 if n == -EAGAIN else fn_close_for(<int>n)
    if n >= loop.bulk_bytes:
        side.bulk = loop.bulk_reads
    elif side.bulk:
        side.bulk -= 1
    return fn_stream_heard(&loop.stream, conn, loop.stream.buffer, n)


cdef inline void readable(Loop *loop, uint32_t slot, const fn_cqe *cqe) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    cdef int result = 0
    if not cqe.flags & FN_CQE_MORE:
        loop.stream.slots.conn[slot].flags &= ~<uint32_t>FN_READS
        side.requests -= 1
        side.cancelling = False
    if cqe.result > 0:
        side.due = True
        side.hung_up |= (cqe.result & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0
        if not side.closing and not side.again and wants_input(loop, slot):
            result = read_bulk(loop, slot)
    elif cqe.result < 0 and cqe.result != -ECANCELED and not side.closing:
        result = fn_close_for(cqe.result)
    settle(loop, slot, result)


cdef inline void reread(Loop *loop, uint32_t slot) noexcept nogil:
    cdef Side *side = &loop.side[slot]
    cdef int result = 0
    side.again = False
    side.requests -= 1
    if not side.closing and side.due and wants_input(loop, slot):
        result = read_bulk(loop, slot)
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
