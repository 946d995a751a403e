# cython: cdivision=True
"""Closed-loop load: a new message starts when one has come back. Native.

Facts. Echoes of pipelined messages arrive joined; one read may end several messages and a part of
the next.
Consequence: messages are counted by bytes, and all that one read ended are started again with one
write.
Decision: one epoll(7), level-triggered; per event one read and, when something is to be sent, one
write, so that long messages of one connection cannot keep the others waiting. Reading goes on while
a write is stuck, so two full socket buffers never wait for each other. The loop comes back to
Python once in TICK_S, for signals, and holds no GIL otherwise.
Cost: beside recv and send, a message costs one clock reading, one memcmp and its slot of the
histogram; an epoll_wait is shared by all connections that are ready.
"""

from collections.abc import Callable, Sequence

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from fastnet.cdefs.clock cimport fn_now_ns, fn_thread_cpu_ns
from fastnet.cdefs.hist cimport fn_hist, fn_hist_open, fn_hist_record, fn_hist_reset

import os

from fastnet.limits import EVENTS_PER_WAIT, READ_BYTES, TICK_S
from fastnet.load.contract import NS_PER_S, PATTERN_PERIOD, Tally
from fastnet.load.pattern import first_place
from fastnet.metrics.histogram import SUB_BUCKET_BITS


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int poll, int operation, int descriptor, epoll_event *event)
    int epoll_wait(int poll, epoll_event *events, int size, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL, SHUT_WR, SHUT_RDWR
    ssize_t recv(int descriptor, void *into, size_t size, int flags)
    ssize_t c_send "send"(int descriptor, const void *data, size_t size, int flags)
    int c_shutdown "shutdown"(int descriptor, int how)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int descriptor)


cdef uint64_t NEVER = <uint64_t>-1

cdef enum Turn:
    PHASE_OVER = 0
    TICK = 1


cdef struct Batch:
    # Messages that were started together and have not come back.
    uint64_t started_ns
    uint64_t count


cdef struct Connection:
    # One stream. Places are positions in the pattern; unread bytes were sent and have not come
    # back.
    int descriptor
    bint open, armed, half_closed
    size_t read_place, send_place
    uint64_t quota, unread, unsent, part, moved_ns
    # a ring of in_flight batches; each holds at least one message, so it cannot overflow
    Batch *starts
    uint32_t starts_first, starts_size


cdef struct Load:
    # All connections of one exchange; belongs to one thread.
    Connection *connections
    Batch *batches
    epoll_event *events
    unsigned char *buffer
    const unsigned char *pattern
    size_t pattern_bytes, pattern_period, read_bytes
    int poll, connections_size, events_size, open, exchanging
    bint draining
    uint32_t in_flight
    uint64_t message_bytes, stall_ns, tick_ns, now_ns, next_tick_ns, busy_poll_ns, spin_until_ns
    uint64_t messages, bytes, cpu_ns, mismatches, lost, stalled
    fn_hist latency_ns


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef Load load
    cdef Py_buffer counts
    cdef uint64_t opened_ns, window_ns
    tally = Tally()
    memset(&load, 0, sizeof(load))
    load.poll = -1
    PyObject_GetBuffer(tally.latency_ns.counts, &counts, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if fn_hist_open(&load.latency_ns, <uint64_t *>counts.buf, counts.len // sizeof(uint64_t), SUB_BUCKET_BITS):
            raise ValueError("a histogram of another shape")
        load_open(&load, connections, plan, pattern)
        if plan.warmup_s:
            start_all(&load)
            run(&load, fn_now_ns() + <uint64_t>round(plan.warmup_s * NS_PER_S))
        on_edge()
        opened_ns = open_window(&load)
        if not plan.warmup_s:
            start_all(&load)
        run(&load, opened_ns + <uint64_t>round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
        window_ns = close_window(&load, opened_ns)
        on_edge()
        half_close_all(&load)
        run(&load, NEVER)
        tally_up(&load, window_ns, tally)
    finally:
        load_close(&load)
        PyBuffer_Release(&counts)
    return tally


cdef int load_open(Load *load, connections, plan, bytes pattern) except -1:
    """Take plain numbers and memory out of the Python values. The caller keeps `pattern` alive."""
    cdef Connection *c
    cdef epoll_event event
    cdef int number, size = len(connections)
    load.pattern = pattern
    load.pattern_period = PATTERN_PERIOD
    load.read_bytes = READ_BYTES
    load.pattern_bytes = len(pattern)
    load.message_bytes = plan.message_bytes
    load.in_flight = plan.in_flight
    load.stall_ns = round(plan.stall_s * NS_PER_S)
    load.tick_ns = round(TICK_S * NS_PER_S)
    load.busy_poll_ns = plan.busy_poll_us * 1000
    load.events_size = EVENTS_PER_WAIT
    load.connections = <Connection *>calloc(size, sizeof(Connection))
    load.batches = <Batch *>calloc(<size_t>size * load.in_flight, sizeof(Batch))
    load.events = <epoll_event *>calloc(load.events_size, sizeof(epoll_event))
    load.buffer = <unsigned char *>calloc(load.read_bytes, 1)
    if not (load.connections and load.batches and load.events and load.buffer):
        raise MemoryError()
    load.poll = epoll_create1(EPOLL_CLOEXEC)
    if load.poll < 0:
        raise OSError(errno, os.strerror(errno))
    load.open = load.exchanging = load.connections_size = size
    for number in range(size):
        c = &load.connections[number]
        c.descriptor = connections[number].fileno()
        c.open = True
        c.read_place = c.send_place = first_place(number)
        c.quota = plan.share(number)
        c.starts = load.batches + <size_t>number * load.in_flight
        event.events = EPOLLIN
        event.data.ptr = c
        if epoll_ctl(load.poll, EPOLL_CTL_ADD, c.descriptor, &event) < 0:
            raise OSError(errno, os.strerror(errno))
    return 0


cdef void load_close(Load *load) noexcept:
    free(load.connections)
    free(load.batches)
    free(load.events)
    free(load.buffer)
    if load.poll >= 0:
        c_close(load.poll)


cdef int tally_up(Load *load, uint64_t window_ns, tally) except -1:
    tally.messages = load.messages
    tally.bytes = load.bytes
    tally.window_ns = window_ns
    tally.cpu_ns = load.cpu_ns
    tally.mismatches = load.mismatches
    tally.lost = load.lost
    tally.stalled = load.stalled
    tally.latency_ns.total = load.latency_ns.total
    tally.latency_ns.sum = load.latency_ns.sum
    tally.latency_ns.max = load.latency_ns.max
    return 0


cdef void start_all(Load *load) noexcept nogil:
    cdef int number
    cdef Connection *c
    load.now_ns = fn_now_ns()
    for number in range(load.connections_size):
        c = &load.connections[number]
        c.moved_ns = load.now_ns
        if c.quota:
            start(load, c, load.in_flight)
            send(load, c)
        else:
            half_close(load, c)


cdef uint64_t open_window(Load *load) noexcept nogil:
    """Forget the warm-up. Returns when the window opened."""
    load.messages = load.bytes = 0
    fn_hist_reset(&load.latency_ns)
    load.cpu_ns = fn_thread_cpu_ns()
    load.now_ns = fn_now_ns()
    return load.now_ns


cdef uint64_t close_window(Load *load, uint64_t opened_ns) noexcept nogil:
    """Returns how long it was open."""
    load.cpu_ns = fn_thread_cpu_ns() - load.cpu_ns
    return load.now_ns - opened_ns


cdef void half_close_all(Load *load) noexcept nogil:
    cdef int number
    cdef Connection *c
    load.draining = True
    for number in range(load.connections_size):
        c = &load.connections[number]
        if c.open and not c.half_closed:
            c.unsent = 0
            half_close(load, c)


cdef int run(Load *load, uint64_t until_ns) except -1:
    """Serve events until the time has come or no connection has anything left to do."""
    cdef int status
    while True:
        with nogil:
            status = turn(load, until_ns)
        if status == PHASE_OVER:
            return 0
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        PyErr_CheckSignals()
        end_stalled(load)


cdef int turn(Load *load, uint64_t until_ns) noexcept nogil:
    """Returns TICK after a tick, PHASE_OVER when the phase is over, or -errno."""
    cdef uint64_t wait_ns
    cdef int ready, k
    while True:
        load.now_ns = fn_now_ns()
        if load.now_ns >= until_ns or not (load.open if load.draining else load.exchanging):
            return PHASE_OVER
        if load.now_ns >= load.next_tick_ns:
            load.next_tick_ns = load.now_ns + load.tick_ns
            return TICK
        if load.now_ns < load.spin_until_ns and load.connections_size == 1:
            spin(load, &load.connections[0])
            continue
        wait_ns = 0 if load.now_ns < load.spin_until_ns else min(load.next_tick_ns, until_ns) - load.now_ns
        ready = epoll_wait(load.poll, load.events, load.events_size, <int>((wait_ns + 999999) // 1000000))
        if ready < 0 and errno != EINTR:
            return -errno
        if ready > 0:
            load.spin_until_ns = load.now_ns + load.busy_poll_ns
        for k in range(ready):
            visit(load, <Connection *>load.events[k].data.ptr, load.events[k].events)
            if load.now_ns >= until_ns:
                return PHASE_OVER


cdef inline void spin(Load *load, Connection *c) noexcept nogil:
    """Look for the echo of the only connection itself: there is nobody else to ask epoll about."""
    visit(load, c, EPOLLIN)
    load.spin_until_ns = c.moved_ns + load.busy_poll_ns if c.open else 0


cdef void end_stalled(Load *load) noexcept nogil:
    cdef int number
    cdef Connection *c
    for number in range(load.connections_size):
        c = &load.connections[number]
        if c.open and load.now_ns > c.moved_ns + load.stall_ns:
            load.stalled += 1
            end(load, c)


cdef inline void visit(Load *load, Connection *c, uint32_t events) noexcept nogil:
    if events & ~<uint32_t>EPOLLOUT and not receive(load, c):
        return
    if c.unsent and (not c.armed or events & EPOLLOUT):
        send(load, c)
    elif not (c.quota or c.unsent or c.unread or c.half_closed):
        half_close(load, c)


cdef inline bint receive(Load *load, Connection *c) noexcept nogil:
    """Read once, check and count. Returns whether the connection goes on."""
    cdef ssize_t n = recv(c.descriptor, load.buffer, load.read_bytes, 0)
    if n < 0:
        return True if errno == EAGAIN or errno == EINTR else lose(load, c)
    load.now_ns = c.moved_ns = fn_now_ns()
    if not n:
        if not c.half_closed or c.unread:
            return lose(load, c)
        end(load, c)
        return False
    if <uint64_t>n > c.unread or memcmp(load.buffer, load.pattern + c.read_place, n):
        load.mismatches += 1
        end(load, c)
        return False
    c.read_place = (c.read_place + n) % load.pattern_period
    c.unread -= n
    if not load.draining:
        credit(load, c, n)
    return True


cdef inline void credit(Load *load, Connection *c, size_t n) noexcept nogil:
    """Count the messages that n right bytes have ended and start as many."""
    cdef uint64_t done, left, ended
    cdef Batch *batch
    load.bytes += n
    c.part += n
    if c.part < load.message_bytes:
        return
    done = c.part // load.message_bytes
    c.part -= done * load.message_bytes
    load.messages += done
    left = done
    while left:
        batch = &c.starts[c.starts_first]
        ended = min(left, batch.count)
        fn_hist_record(&load.latency_ns, load.now_ns - batch.started_ns, ended)
        batch.count -= ended
        left -= ended
        if not batch.count:
            c.starts_first = c.starts_first + 1 if c.starts_first + 1 < load.in_flight else 0
            c.starts_size -= 1
    start(load, c, done)


cdef inline void start(Load *load, Connection *c, uint64_t count) noexcept nogil:
    cdef uint32_t last = c.starts_first + c.starts_size
    count = min(count, c.quota)
    if count:
        c.quota -= count
        c.unsent += count * load.message_bytes
        c.starts_size += 1
        c.starts[last if last < load.in_flight else last - load.in_flight] = Batch(load.now_ns, count)


cdef inline void send(Load *load, Connection *c) noexcept nogil:
    """Write once; ask for EPOLLOUT exactly while something is left."""
    cdef ssize_t n
    cdef size_t size = min(c.unsent, <uint64_t>(load.pattern_bytes - c.send_place))
    n = c_send(c.descriptor, load.pattern + c.send_place, size, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            lose(load, c)
            return
        n = 0
    c.send_place = (c.send_place + n) % load.pattern_period
    c.unsent -= n
    c.unread += n
    if n:
        c.moved_ns = load.now_ns
    arm(load, c, c.unsent > 0)


cdef inline void arm(Load *load, Connection *c, bint writable) noexcept nogil:
    cdef epoll_event event
    if c.armed != writable:
        c.armed = writable
        event.events = EPOLLIN | (EPOLLOUT if writable else 0)
        event.data.ptr = c
        epoll_ctl(load.poll, EPOLL_CTL_MOD, c.descriptor, &event)


cdef void half_close(Load *load, Connection *c) noexcept nogil:
    """All is sent. A peer that is gone by now is found by the next read."""
    arm(load, c, False)
    c_shutdown(c.descriptor, SHUT_WR)
    c.half_closed = True
    load.exchanging -= 1


cdef bint lose(Load *load, Connection *c) noexcept nogil:
    load.lost += 1
    end(load, c)
    return False


cdef void end(Load *load, Connection *c) noexcept nogil:
    """Take the connection out of the loop. Its owner closes it."""
    epoll_ctl(load.poll, EPOLL_CTL_DEL, c.descriptor, NULL)
    c_shutdown(c.descriptor, SHUT_RDWR)
    c.open = False
    load.open -= 1
    load.exchanging -= not c.half_closed
