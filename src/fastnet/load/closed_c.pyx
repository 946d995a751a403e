# cython: cdivision=True
"""Closed-loop load: a message is sent when one has come back. Native.

Facts. Echoes of pipelined messages arrive joined; one read may end several messages and a part of
the next.
Consequence: messages are counted by bytes, and all that one read ended are started again with one
write.
Decision: per event one read and, when something is to be sent, one write, so that long messages of
one connection cannot delay the others. Reading continues while a write is blocked, so two full
socket buffers never wait for each other. The loop is load/_loop_c.pxd.
Cost: beside recv and send, a message costs one clock reading, one memcmp and its slot of the
histogram; an epoll_wait is shared by all connections that are ready.
"""

from collections.abc import Callable, Sequence

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from fastnet.cdefs.clock cimport fn_now_ns
from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.hist cimport fn_hist_record
from fastnet.cdefs.sys cimport (
    EAGAIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, SHUT_RDWR, SHUT_WR,
    fn_epoll_set, fn_recv, fn_send, shutdown,
)
from fastnet.load._loop_c cimport (
    LoadLoop, load_loop_close, load_loop_open, load_loop_received, load_loop_run,
)

from fastnet.limits import READ_BYTES
from fastnet.load.contract import Tally
from fastnet.load.pattern import first_offset


cdef struct SentBatch:
    # Messages that were started together and have not come back.
    uint64_t started_ns
    uint64_t count


cdef struct EchoConnection:
    # One stream, measured against the pattern.
    int fd
    bint open
    bint watches_writable    # EPOLLOUT is set
    bint half_closed
    size_t read_offset       # of the next byte to read in the pattern
    size_t send_offset       # of the next byte to send in the pattern
    uint64_t quota           # messages it may still start
    uint64_t unread          # bytes sent that have not come back
    uint64_t unsent          # bytes of started messages not sent yet
    uint64_t partial         # bytes read of the message that has not ended
    uint64_t moved_ns        # last time a byte moved in either direction
    SentBatch *batches       # ring of in_flight; each holds a message, so it cannot overflow
    uint32_t batches_first
    uint32_t batches_used


cdef struct ClosedLoad:
    # All connections of one exchange; belongs to one thread.
    LoadLoop loop
    EchoConnection *connections
    SentBatch *batches
    unsigned char *buffer
    size_t read_bytes
    uint32_t in_flight
    uint64_t open


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef ClosedLoad load
    tally = Tally()
    memset(&load, 0, sizeof(load))
    load.loop.start = start_all
    load.loop.visit = visit
    load.loop.enforce_deadlines = end_stalled
    load.loop.drain = half_close_all
    try:
        load_loop_open(&load.loop, plan, pattern, tally)
        open_connections(&load, connections, plan)
        load_loop_run(&load.loop, plan, on_edge, tally)
    finally:
        free(load.connections)
        free(load.batches)
        free(load.buffer)
        load_loop_close(&load.loop)
    return tally


cdef int open_connections(ClosedLoad *load, connections, plan) except -1:
    cdef EchoConnection *c
    cdef int number, size = len(connections)
    load.read_bytes = READ_BYTES
    load.in_flight = plan.in_flight
    load.open = size
    load.loop.connections = size
    load.loop.pending = size
    load.connections = <EchoConnection *>calloc(size, sizeof(EchoConnection))
    load.batches = <SentBatch *>calloc(<size_t>size * load.in_flight, sizeof(SentBatch))
    load.buffer = <unsigned char *>calloc(load.read_bytes, 1)
    if not (load.connections and load.batches and load.buffer):
        raise MemoryError()
    for number in range(size):
        c = &load.connections[number]
        c.fd = connections[number].fileno()
        c.open = True
        c.read_offset = first_offset(number)
        c.send_offset = c.read_offset
        c.quota = plan.share(number)
        c.batches = load.batches + <size_t>number * load.in_flight
        raise_errno(fn_epoll_set(load.loop.epoll, EPOLL_CTL_ADD, c.fd, EPOLLIN, number))
    return 0


cdef void start_all(LoadLoop *loop) noexcept nogil:
    cdef ClosedLoad *load = <ClosedLoad *>loop
    cdef EchoConnection *c
    cdef int number
    loop.now_ns = fn_now_ns()
    for number in range(loop.connections):
        c = &load.connections[number]
        c.moved_ns = loop.now_ns
        if c.quota:
            start_messages(load, c, load.in_flight)
            send_messages(load, c)
        else:
            half_close(load, c)


cdef void half_close_all(LoadLoop *loop) noexcept nogil:
    cdef ClosedLoad *load = <ClosedLoad *>loop
    cdef EchoConnection *c
    cdef int number
    for number in range(loop.connections):
        c = &load.connections[number]
        if c.open and not c.half_closed:
            c.unsent = 0
            half_close(load, c)
    loop.pending = load.open


cdef void end_stalled(LoadLoop *loop) noexcept nogil:
    cdef ClosedLoad *load = <ClosedLoad *>loop
    cdef EchoConnection *c
    cdef int number
    for number in range(loop.connections):
        c = &load.connections[number]
        if c.open and loop.now_ns > c.moved_ns + loop.stall_ns:
            loop.stalled += 1
            end_connection(load, c)


cdef void visit(LoadLoop *loop, uint64_t number, uint32_t events) noexcept nogil:
    cdef ClosedLoad *load = <ClosedLoad *>loop
    cdef EchoConnection *c = &load.connections[number]
    if events & ~<uint32_t>EPOLLOUT and not receive(load, c):
        return
    if c.unsent and (not c.watches_writable or events & EPOLLOUT):
        send_messages(load, c)
    elif not (c.quota or c.unsent or c.unread or c.half_closed):
        half_close(load, c)


cdef inline bint receive(ClosedLoad *load, EchoConnection *c) noexcept nogil:
    """Read once, check and count. Returns whether the connection is still open."""
    cdef ssize_t n = fn_recv(c.fd, load.buffer, load.read_bytes, 0)
    if n < 0:
        return True if n == -EAGAIN else lose_connection(load, c)
    load_loop_received(&load.loop)
    c.moved_ns = load.loop.now_ns
    if n == 0:
        if not c.half_closed or c.unread:
            return lose_connection(load, c)
        end_connection(load, c)
        return False
    if <uint64_t>n > c.unread or memcmp(load.buffer, load.loop.pattern + c.read_offset, n):
        load.loop.mismatches += 1
        end_connection(load, c)
        return False
    c.read_offset = (c.read_offset + n) % load.loop.pattern_period
    c.unread -= n
    if not load.loop.draining:
        count_messages(load, c, n)
    return True


cdef inline void count_messages(ClosedLoad *load, EchoConnection *c, size_t n) noexcept nogil:
    """Count the messages that n correct bytes have ended and start as many."""
    cdef uint64_t done, left, ended
    cdef SentBatch *batch
    load.loop.bytes += n
    c.partial += n
    if c.partial < load.loop.message_bytes:
        return
    done = c.partial // load.loop.message_bytes
    c.partial -= done * load.loop.message_bytes
    load.loop.messages += done
    left = done
    while left:
        batch = &c.batches[c.batches_first]
        ended = min(left, batch.count)
        fn_hist_record(&load.loop.latency_ns, load.loop.now_ns - batch.started_ns, ended)
        batch.count -= ended
        left -= ended
        if batch.count == 0:
            c.batches_first += 1
            if c.batches_first == load.in_flight:
                c.batches_first = 0
            c.batches_used -= 1
    start_messages(load, c, done)


cdef inline void start_messages(
    ClosedLoad *load, EchoConnection *c, uint64_t count
) noexcept nogil:
    cdef uint32_t last = c.batches_first + c.batches_used
    count = min(count, c.quota)
    if count:
        c.quota -= count
        c.unsent += count * load.loop.message_bytes
        c.batches_used += 1
        if last >= load.in_flight:
            last -= load.in_flight
        c.batches[last] = SentBatch(load.loop.now_ns, count)


cdef inline void send_messages(ClosedLoad *load, EchoConnection *c) noexcept nogil:
    """Write once; watch EPOLLOUT exactly while something is left."""
    cdef size_t size = min(c.unsent, <uint64_t>(load.loop.pattern_bytes - c.send_offset))
    cdef ssize_t n = fn_send(c.fd, load.loop.pattern + c.send_offset, size, 0)
    if n < 0:
        if n != -EAGAIN:
            lose_connection(load, c)
            return
        n = 0
    c.send_offset = (c.send_offset + n) % load.loop.pattern_period
    c.unsent -= n
    c.unread += n
    if n:
        c.moved_ns = load.loop.now_ns
    watch_writable(load, c, c.unsent > 0)


cdef inline void watch_writable(ClosedLoad *load, EchoConnection *c, bint writable) noexcept nogil:
    cdef uint32_t events = EPOLLIN | (EPOLLOUT if writable else 0)
    if c.watches_writable != writable:
        c.watches_writable = writable
        fn_epoll_set(load.loop.epoll, EPOLL_CTL_MOD, c.fd, events, c - load.connections)


cdef void half_close(ClosedLoad *load, EchoConnection *c) noexcept nogil:
    """All is sent. The next read finds a peer that has closed by now."""
    watch_writable(load, c, False)
    shutdown(c.fd, SHUT_WR)
    c.half_closed = True
    if not load.loop.draining:
        load.loop.pending -= 1


cdef bint lose_connection(ClosedLoad *load, EchoConnection *c) noexcept nogil:
    load.loop.lost += 1
    end_connection(load, c)
    return False


cdef void end_connection(ClosedLoad *load, EchoConnection *c) noexcept nogil:
    """Remove the connection from the loop. Its owner closes it."""
    fn_epoll_set(load.loop.epoll, EPOLL_CTL_DEL, c.fd, 0, 0)
    shutdown(c.fd, SHUT_RDWR)
    c.open = False
    load.open -= 1
    if load.loop.draining or not c.half_closed:
        load.loop.pending -= 1
