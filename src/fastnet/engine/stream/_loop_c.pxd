"""Readiness loop of the native epoll and select engines; each engine adds its poller.

Facts. epoll and select differ in how interest is kept and how ready descriptors are found, and in
nothing else.
Decision: a poller is three functions; accepting, events, accept backoff, idle timeouts and draining
stand here once. The functions are inline, so each engine's extension has its own compiled copy and
calls its poller once a batch and once for each change of interest. The pure twin is _loop_py.py,
function for function.

Tags say what a descriptor is. A connection's tag is its generation above its slot; slot 0 is never
a connection, so a tag with a zero low half is a listener, by index, or the stop request, one above
the last possible listener.
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnet.cdefs.accept cimport fn_accept_one, fn_accept_shutdown
from fastnet.cdefs.clock cimport fn_now_ms, fn_now_ns
from fastnet.cdefs.context cimport FN_LISTENERS_MAX, FN_NOW, FN_RUN, fn_context, fn_stop_state
from fastnet.cdefs.counters cimport FN_IDLE, FN_REFUSED, FN_STOPPED, fn_count
from fastnet.cdefs.slots cimport (
    FN_READ_INTEREST, FN_WRITE_INTEREST, fn_conn, fn_slots_allocate, fn_slots_find, fn_slots_tag,
)
from fastnet.cdefs.stream cimport (
    FN_CLOSE, FN_CLOSE_REASON, fn_stream, fn_stream_close, fn_stream_destroy, fn_stream_expired,
    fn_stream_init, fn_stream_interest, fn_stream_socket_error,
)
from fastnet.cdefs.stream_io cimport fn_stream_open, fn_stream_read, fn_stream_write
from fastnet.cdefs.sys cimport (
    EAGAIN, ECONNABORTED, EMFILE, ENOMEM, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, SOCK_NONBLOCK,
    epoll_event, sockaddr_storage,
)
from fastnet.cdefs.trace cimport fn_trace_open

cdef enum:
    STOP_TAG = FN_LISTENERS_MAX


cdef struct Poller:
    # Change the interest in fd, a set of FN_READ_INTEREST and FN_WRITE_INTEREST. Returns 0 or
    # -errno.
    int (*watch)(
        Poller *poller, int fd, uint32_t before, uint32_t interest, uint64_t tag
    ) noexcept nogil
    # fd is about to be closed.
    void (*forget)(Poller *poller, int fd) noexcept nogil
    # Wait and fill in tagged events. timeout_ms: -1 for ever. Returns their number or -errno.
    int (*wait)(Poller *poller, epoll_event *events, int room, int timeout_ms) noexcept nogil


cdef struct ReadinessLoop:
    fn_stream stream
    const fn_context *context
    Poller *poller
    epoll_event *events
    bint accepting             # the listeners are watched
    bint backing_off           # accepting pauses until accept_resume_ms, for lack of descriptors
    uint32_t accept_resume_ms
    bint draining              # the request to drain has been seen
    int accepts_left           # while draining: connections that may still be accepted
    bint listeners_shut        # the listeners are shut down


cdef inline uint64_t listener_tag(int which) noexcept nogil:
    return <uint64_t>which << 32


cdef inline bint is_listener(uint64_t tag) noexcept nogil:
    return <uint32_t>tag == 0 and tag != listener_tag(STOP_TAG)


cdef inline int set_accepting(ReadinessLoop *loop, int accepting) noexcept nogil:
    """Watch all listeners, or none. Returns 0 or -errno."""
    cdef int i, failed
    if loop.accepting == accepting or loop.listeners_shut:
        return 0
    loop.accepting = accepting
    for i in range(loop.context.listeners):
        failed = loop.poller.watch(
            loop.poller,
            loop.context.listener[i],
            0 if accepting else FN_READ_INTEREST,
            FN_READ_INTEREST if accepting else 0,
            listener_tag(i),
        )
        if failed:
            return failed
    return 0


cdef inline void close_connection(ReadinessLoop *loop, uint32_t slot, int result) noexcept nogil:
    """Close a connection whose handler returned FN_CLOSE, and release its slot."""
    loop.poller.forget(loop.poller, loop.stream.slots.conn[slot].fd)
    fn_stream_close(&loop.stream, slot, FN_CLOSE_REASON(result))


cdef inline void update_interest(ReadinessLoop *loop, uint32_t slot, int result) noexcept nogil:
    """After an event: close the connection, or watch for what it waits for now."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint32_t before = conn.flags & (FN_READ_INTEREST | FN_WRITE_INTEREST)
    cdef uint32_t interest
    cdef uint64_t tag
    if result == 0:
        interest = fn_stream_interest(&loop.stream, conn)
        if interest == before:
            return
        conn.flags = (conn.flags & ~<uint32_t>(FN_READ_INTEREST | FN_WRITE_INTEREST)) | interest
        tag = fn_slots_tag(&loop.stream.slots, slot)
        if loop.poller.watch(loop.poller, conn.fd, before, interest, tag) == 0:
            return
        result = FN_CLOSE(FN_REFUSED)
    close_connection(loop, slot, result)


cdef inline void open_connection(
    ReadinessLoop *loop, int fd, const sockaddr_storage *peer
) noexcept nogil:
    """Give an accepted connection a slot and send what the service produces first."""
    cdef uint32_t slot = fn_slots_allocate(&loop.stream.slots, fd, loop.stream.now_ms)
    if loop.stream.slots.trace != NULL:
        fn_trace_open(&loop.stream.slots.trace[slot], peer)
    update_interest(loop, slot, fn_stream_open(&loop.stream, &loop.stream.slots.conn[slot]))


cdef inline int accept_burst(ReadinessLoop *loop, int which) noexcept nogil:
    """Accept up to accept_burst connections. Returns 1 if the queue is empty, 0 if it may not be,
    or -errno if the listener is unusable.
    """
    cdef sockaddr_storage peer
    cdef int fd
    cdef uint32_t i
    for i in range(loop.context.accept_burst):
        if loop.stream.slots.open == loop.stream.slots.capacity:
            if loop.accepting:
                fn_count(&loop.stream.row.accept_pauses, 1)
            return set_accepting(loop, False)
        fd = fn_accept_one(loop.context, loop.context.listener[which], SOCK_NONBLOCK, &peer)
        if fd >= 0:
            open_connection(loop, fd, &peer)
        elif fd == -EAGAIN:
            return 1
        elif fd == -EMFILE:
            loop.backing_off = True
            loop.accept_resume_ms = fn_now_ms() + loop.context.accept_pause_ms
            return set_accepting(loop, False)
        elif fd != -ECONNABORTED:
            # after a stop request: another loop shut the shared listener down
            return fd if fn_stop_state(loop.context) == FN_RUN else 1
    return 0


cdef inline int resume_accepting(ReadinessLoop *loop) noexcept nogil:
    """Watch the listeners again once there is capacity. Returns 0 or -errno."""
    if loop.accepting or loop.stream.slots.open == loop.stream.slots.capacity:
        return 0
    if loop.backing_off and <int32_t>(loop.accept_resume_ms - loop.stream.now_ms) > 0:
        return 0
    loop.backing_off = False
    return set_accepting(loop, True)


cdef inline void handle_event(ReadinessLoop *loop, uint64_t tag, uint32_t ready) noexcept nogil:
    """A connection is ready: write, then read, then update what it waits for."""
    cdef fn_conn *conn = fn_slots_find(&loop.stream.slots, tag)
    cdef int result = 0
    if conn == NULL:
        return
    if ready & EPOLLOUT:
        result = fn_stream_write(&loop.stream, conn)
    if result == 0 and ready & (EPOLLIN | EPOLLERR | EPOLLHUP):
        if fn_stream_interest(&loop.stream, conn) & FN_READ_INTEREST:
            result = fn_stream_read(&loop.stream, conn)
        elif ready & (EPOLLERR | EPOLLHUP):
            result = fn_stream_socket_error(conn.fd)
    update_interest(loop, <uint32_t>tag, result)


cdef inline int drain_accept_queue(ReadinessLoop *loop) noexcept nogil:
    """Accept what is queued on the listeners, a burst at a time, then shut them down. Returns 0 or
    -errno.
    """
    cdef int i, state, emptied = 0
    for i in range(loop.context.listeners):
        state = accept_burst(loop, i)
        if state < 0:
            return state
        emptied += state
    loop.accepts_left -= loop.context.accept_burst
    if emptied == loop.context.listeners or loop.accepts_left <= 0:
        set_accepting(loop, False)
        loop.listeners_shut = True
        fn_accept_shutdown(loop.context)
    return 0


cdef inline int drain(ReadinessLoop *loop) noexcept nogil:
    """After a stop request: empty the accept queue, shut the listeners down. Returns 1 when the
    loop is done, else 0 or -errno.
    """
    cdef Poller *poller = loop.poller
    cdef int state
    if not loop.draining:
        loop.draining = True
        loop.accepts_left = loop.context.accept_drain_max
        poller.watch(poller, loop.context.drain_fd, FN_READ_INTEREST, 0, listener_tag(STOP_TAG))
        poller.watch(poller, loop.context.now_fd, 0, FN_READ_INTEREST, listener_tag(STOP_TAG))
    if fn_stop_state(loop.context) == FN_NOW:
        return 1
    if (
        not loop.listeners_shut
        and not loop.backing_off
        and loop.stream.slots.open < loop.stream.slots.capacity
    ):
        state = drain_accept_queue(loop)
        if state < 0:
            return state
    return loop.listeners_shut and loop.stream.slots.open == 0


cdef inline int poll_timeout_ms(ReadinessLoop *loop) noexcept nogil:
    """Close idle connections. Returns how long the poller may wait: until the next one expires, or
    the accept backoff ends; -1: for ever.
    """
    cdef int due
    cdef int32_t left
    cdef uint32_t slot = fn_stream_expired(&loop.stream, &due)
    while slot:
        close_connection(loop, slot, FN_CLOSE(FN_IDLE))
        slot = fn_stream_expired(&loop.stream, &due)
    if loop.backing_off:
        left = <int32_t>(loop.accept_resume_ms - loop.stream.now_ms)
        left = left if left > 0 else 0
        due = left if due < 0 or left < due else due
    return due


cdef inline int wait_events(ReadinessLoop *loop, int timeout_ms) noexcept nogil:
    """Wait for events; busy-polls for up to busy_poll_ns before blocking. Returns their number or
    -errno.
    """
    cdef Poller *poller = loop.poller
    cdef int room = loop.context.events_per_wait
    cdef int n
    cdef uint64_t until_ns
    if loop.context.busy_poll_ns and timeout_ms:
        until_ns = fn_now_ns() + loop.context.busy_poll_ns
        while True:
            n = poller.wait(poller, loop.events, room, 0)
            if n:
                fn_count(&loop.stream.row.busy_poll_hits, 1)
                return n
            if fn_now_ns() >= until_ns:
                break
        fn_count(&loop.stream.row.busy_poll_misses, 1)
    return poller.wait(poller, loop.events, room, timeout_ms)


cdef inline int serve(ReadinessLoop *loop) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef Poller *poller = loop.poller
    cdef int i, n, state
    cdef uint64_t tag
    state = poller.watch(
        poller, loop.context.drain_fd, 0, FN_READ_INTEREST, listener_tag(STOP_TAG)
    )
    if state == 0:
        state = set_accepting(loop, True)
    while state >= 0:
        n = wait_events(loop, poll_timeout_ms(loop))
        if n < 0:
            return n
        loop.stream.now_ms = fn_now_ms()
        for i in range(n):
            tag = loop.events[i].data.u64
            if <uint32_t>tag:
                handle_event(loop, tag, loop.events[i].events)
            elif is_listener(tag) and loop.accepting:
                state = accept_burst(loop, <int>(tag >> 32))
                if state < 0:
                    return state
        state = drain(loop) if fn_stop_state(loop.context) != FN_RUN else 0
        if state != 0:
            return state if state < 0 else 0
        if not loop.accepting:
            state = resume_accepting(loop)
    return state


cdef inline int run_loop(
    const fn_context *context, Poller *poller, uint32_t connections_max
) noexcept nogil:
    """Set up, serve, and close what is still open. Returns 0 or -errno."""
    cdef ReadinessLoop loop
    cdef uint32_t slot
    cdef int result
    memset(&loop, 0, sizeof(ReadinessLoop))
    loop.context = context
    loop.poller = poller
    result = fn_stream_init(&loop.stream, context, connections_max)
    loop.events = <epoll_event *>malloc(context.events_per_wait * sizeof(epoll_event))
    if loop.events == NULL:
        result = -ENOMEM
    if result == 0:
        result = serve(&loop)
        for slot in range(1, loop.stream.slots.used_max + 1):
            if loop.stream.slots.conn[slot].fd >= 0:
                close_connection(&loop, slot, FN_CLOSE(FN_STOPPED))
    fn_stream_destroy(&loop.stream)
    free(loop.events)
    return result
