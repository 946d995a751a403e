"""Event loop shared by the native load generators: phases, epoll(7), tally.

Facts. The phases of a load are warm-up, window and drain. The generators differ in what one
readable connection means, and in nothing else that a loop does.
Decision: a generator is a struct that begins with a LoadLoop, and a handful of hooks; phases,
waiting, busy polling and ticks stand here once. The functions are inline, so each extension holds
its own compiled copy and its hooks are called once an event. The loop returns to Python once in
TICK_S, for signals, and holds no GIL otherwise. The pure twin is load/_loop_py.py, function for
function.
Cost: an indirect call per ready connection.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastnet.cdefs.clock cimport fn_now_ns, fn_thread_cpu_ns
from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.hist cimport fn_hist, fn_hist_open, fn_hist_reset
from fastnet.cdefs.sys cimport (
    EINTR, EPOLL_CLOEXEC, EPOLLIN, close, epoll_create1, epoll_event, epoll_wait, errno,
)

cdef enum:
    LOAD_PHASE_OVER = 0
    LOAD_TICK = 1


cdef struct LoadLoop:
    # Hooks of the generator.
    # Start the first messages of every connection.
    void (*start)(LoadLoop *loop) noexcept nogil
    # Before each wait: connections to open anew. NULL: connections stay open.
    void (*reopen)(LoadLoop *loop) noexcept nogil
    # One connection is ready: at most one read and one write.
    void (*visit)(LoadLoop *loop, uint64_t number, uint32_t events) noexcept nogil
    # Once a tick: end connections that stalled, give up datagrams that were lost.
    void (*enforce_deadlines)(LoadLoop *loop) noexcept nogil
    # The window is closed, `draining` is set: half-close. NULL: nothing to do.
    void (*drain)(LoadLoop *loop) noexcept nogil

    int epoll
    epoll_event *events
    int events_per_wait
    int connections         # of the plan
    uint64_t pending        # connections or datagrams that the phase waits for; at 0 it is over
    bint draining           # the window is closed: no message is started or counted

    const unsigned char *pattern
    size_t pattern_bytes    # a period and one read
    size_t pattern_period
    uint64_t message_bytes

    uint64_t now_ns
    uint64_t next_tick_ns
    uint64_t tick_ns
    uint64_t stall_ns
    uint64_t busy_poll_ns
    uint64_t busy_poll_until_ns

    uint64_t messages       # load/contract.py, Tally, says what each of these counts
    uint64_t bytes
    uint64_t mismatches
    uint64_t lost
    uint64_t stalled
    uint64_t refused
    fn_hist latency_ns
    Py_buffer counts        # memory of latency_ns; belongs to the tally


cdef inline int load_loop_open(LoadLoop *loop, plan, bytes pattern, tally) except -1:
    """Copy the plan's numbers and make the epoll set. The caller keeps `pattern` alive."""
    from fastnet.limits import EVENTS_PER_WAIT, TICK_S
    from fastnet.load.contract import NS_PER_S, PATTERN_PERIOD
    from fastnet.metrics.histogram import SUB_BUCKET_BITS

    loop.epoll = -1
    PyObject_GetBuffer(tally.latency_ns.counts, &loop.counts, PyBUF_SIMPLE | PyBUF_WRITABLE)
    raise_errno(fn_hist_open(
        &loop.latency_ns, <uint64_t *>loop.counts.buf, loop.counts.len // sizeof(uint64_t),
        SUB_BUCKET_BITS,
    ))
    loop.connections = plan.connections
    loop.pattern = pattern
    loop.pattern_bytes = len(pattern)
    loop.pattern_period = PATTERN_PERIOD
    loop.message_bytes = plan.message_bytes
    loop.tick_ns = round(TICK_S * NS_PER_S)
    loop.stall_ns = round(plan.stall_s * NS_PER_S)
    loop.busy_poll_ns = plan.busy_poll_us * 1000
    loop.events_per_wait = EVENTS_PER_WAIT
    loop.events = <epoll_event *>calloc(loop.events_per_wait, sizeof(epoll_event))
    if loop.events == NULL:
        raise MemoryError()
    loop.epoll = epoll_create1(EPOLL_CLOEXEC)
    return raise_errno(-errno if loop.epoll < 0 else 0)


cdef inline void load_loop_close(LoadLoop *loop) noexcept:
    """Also after load_loop_open has raised."""
    if loop.counts.buf == NULL:
        return
    free(loop.events)
    if loop.epoll >= 0:
        close(loop.epoll)
    PyBuffer_Release(&loop.counts)


cdef inline int load_loop_run(LoadLoop *loop, plan, on_edge, tally) except -1:
    """Warm-up, window and drain; the counts go to `tally`."""
    from fastnet.load.contract import NS_PER_S

    cdef uint64_t opened_ns, cpu_ns, until_ns = <uint64_t>-1  # no deadline
    if plan.warmup_s:
        loop.start(loop)
        load_loop_run_until(loop, fn_now_ns() + <uint64_t>round(plan.warmup_s * NS_PER_S))
    on_edge()
    load_loop_reset(loop)
    cpu_ns = fn_thread_cpu_ns()
    opened_ns = loop.now_ns = fn_now_ns()
    if not plan.warmup_s:
        loop.start(loop)
    if plan.seconds:
        until_ns = opened_ns + <uint64_t>round(plan.seconds * NS_PER_S)
    load_loop_run_until(loop, until_ns)
    tally.window_ns = loop.now_ns - opened_ns
    tally.cpu_ns = fn_thread_cpu_ns() - cpu_ns
    on_edge()
    loop.draining = True
    if loop.drain != NULL:
        loop.drain(loop)
    load_loop_run_until(loop, <uint64_t>-1)
    return load_loop_report(loop, tally)


cdef inline void load_loop_reset(LoadLoop *loop) noexcept nogil:
    """Discard what the warm-up has counted; its faults stay counted."""
    loop.messages = 0
    loop.bytes = 0
    fn_hist_reset(&loop.latency_ns)


cdef inline int load_loop_report(LoadLoop *loop, tally) except -1:
    tally.messages = loop.messages
    tally.bytes = loop.bytes
    tally.mismatches = loop.mismatches
    tally.lost = loop.lost
    tally.stalled = loop.stalled
    tally.refused = loop.refused
    tally.latency_ns.total = loop.latency_ns.total
    tally.latency_ns.sum = loop.latency_ns.sum
    tally.latency_ns.max = loop.latency_ns.max
    return 0


cdef inline int load_loop_run_until(LoadLoop *loop, uint64_t until_ns) except -1:
    """Handle events until the deadline, or until nothing is pending."""
    cdef int status
    while True:
        with nogil:
            status = load_loop_handle_events(loop, until_ns)
        if raise_errno(status) == LOAD_PHASE_OVER:
            return 0
        PyErr_CheckSignals()
        loop.enforce_deadlines(loop)


cdef inline int load_loop_handle_events(LoadLoop *loop, uint64_t until_ns) noexcept nogil:
    """Returns LOAD_TICK after a tick, LOAD_PHASE_OVER when the phase is over, or -errno."""
    cdef int ready, k
    while True:
        loop.now_ns = fn_now_ns()
        if loop.reopen != NULL:
            loop.reopen(loop)
        if loop.now_ns >= until_ns or not loop.pending:
            return LOAD_PHASE_OVER
        if loop.now_ns >= loop.next_tick_ns:
            loop.next_tick_ns = loop.now_ns + loop.tick_ns
            return LOAD_TICK
        if loop.now_ns < loop.busy_poll_until_ns and loop.connections == 1:
            loop.visit(loop, 0, EPOLLIN)  # the only connection: saves an epoll_wait(2)
            continue
        ready = epoll_wait(
            loop.epoll, loop.events, loop.events_per_wait, load_loop_timeout_ms(loop, until_ns)
        )
        if ready < 0 and errno != EINTR:
            return -errno
        for k in range(ready):
            loop.visit(loop, loop.events[k].data.u64, loop.events[k].events)
            if loop.now_ns >= until_ns:
                return LOAD_PHASE_OVER


cdef inline int load_loop_timeout_ms(LoadLoop *loop, uint64_t until_ns) noexcept nogil:
    """How long epoll_wait(2) may block; 0 while busy polling."""
    cdef uint64_t wait_ns
    if loop.now_ns < loop.busy_poll_until_ns:
        return 0
    wait_ns = min(loop.next_tick_ns, until_ns) - loop.now_ns
    return <int>((wait_ns + 999999) // 1000000)


cdef inline void load_loop_received(LoadLoop *loop) noexcept nogil:
    """Something was read: take the time, and busy-poll from now on."""
    loop.now_ns = fn_now_ns()
    loop.busy_poll_until_ns = loop.now_ns + loop.busy_poll_ns
