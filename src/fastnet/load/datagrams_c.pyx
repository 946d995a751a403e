# cython: cdivision=True
"""Closed-loop load of datagrams: another one starts when one has come back, or is given up for
lost.
Native.

Facts and decision are those of datagrams_py, function for function. Decision of its own: what one
recvmmsg(2) brought is started again with one sendmmsg(2). Neither joins nor cuts datagrams, so the
server meets an ordinary client.
Cost: the load's share of a datagram is near that of a server that joins none.
"""

from collections.abc import Callable, Sequence

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fastnet.cdefs.clock cimport fn_now_ns, fn_thread_cpu_ns
from fastnet.cdefs.hist cimport fn_hist, fn_hist_open, fn_hist_record, fn_hist_reset

import os

from fastnet.limits import EVENTS_PER_WAIT, TICK_S
from fastnet.load.contract import LOST_S, NS_PER_S, NUMBER_BYTES, NUMBERS_APART, PATTERN_PERIOD, Tally
from fastnet.load.pattern import first_place
from fastnet.metrics.histogram import SUB_BUCKET_BITS


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    """

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL
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
        MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    ssize_t recv(int descriptor, void *into, size_t size, int flags)
    int recvmmsg(int descriptor, mmsghdr *messages, unsigned int size, int flags, void *timeout)
    int sendmmsg(int descriptor, mmsghdr *messages, unsigned int size, int flags)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int descriptor)


cdef uint64_t NEVER = <uint64_t>-1

cdef enum Turn:
    PHASE_OVER = 0
    TICK = 1

cdef enum:
    BATCH = 64
    ROOM = 65536


cdef struct Flight:
    # A place of a window: the number on its way, or the one it takes next.
    uint64_t number, started_ns
    bint out


cdef struct Window:
    # One socket.
    int descriptor
    bint open
    size_t place
    uint64_t quota
    uint32_t outstanding
    Flight *flights


cdef struct Load:
    # All sockets of one exchange; belongs to one thread.
    Window *windows
    Flight *flights
    epoll_event *events
    unsigned char *memory
    const unsigned char *pattern
    size_t pattern_period, number_bytes, numbers_apart
    int poll, windows_size, events_size
    bint draining
    uint32_t in_flight
    uint64_t message_bytes, lost_ns, tick_ns, now_ns, next_tick_ns, outstanding, busy_poll_ns, spin_until_ns
    uint64_t messages, bytes, cpu_ns, mismatches, lost
    uint32_t sends
    mmsghdr[BATCH] received
    mmsghdr[BATCH] sent
    iovec[BATCH] rooms
    iovec[2 * BATCH] parts
    uint64_t[BATCH] numbers
    fn_hist latency_ns


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef Load *load = <Load *>calloc(1, sizeof(Load))
    cdef Py_buffer counts
    cdef uint64_t opened_ns
    if load == NULL:
        raise MemoryError()
    tally = Tally()
    load.poll = -1
    PyObject_GetBuffer(tally.latency_ns.counts, &counts, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if fn_hist_open(&load.latency_ns, <uint64_t *>counts.buf, counts.len // sizeof(uint64_t), SUB_BUCKET_BITS):
            raise ValueError("a histogram of another shape")
        load_open(load, connections, plan, pattern)
        if plan.warmup_s:
            start_all(load)
            run(load, fn_now_ns() + <uint64_t>round(plan.warmup_s * NS_PER_S))
        on_edge()
        load.messages = load.bytes = 0
        fn_hist_reset(&load.latency_ns)
        load.cpu_ns = fn_thread_cpu_ns()
        opened_ns = load.now_ns = fn_now_ns()
        if not plan.warmup_s:
            start_all(load)
        run(load, opened_ns + <uint64_t>round(plan.seconds * NS_PER_S) if plan.seconds else NEVER)
        tally.window_ns = load.now_ns - opened_ns
        tally.cpu_ns = fn_thread_cpu_ns() - load.cpu_ns
        on_edge()
        load.draining = True
        run(load, NEVER)
        tally_up(load, tally)
    finally:
        load_close(load)
        PyBuffer_Release(&counts)
    return tally


cdef int load_open(Load *load, connections, plan, bytes pattern) except -1:
    """Take plain numbers and memory out of the Python values. The caller keeps `pattern` alive."""
    cdef Window *window
    cdef epoll_event event
    cdef int number, k, size = len(connections)
    load.pattern = pattern
    load.pattern_period, load.number_bytes, load.numbers_apart = PATTERN_PERIOD, NUMBER_BYTES, NUMBERS_APART
    load.message_bytes, load.in_flight = plan.message_bytes, plan.in_flight
    load.lost_ns = round(LOST_S * NS_PER_S)
    load.tick_ns = round(TICK_S * NS_PER_S)
    load.busy_poll_ns = plan.busy_poll_us * 1000
    load.events_size, load.windows_size = EVENTS_PER_WAIT, size
    load.windows = <Window *>calloc(size, sizeof(Window))
    load.flights = <Flight *>calloc(<size_t>size * load.in_flight, sizeof(Flight))
    load.events = <epoll_event *>calloc(load.events_size, sizeof(epoll_event))
    load.memory = <unsigned char *>calloc(BATCH, ROOM)
    if not (load.windows and load.flights and load.events and load.memory):
        raise MemoryError()
    load.poll = epoll_create1(EPOLL_CLOEXEC)
    if load.poll < 0:
        raise OSError(errno, os.strerror(errno))
    for k in range(BATCH):
        load.rooms[k].iov_base, load.rooms[k].iov_len = load.memory + <size_t>k * ROOM, ROOM
        load.received[k].msg_hdr.msg_iov, load.received[k].msg_hdr.msg_iovlen = &load.rooms[k], 1
        load.parts[2 * k].iov_base, load.parts[2 * k].iov_len = &load.numbers[k], load.number_bytes
        load.sent[k].msg_hdr.msg_iov, load.sent[k].msg_hdr.msg_iovlen = &load.parts[2 * k], 2
    for number in range(size):
        window = &load.windows[number]
        window.descriptor = connections[number].fileno()
        window.open = True
        window.place = first_place(number)
        window.quota = plan.share(number)
        window.flights = load.flights + <size_t>number * load.in_flight
        for k in range(<int>load.in_flight):
            window.flights[k].number = k
        event.events = EPOLLIN
        event.data.ptr = window
        if epoll_ctl(load.poll, EPOLL_CTL_ADD, window.descriptor, &event) < 0:
            raise OSError(errno, os.strerror(errno))
    return 0


cdef void load_close(Load *load) noexcept:
    free(load.windows)
    free(load.flights)
    free(load.events)
    free(load.memory)
    if load.poll >= 0:
        c_close(load.poll)
    free(load)


cdef int tally_up(Load *load, tally) except -1:
    tally.messages = load.messages
    tally.bytes = load.bytes
    tally.mismatches = load.mismatches
    tally.lost = load.lost
    tally.latency_ns.total = load.latency_ns.total
    tally.latency_ns.sum = load.latency_ns.sum
    tally.latency_ns.max = load.latency_ns.max
    return 0


cdef void start_all(Load *load) noexcept nogil:
    cdef int number
    cdef uint32_t place
    load.now_ns = fn_now_ns()
    for number in range(load.windows_size):
        for place in range(load.in_flight):
            start(load, &load.windows[number], place)
        flush(load, &load.windows[number])


cdef int run(Load *load, uint64_t until_ns) except -1:
    """Serve events until the time has come or nothing is on its way any more."""
    cdef int status
    while True:
        with nogil:
            status = turn(load, until_ns)
        if status == PHASE_OVER:
            return 0
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        PyErr_CheckSignals()
        give_up_the_lost(load)


cdef int turn(Load *load, uint64_t until_ns) noexcept nogil:
    """Returns TICK after a tick, PHASE_OVER when the phase is over, or -errno."""
    cdef uint64_t wait_ns
    cdef int ready, k
    while True:
        load.now_ns = fn_now_ns()
        if load.now_ns >= until_ns or not load.outstanding:
            return PHASE_OVER
        if load.now_ns >= load.next_tick_ns:
            load.next_tick_ns = load.now_ns + load.tick_ns
            return TICK
        if load.now_ns < load.spin_until_ns and load.windows_size == 1:
            # the only one: asking epoll(7) about it first would cost a call more
            receive(load, load.windows)
            continue
        wait_ns = 0 if load.now_ns < load.spin_until_ns else min(load.next_tick_ns, until_ns) - load.now_ns
        ready = epoll_wait(load.poll, load.events, load.events_size, <int>((wait_ns + 999999) // 1000000))
        if ready < 0 and errno != EINTR:
            return -errno
        for k in range(ready):
            receive(load, <Window *>load.events[k].data.ptr)
            if load.now_ns >= until_ns:
                return PHASE_OVER


cdef void give_up_the_lost(Load *load) noexcept nogil:
    cdef int number
    cdef uint32_t place
    cdef Window *window
    for number in range(load.windows_size):
        window = &load.windows[number]
        for place in range(load.in_flight):
            if window.flights[place].out and load.now_ns > window.flights[place].started_ns + load.lost_ns:
                load.lost += 1
                land(load, window, &window.flights[place])
                start(load, window, place)
        flush(load, window)


cdef inline void land(Load *load, Window *window, Flight *flight) noexcept nogil:
    flight.out = False
    flight.number += load.in_flight
    window.outstanding -= 1
    load.outstanding -= 1


cdef inline size_t place_of(const Load *load, const Window *window, uint64_t number) noexcept nogil:
    return (window.place + number * load.numbers_apart) % load.pattern_period


cdef inline void start(Load *load, Window *window, uint32_t place) noexcept nogil:
    """Queue the next number of a place, if there is one to send."""
    cdef Flight *flight = &window.flights[place]
    if not window.quota or load.draining or not window.open:
        return
    if load.sends == BATCH:
        flush(load, window)
    window.quota -= 1
    window.outstanding += 1
    load.outstanding += 1
    flight.out, flight.started_ns = True, load.now_ns
    load.numbers[load.sends] = flight.number
    load.parts[2 * load.sends + 1].iov_base = <void *>(load.pattern + place_of(load, window, flight.number))
    load.parts[2 * load.sends + 1].iov_len = load.message_bytes - load.number_bytes
    load.sends += 1


cdef inline void flush(Load *load, Window *window) noexcept nogil:
    """Send what is queued. What finds no room is as good as lost."""
    cdef uint32_t at = 0
    cdef int n
    while at < load.sends and window.open:
        n = sendmmsg(window.descriptor, load.sent + at, load.sends - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n > 0:
            at += n
        elif errno == EAGAIN:
            break
        elif errno != EINTR:
            end(load, window)
    load.sends = 0


cdef inline void receive(Load *load, Window *window) noexcept nogil:
    """Take what is there, a batch at most, and start as many."""
    cdef int k, n
    if not window.open:
        return
    if load.in_flight == 1:
        n = recv(window.descriptor, load.memory, ROOM, MSG_DONTWAIT)
        if n >= 0:
            load.received[0].msg_len, n = n, 1
    else:
        n = recvmmsg(window.descriptor, load.received, BATCH, MSG_DONTWAIT, NULL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            end(load, window)
        return
    load.now_ns = fn_now_ns()
    load.spin_until_ns = load.now_ns + load.busy_poll_ns
    for k in range(n):
        if window.open:
            check(load, window, <const unsigned char *>load.rooms[k].iov_base, load.received[k].msg_len)
    flush(load, window)


cdef inline void check(Load *load, Window *window, const unsigned char *data, size_t n) noexcept nogil:
    cdef uint64_t number = 0
    cdef uint32_t place
    cdef Flight *flight
    memcpy(&number, data, load.number_bytes if n > load.number_bytes else n)
    place = number % load.in_flight
    flight = &window.flights[place]
    if n != load.message_bytes or number > flight.number or (number == flight.number and not flight.out) or memcmp(
        data + load.number_bytes, load.pattern + place_of(load, window, number), n - load.number_bytes
    ):
        load.mismatches += 1
        end(load, window)
        return
    if number != flight.number:
        return  # late, or doubled on the way: it was counted once
    land(load, window, flight)
    if not load.draining:
        load.messages += 1
        load.bytes += n
        fn_hist_record(&load.latency_ns, load.now_ns - flight.started_ns, 1)
    start(load, window, place)


cdef void end(Load *load, Window *window) noexcept nogil:
    """Nobody is there, or a liar is. What was on its way is lost."""
    cdef uint32_t place
    window.open = False
    load.lost += window.outstanding
    load.outstanding -= window.outstanding
    window.outstanding = 0
    for place in range(load.in_flight):
        window.flights[place].out = False
    epoll_ctl(load.poll, EPOLL_CTL_DEL, window.descriptor, NULL)
