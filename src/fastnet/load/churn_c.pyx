# cython: cdivision=True
"""A connection for each message: connect, send, half-close, read the echo to its end, close.
Native.

Facts, decision and cost are those of churn_py, function for function; here a connection costs its
system calls and little else. The address is the model's peer name, copied as the kernel gave it, so
TCP over IPv4 and IPv6 and Unix sockets are one code.
"""

from collections.abc import Callable, Sequence

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from fastnet.cdefs.clock cimport fn_now_ns, fn_thread_cpu_ns
from fastnet.cdefs.hist cimport fn_hist, fn_hist_open, fn_hist_record, fn_hist_reset

import os
import socket

from fastnet.limits import EVENTS_PER_WAIT, READ_BYTES, TICK_S
from fastnet.load.contract import NS_PER_S, PATTERN_PERIOD, SOURCES, Tally, source_address
from fastnet.load.pattern import first_place
from fastnet.metrics.histogram import SUB_BUCKET_BITS


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int poll, int operation, int descriptor, epoll_event *event)
    int epoll_wait(int poll, epoll_event *events, int size, int timeout_ms)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP, AF_INET
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_family
        in_addr sin_addr
    ctypedef uint32_t socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        unsigned short ss_family
    int c_socket "socket"(int family, int kind, int protocol)
    int c_bind "bind"(int descriptor, const sockaddr *address, socklen_t size)
    int c_connect "connect"(int descriptor, const sockaddr *address, socklen_t size)
    int getpeername(int descriptor, sockaddr *address, socklen_t *size)
    int setsockopt(int descriptor, int level, int name, const void *value, socklen_t size)
    enum:
        MSG_NOSIGNAL, SHUT_WR, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    ssize_t recv(int descriptor, void *into, size_t size, int flags)
    ssize_t c_send "send"(int descriptor, const void *data, size_t size, int flags)
    int c_shutdown "shutdown"(int descriptor, int how)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int descriptor)


cdef uint64_t NEVER = <uint64_t>-1

cdef enum Turn:
    PHASE_OVER = 0
    TICK = 1

cdef enum:
    BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT (ip(7)); older headers lack it


cdef struct Visitor:
    # One connection after another. place: of its next message in the pattern; unread: bytes still
    # owed of this one.
    int descriptor  # -1 between visits
    bint half_closed
    size_t place
    uint64_t quota, unread, unsent, started_ns, moved_ns
    Visitor *next_idle


cdef struct Load:
    # All visitors of one exchange; belongs to one thread.
    Visitor *visitors
    Visitor *idle
    epoll_event *events
    unsigned char *buffer
    const unsigned char *pattern
    size_t pattern_bytes, pattern_period, read_bytes
    sockaddr_storage target
    socklen_t target_bytes
    uint32_t *sources
    uint32_t sources_size
    uint64_t dials
    int poll, visitors_size, events_size, visiting
    bint draining
    uint64_t message_bytes, stall_ns, tick_ns, now_ns, next_tick_ns
    uint64_t messages, bytes, cpu_ns, mismatches, lost, stalled, refused
    fn_hist latency_ns


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef Load load
    cdef Py_buffer counts
    cdef uint64_t opened_ns
    tally = Tally()
    memset(&load, 0, sizeof(load))
    load.poll = -1
    PyObject_GetBuffer(tally.latency_ns.counts, &counts, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if fn_hist_open(&load.latency_ns, <uint64_t *>counts.buf, counts.len // sizeof(uint64_t), SUB_BUCKET_BITS):
            raise ValueError("a histogram of another shape")
        load_open(&load, connections[0], plan, pattern)
        if plan.warmup_s:
            run(&load, fn_now_ns() + <uint64_t>round(plan.warmup_s * NS_PER_S))
        on_edge()
        load.messages = load.bytes = 0
        fn_hist_reset(&load.latency_ns)
        load.cpu_ns = fn_thread_cpu_ns()
        opened_ns = load.now_ns = fn_now_ns()
        run(&load, opened_ns + <uint64_t>round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
        tally.window_ns = load.now_ns - opened_ns
        tally.cpu_ns = fn_thread_cpu_ns() - load.cpu_ns
        on_edge()
        load.draining = True
        run(&load, NEVER)
        tally_up(&load, tally)
    finally:
        load_close(&load)
        PyBuffer_Release(&counts)
    return tally


cdef int load_open(Load *load, model, plan, bytes pattern) except -1:
    """Take plain numbers and memory out of the Python values. The caller keeps `pattern` alive."""
    cdef int number, descriptor = model.fileno()
    load.pattern = pattern
    load.pattern_period = PATTERN_PERIOD
    load.read_bytes = READ_BYTES
    load.pattern_bytes = len(pattern)
    load.message_bytes = plan.message_bytes
    load.stall_ns = round(plan.stall_s * NS_PER_S)
    load.tick_ns = round(TICK_S * NS_PER_S)
    load.events_size = EVENTS_PER_WAIT
    load.visitors_size = plan.connections
    load.target_bytes = sizeof(load.target)
    if getpeername(descriptor, <sockaddr *>&load.target, &load.target_bytes) < 0:
        raise OSError(errno, os.strerror(errno))
    if model.family == socket.AF_INET and model.getpeername()[0].startswith("127."):
        load.sources_size = SOURCES
    load.visitors = <Visitor *>calloc(load.visitors_size, sizeof(Visitor))
    load.events = <epoll_event *>calloc(load.events_size, sizeof(epoll_event))
    load.buffer = <unsigned char *>calloc(load.read_bytes, 1)
    load.sources = <uint32_t *>calloc(SOURCES, sizeof(uint32_t))
    if not (load.visitors and load.events and load.buffer and load.sources):
        raise MemoryError()
    load.poll = epoll_create1(EPOLL_CLOEXEC)
    if load.poll < 0:
        raise OSError(errno, os.strerror(errno))
    for number in range(SOURCES):
        load.sources[number] = int.from_bytes(socket.inet_aton(source_address(number)), "little")
    for number in range(load.visitors_size):
        load.visitors[number].descriptor = -1
        load.visitors[number].place = first_place(number)
        load.visitors[number].quota = plan.share(number)
        if load.visitors[number].quota:
            rest(load, &load.visitors[number])
    return 0


cdef void load_close(Load *load) noexcept:
    cdef int number
    if load.visitors:
        for number in range(load.visitors_size):
            if load.visitors[number].descriptor >= 0 and load.poll >= 0:
                c_close(load.visitors[number].descriptor)
    free(load.visitors)
    free(load.events)
    free(load.buffer)
    free(load.sources)
    if load.poll >= 0:
        c_close(load.poll)


cdef int tally_up(Load *load, tally) except -1:
    tally.messages = load.messages
    tally.bytes = load.bytes
    tally.mismatches = load.mismatches
    tally.lost = load.lost
    tally.stalled = load.stalled
    tally.refused = load.refused
    tally.latency_ns.total = load.latency_ns.total
    tally.latency_ns.sum = load.latency_ns.sum
    tally.latency_ns.max = load.latency_ns.max
    return 0


cdef int run(Load *load, uint64_t until_ns) except -1:
    """Serve events until the time has come or no visitor has anything left to do."""
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
    cdef Visitor *visitor
    cdef int ready, k
    while True:
        load.now_ns = fn_now_ns()
        while load.idle and not load.draining:
            visitor = load.idle
            load.idle = visitor.next_idle
            begin(load, visitor)
        if load.now_ns >= until_ns or not load.visiting:
            return PHASE_OVER
        if load.now_ns >= load.next_tick_ns:
            load.next_tick_ns = load.now_ns + load.tick_ns
            return TICK
        wait_ns = min(load.next_tick_ns, until_ns) - load.now_ns
        ready = epoll_wait(load.poll, load.events, load.events_size, <int>((wait_ns + 999999) // 1000000))
        if ready < 0 and errno != EINTR:
            return -errno
        for k in range(ready):
            visit(load, <Visitor *>load.events[k].data.ptr)


cdef void end_stalled(Load *load) noexcept nogil:
    cdef int number
    cdef Visitor *visitor
    for number in range(load.visitors_size):
        visitor = &load.visitors[number]
        if visitor.descriptor >= 0 and load.now_ns > visitor.moved_ns + load.stall_ns:
            load.stalled += 1
            end(load, visitor)


cdef void rest(Load *load, Visitor *visitor) noexcept nogil:
    visitor.next_idle = load.idle
    load.idle = visitor


cdef int dial(Load *load) noexcept nogil:
    """A connection that is made or on its way. Returns a descriptor or -errno."""
    cdef sockaddr_in source
    cdef int status, one = 1
    cdef int descriptor = c_socket(load.target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if descriptor < 0:
        return -errno
    status = 0
    if load.sources_size:
        memset(&source, 0, sizeof(source))
        source.sin_family = AF_INET
        source.sin_addr.s_addr = load.sources[load.dials % load.sources_size]
        setsockopt(descriptor, IPPROTO_IP, BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        status = c_bind(descriptor, <const sockaddr *>&source, sizeof(source))
    load.dials += 1
    if status == 0:
        status = c_connect(descriptor, <const sockaddr *>&load.target, load.target_bytes)
    if status < 0 and errno != EINPROGRESS:
        status = -errno
        c_close(descriptor)
        return status
    return descriptor


cdef void begin(Load *load, Visitor *visitor) noexcept nogil:
    """Connect, and send at once if that is decided at once. A refused visitor does not come
    again.
    """
    cdef epoll_event event
    visitor.started_ns = visitor.moved_ns = fn_now_ns()
    visitor.unsent = visitor.unread = load.message_bytes
    visitor.half_closed = False
    visitor.quota -= 1
    visitor.descriptor = dial(load)
    if visitor.descriptor < 0:
        visitor.descriptor = -1
        load.refused += 1
        return
    load.visiting += 1
    if send(load, visitor):
        event.events = EPOLLIN | (EPOLLOUT if visitor.unsent else 0)
        event.data.ptr = visitor
        epoll_ctl(load.poll, EPOLL_CTL_ADD, visitor.descriptor, &event)


cdef inline void visit(Load *load, Visitor *visitor) noexcept nogil:
    cdef epoll_event event
    if visitor.unsent:
        if not send(load, visitor):
            return
        if not visitor.unsent:
            event.events = EPOLLIN
            event.data.ptr = visitor
            epoll_ctl(load.poll, EPOLL_CTL_MOD, visitor.descriptor, &event)
    if visitor.unsent < load.message_bytes:
        receive(load, visitor)


cdef inline bint send(Load *load, Visitor *visitor) noexcept nogil:
    """Write once; half-close when all is sent. Returns whether the visit goes on."""
    cdef size_t start = (visitor.place + load.message_bytes - visitor.unsent) % load.pattern_period
    cdef size_t size = min(visitor.unsent, <uint64_t>(load.pattern_bytes - start))
    cdef ssize_t n = c_send(visitor.descriptor, load.pattern + start, size, MSG_NOSIGNAL)
    if n < 0:
        return True if errno == EAGAIN or errno == EINTR else fail(load, visitor)
    visitor.unsent -= n
    visitor.moved_ns = load.now_ns
    if not visitor.unsent:
        visitor.half_closed = True
        if c_shutdown(visitor.descriptor, SHUT_WR) < 0:
            return fail(load, visitor)
    return True


cdef inline void receive(Load *load, Visitor *visitor) noexcept nogil:
    """Read once, check; the end of the stream in the right place ends the visit."""
    cdef ssize_t n = recv(visitor.descriptor, load.buffer, load.read_bytes, 0)
    cdef size_t start
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            fail(load, visitor)
        return
    load.now_ns = visitor.moved_ns = fn_now_ns()
    if n == 0:
        over(load, visitor)
        return
    start = (visitor.place + load.message_bytes - visitor.unread) % load.pattern_period
    if <uint64_t>n > visitor.unread - visitor.unsent or memcmp(load.buffer, load.pattern + start, n):
        load.mismatches += 1
        end(load, visitor)
        return
    visitor.unread -= n


cdef inline void over(Load *load, Visitor *visitor) noexcept nogil:
    """The peer has ended. If it owes nothing, the next visit may begin."""
    if visitor.unread or not visitor.half_closed:
        fail(load, visitor)
        return
    end(load, visitor)
    if not load.draining:
        load.messages += 1
        load.bytes += load.message_bytes
        fn_hist_record(&load.latency_ns, load.now_ns - visitor.started_ns, 1)
    visitor.place = (visitor.place + load.message_bytes) % load.pattern_period
    if visitor.quota:
        rest(load, visitor)


cdef bint fail(Load *load, Visitor *visitor) noexcept nogil:
    """An error: it was refused if nothing had gone out, and lost if something had."""
    if visitor.unsent == load.message_bytes:
        load.refused += 1
    else:
        load.lost += 1
    end(load, visitor)
    return False


cdef void end(Load *load, Visitor *visitor) noexcept nogil:
    c_close(visitor.descriptor)
    visitor.descriptor = -1
    load.visiting -= 1
