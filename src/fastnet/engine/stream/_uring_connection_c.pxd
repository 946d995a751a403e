"""State machine of one uring connection: its requests, and what completions mean.

Facts. A multishot receive lands in buffers of a shared ring and costs no request a message; a
multishot poll reports edges, and the bytes are then read into the loop's one buffer, which stays in
the cache. A request holds the descriptor open in the kernel, and shutdown(2) ends a receive but not
a poll.
Decision: short messages are received by the ring, long ones polled and read. A connection ends by
shutdown(2), and its slot is released when the kernel holds nothing of it. While a send is out,
input is deferred and the receive is cancelled, so a peer that does not read is no longer read.

Lifecycle        event                                            next
OPEN             error, end, idle or stop; requests are out       CLOSING, by shutdown(2)
OPEN             the same; no request is out                      slot released
CLOSING          the last request has completed                   slot released

ReadMode         event                                            next
READ_IDLE        input wanted; messages are short                 RECV_MULTISHOT
READ_IDLE        input wanted; messages are long                  POLL_MULTISHOT
RECV_MULTISHOT   messages have become long, or no input wanted    RECV_CANCELLING
POLL_MULTISHOT   short again and INPUT_DRAINED, or CLOSING        POLL_CANCELLING
any but IDLE     its completion without IORING_CQE_F_MORE         READ_IDLE

PollInput        event                                            next
INPUT_DRAINED    the poll reports an edge                         INPUT_UNREAD
INPUT_UNREAD     a read shorter than the buffer                   INPUT_DRAINED
INPUT_UNREAD     input wanted and no event to wait for            REREAD_QUEUED, by a NOP
REREAD_QUEUED    the NOP has completed                            INPUT_UNREAD, then a read
"""
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from fastnet.cdefs.counters cimport FN_OVERLOAD, fn_closed, fn_count
from fastnet.cdefs.ring_queue cimport fn_ring_buffer_bytes, fn_ring_buffer_release, fn_ring_prepare
from fastnet.cdefs.slots cimport FN_FIN_RECEIVED, fn_conn
from fastnet.cdefs.stream cimport (
    FN_CLOSE, FN_CLOSE_REASON, fn_stream_close, fn_stream_discards_input, fn_stream_error,
)
from fastnet.cdefs.stream_io cimport fn_stream_flushed, fn_stream_queue_output, fn_stream_received
from fastnet.cdefs.sys cimport (
    EAGAIN, ECANCELED, ENOBUFS, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP, MSG_DONTWAIT, MSG_NOSIGNAL,
    MSG_TRUNC, SHUT_RDWR, fn_recv, shutdown,
)
from fastnet.cdefs.uring_abi cimport (
    FN_CQE_MORE, FN_OP_NOP, FN_OP_POLL_ADD, FN_OP_RECV, FN_OP_SEND, FN_POLL_MULTISHOT,
    FN_RECV_MULTISHOT, FN_SQE_BUFFER_SELECT, fn_cqe, fn_sqe,
)
from fastnet.engine.stream._uring_c cimport (
    POLL, RECV, REREAD, SEND, RingConnection, RingLoop, cancel, user_data,
)

cdef enum Lifecycle:
    OPEN = 0
    CLOSING = 1

cdef enum ReadMode:
    READ_IDLE = 0
    RECV_MULTISHOT = 1
    RECV_CANCELLING = 2
    POLL_MULTISHOT = 3
    POLL_CANCELLING = 4

cdef enum PollInput:
    INPUT_DRAINED = 0
    INPUT_UNREAD = 1
    REREAD_QUEUED = 2


cdef inline void submit_recv(RingLoop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint64_t data = user_data(RECV, conn.generation, slot)
    cdef fn_sqe *sqe = fn_ring_prepare(&loop.ring, FN_OP_RECV, conn.fd, data)
    sqe.flags = FN_SQE_BUFFER_SELECT
    sqe.ioprio = FN_RECV_MULTISHOT
    sqe.op_flags = MSG_TRUNC if fn_stream_discards_input(&loop.stream, conn) else 0
    loop.connection[slot].read_mode = RECV_MULTISHOT
    loop.connection[slot].requests += 1


cdef inline void submit_poll(RingLoop *loop, uint32_t slot) noexcept nogil:
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint64_t data = user_data(POLL, conn.generation, slot)
    cdef fn_sqe *sqe = fn_ring_prepare(&loop.ring, FN_OP_POLL_ADD, conn.fd, data)
    sqe.length = FN_POLL_MULTISHOT
    sqe.op_flags = EPOLLIN | EPOLLRDHUP
    loop.connection[slot].read_mode = POLL_MULTISHOT
    loop.connection[slot].requests += 1


cdef inline void queue_reread(RingLoop *loop, uint32_t slot) noexcept nogil:
    """Read again without an event, but after the events of the other connections."""
    cdef uint32_t generation = loop.stream.slots.conn[slot].generation
    fn_ring_prepare(&loop.ring, FN_OP_NOP, -1, user_data(REREAD, generation, slot))
    loop.connection[slot].poll_input = REREAD_QUEUED
    loop.connection[slot].requests += 1


cdef inline void cancel_read(RingLoop *loop, uint32_t slot) noexcept nogil:
    """Cancel the receive or the poll, unless that has been done."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef uint32_t generation = loop.stream.slots.conn[slot].generation
    if side.read_mode == RECV_MULTISHOT:
        side.read_mode = RECV_CANCELLING
        cancel(loop, user_data(RECV, generation, slot))
    elif side.read_mode == POLL_MULTISHOT:
        side.read_mode = POLL_CANCELLING
        cancel(loop, user_data(POLL, generation, slot))


cdef inline void submit_send(RingLoop *loop, uint32_t slot) noexcept nogil:
    """Without MSG_WAITALL: each part the peer takes is a completion, and resets the idle timer."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint64_t data = user_data(SEND, conn.generation, slot)
    cdef fn_sqe *sqe = fn_ring_prepare(&loop.ring, FN_OP_SEND, conn.fd, data)
    sqe.address = <uint64_t><uintptr_t>conn.write_buffer
    sqe.length = conn.write_buffer_bytes
    sqe.op_flags = MSG_NOSIGNAL
    loop.connection[slot].sending = True
    loop.connection[slot].requests += 1


cdef inline void release_slot(RingLoop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    cdef RingConnection *side = &loop.connection[slot]
    if side.deferred_bytes:
        fn_count(&loop.stream.row.write_buffer_bytes, -<uint64_t>side.deferred_bytes)
    free(side.deferred)
    memset(side, 0, sizeof(RingConnection))
    fn_stream_close(&loop.stream, slot, why)


cdef inline void close_connection(RingLoop *loop, uint32_t slot, fn_closed why) noexcept nogil:
    """Close the connection, now or when the kernel has completed what is out."""
    cdef RingConnection *side = &loop.connection[slot]
    if side.requests == 0:
        release_slot(loop, slot, why)
    elif side.lifecycle == OPEN:
        side.lifecycle = CLOSING
        side.why = why
        shutdown(loop.stream.slots.conn[slot].fd, SHUT_RDWR)  # ends a receive, but not a poll
        if side.read_mode == POLL_MULTISHOT:
            cancel_read(loop, slot)


cdef inline int defer_input(
    RingLoop *loop, uint32_t slot, const char *bytes, uint32_t n
) noexcept nogil:
    """Keep input until the write buffer is empty. Returns 0 or FN_CLOSE."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef uint32_t needed = side.deferred_bytes + n
    cdef uint32_t room = side.deferred_room
    cdef char *larger
    if loop.stream.row.write_buffer_bytes + n > loop.context.write_buffer_bytes_max:
        return FN_CLOSE(FN_OVERLOAD)
    if needed > room:
        room = needed if needed > 2 * room else 2 * room
        larger = <char *>realloc(side.deferred, room)
        if larger == NULL:
            return FN_CLOSE(FN_OVERLOAD)
        side.deferred = larger
        side.deferred_room = room
    memcpy(side.deferred + side.deferred_bytes, bytes, n)
    side.deferred_bytes = needed
    fn_count(&loop.stream.row.write_buffer_bytes, n)
    return 0


cdef inline int deliver_deferred(RingLoop *loop, uint32_t slot) noexcept nogil:
    """The write buffer is empty: give the service the deferred input. Returns 0 or FN_CLOSE."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint32_t n = side.deferred_bytes
    cdef int result = 0
    if n:
        side.deferred_bytes = 0
        fn_count(&loop.stream.row.write_buffer_bytes, -<uint64_t>n)
        result = fn_stream_received(&loop.stream, conn, side.deferred, n)
        free(side.deferred)
        side.deferred = NULL
        side.deferred_room = 0
    if result == 0 and side.fin_deferred and conn.write_buffer_bytes == 0:
        side.fin_deferred = False
        result = fn_stream_received(&loop.stream, conn, NULL, 0)
    return result


cdef inline bint wants_input(RingLoop *loop, uint32_t slot) noexcept nogil:
    """Whether the connection may be read now."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if conn.flags & FN_FIN_RECEIVED or loop.connection[slot].fin_deferred:
        return False
    return conn.write_buffer_bytes == 0 or fn_stream_discards_input(&loop.stream, conn)


cdef inline void update_requests(RingLoop *loop, uint32_t slot, int result) noexcept nogil:
    """After a completion: submit what the connection waits for next, or close it."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    if side.lifecycle == CLOSING:
        if side.requests == 0:
            release_slot(loop, slot, <fn_closed>side.why)
        return
    if result == 0 and conn.write_buffer_bytes == 0 and (side.deferred_bytes or side.fin_deferred):
        result = deliver_deferred(loop, slot)
    if result == 0 and conn.write_buffer_bytes == 0 and loop.stream.service.sent != NULL:
        result = fn_stream_queue_output(&loop.stream, conn)
    if result:
        close_connection(loop, slot, FN_CLOSE_REASON(result))
        return
    if conn.write_buffer_bytes and not side.sending:
        submit_send(loop, slot)
    update_read_mode(loop, slot)


cdef inline void update_read_mode(RingLoop *loop, uint32_t slot) noexcept nogil:
    """Take the edge of the tables above that the connection's needs call for."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef bint wanted = wants_input(loop, slot)
    if side.read_mode == READ_IDLE:
        if wanted and side.bulk_reads:
            submit_poll(loop, slot)
        elif wanted:
            submit_recv(loop, slot)
    elif side.read_mode == RECV_MULTISHOT or side.read_mode == RECV_CANCELLING:
        if side.bulk_reads or not wanted:
            cancel_read(loop, slot)
    elif side.poll_input != INPUT_DRAINED:
        if wanted and side.poll_input == INPUT_UNREAD:
            queue_reread(loop, slot)
    elif not side.bulk_reads:
        cancel_read(loop, slot)


cdef inline void read_completed(RingLoop *loop, uint32_t slot, const fn_cqe *cqe) noexcept nogil:
    """A receive or a poll is no longer out, unless the kernel keeps it armed."""
    if not cqe.flags & FN_CQE_MORE:
        loop.connection[slot].read_mode = READ_IDLE
        loop.connection[slot].requests -= 1


cdef inline void on_received(RingLoop *loop, uint32_t slot, const fn_cqe *cqe) noexcept nogil:
    """A receive has completed: bytes in a ring buffer, end of stream or -errno."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef char *bytes
    cdef bint deferring
    cdef int result = 0
    read_completed(loop, slot, cqe)
    if side.lifecycle == OPEN and cqe.result >= 0:
        deferring = conn.write_buffer_bytes and not fn_stream_discards_input(&loop.stream, conn)
        if cqe.result > 0:
            bytes = fn_ring_buffer_bytes(&loop.ring, cqe)
            if <uint32_t>cqe.result >= loop.bulk_bytes:
                side.bulk_reads = loop.bulk_reads
            if deferring:
                result = defer_input(loop, slot, bytes, cqe.result)
            else:
                result = fn_stream_received(&loop.stream, conn, bytes, cqe.result)
        elif deferring:
            side.fin_deferred = True
        else:
            result = fn_stream_received(&loop.stream, conn, NULL, 0)
    elif side.lifecycle == OPEN and cqe.result == -ENOBUFS:
        fn_count(&loop.stream.row.ring_starved, 1)
    elif side.lifecycle == OPEN and cqe.result != -ECANCELED and cqe.result != -EAGAIN:
        result = fn_stream_error(cqe.result)
    fn_ring_buffer_release(&loop.ring, cqe)
    update_requests(loop, slot, result)


cdef inline int read_polled(RingLoop *loop, uint32_t slot) noexcept nogil:
    """One read into the loop's one buffer. Returns 0 or FN_CLOSE."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef bint discards = fn_stream_discards_input(&loop.stream, conn)
    cdef int flags = MSG_DONTWAIT | (MSG_TRUNC if discards else 0)
    cdef ssize_t n = fn_recv(conn.fd, loop.stream.buffer, loop.context.read_bytes, flags)
    cdef bint unread = n == loop.context.read_bytes or (side.hung_up and n > 0)
    side.poll_input = INPUT_UNREAD if unread else INPUT_DRAINED
    if n < 0:
        return 0 if n == -EAGAIN else fn_stream_error(<int>n)
    if n >= loop.bulk_bytes:
        side.bulk_reads = loop.bulk_reads
    elif side.bulk_reads:
        side.bulk_reads -= 1
    return fn_stream_received(&loop.stream, conn, loop.stream.buffer, n)


cdef inline void on_readable(RingLoop *loop, uint32_t slot, const fn_cqe *cqe) noexcept nogil:
    """The poll reports an edge, or has ended with -errno."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef int result = 0
    read_completed(loop, slot, cqe)
    if cqe.result > 0:
        side.hung_up |= (cqe.result & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0
        if side.poll_input != REREAD_QUEUED:
            side.poll_input = INPUT_UNREAD
            if side.lifecycle == OPEN and wants_input(loop, slot):
                result = read_polled(loop, slot)
    elif cqe.result < 0 and cqe.result != -ECANCELED and side.lifecycle == OPEN:
        result = fn_stream_error(cqe.result)
    update_requests(loop, slot, result)


cdef inline void on_reread(RingLoop *loop, uint32_t slot) noexcept nogil:
    """The NOP of queue_reread has completed."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef int result = 0
    side.poll_input = INPUT_UNREAD
    side.requests -= 1
    if side.lifecycle == OPEN and wants_input(loop, slot):
        result = read_polled(loop, slot)
    update_requests(loop, slot, result)


cdef inline void on_sent(RingLoop *loop, uint32_t slot, int n) noexcept nogil:
    """A send has completed: the kernel has taken n bytes, or -errno."""
    cdef RingConnection *side = &loop.connection[slot]
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef int result = 0
    side.sending = False
    side.requests -= 1
    if side.lifecycle == OPEN:
        if n >= 0:
            result = fn_stream_flushed(&loop.stream, conn, n)
        elif n != -EAGAIN:
            result = fn_stream_error(n)
    update_requests(loop, slot, result)
