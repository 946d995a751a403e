"""The loop of every native engine that waits for readiness; the poller that waits is the engine's
own
file.

Facts. epoll and select differ in how interest is kept and how ready descriptors are found, and in
nothing else.
Decision: a poller is three functions; accepting, turns, pauses, expiry and draining stand here
once. The functions are inline, so each engine's extension holds its own compiled copy and calls its
poller once a batch and once for each change of interest. The pure twin is
engine/stream/_loop_py.py, function for function.

Tags say what a descriptor is. A connection's tag is its generation above its slot; slot 0 is never
a connection, so a tag with a zero low half is a listener, by index, or the request to stop, one
above the last possible listener.
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnet.cdefs.accept cimport fn_accept
from fastnet.cdefs.clock cimport fn_now_ms, fn_now_ns
from fastnet.cdefs.context cimport FN_LISTENERS_MAX, FN_NOW, FN_RUN, fn_context, fn_stop_state
from fastnet.cdefs.counters cimport FN_IDLE, FN_REFUSED, FN_STOPPED, fn_count
from fastnet.cdefs.slots cimport FN_READS, FN_WRITES, fn_conn, fn_slot_of, fn_slot_tag, fn_slot_take
from fastnet.cdefs.stream cimport (
    FN_CLOSE, FN_WHY, fn_socket_close, fn_stream, fn_stream_close, fn_stream_finish, fn_stream_open,
    fn_stream_overdue, fn_stream_read, fn_stream_start, fn_stream_wants, fn_stream_write,
)
from fastnet.cdefs.sys cimport (
    EAGAIN, ECONNABORTED, EMFILE, ENOMEM, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, SHUT_RDWR,
    SOCK_NONBLOCK, epoll_event, shutdown, sockaddr_storage,
)
from fastnet.cdefs.trace cimport fn_trace_open

cdef enum:
    STOP_TAG = FN_LISTENERS_MAX


cdef struct Poller:
    # Change what fd is watched for from `before` to `wants`, sets of FN_READS and FN_WRITES.
    # Returns 0 or -errno.
    int (*watch)(Poller *poller, int fd, uint32_t before, uint32_t wants, uint64_t tag) noexcept nogil
    # fd is about to be closed.
    void (*forget)(Poller *poller, int fd) noexcept nogil
    # Wait and fill in tagged events. timeout_ms: -1 for ever. Returns their number or -errno.
    int (*wait)(Poller *poller, epoll_event *events, int room, int timeout_ms) noexcept nogil


cdef struct Loop:
    fn_stream stream
    const fn_context *context
    Poller *poller
    epoll_event *events
    int accepting          # the listeners are watched
    int resting            # accepting pauses for lack of descriptors, until rest_over_ms
    uint32_t rest_over_ms
    int draining
    int sweep              # connections that may still be taken while draining
    int swept              # the listeners are shut down


cdef inline uint64_t listener_tag(int which) noexcept nogil:
    return <uint64_t>which << 32


cdef inline bint is_listener(uint64_t tag) noexcept nogil:
    return <uint32_t>tag == 0 and tag != listener_tag(STOP_TAG)


cdef inline int set_accepting(Loop *loop, int accepting) noexcept nogil:
    """Watch all listeners, or none."""
    cdef int i, failed
    if loop.accepting == accepting or loop.swept:
        return 0
    loop.accepting = accepting
    for i in range(loop.context.listeners):
        failed = loop.poller.watch(
            loop.poller, loop.context.listener[i], 0 if accepting else FN_READS, FN_READS if accepting else 0, listener_tag(i)
        )
        if failed:
            return failed
    return 0


cdef inline void end(Loop *loop, uint32_t slot, int turn) noexcept nogil:
    """Close a connection whose turn returned FN_CLOSE. Its place is free again."""
    loop.poller.forget(loop.poller, loop.stream.slots.conn[slot].fd)
    fn_stream_close(&loop.stream, slot, FN_WHY(turn))


cdef inline void settle(Loop *loop, uint32_t slot, int turn) noexcept nogil:
    """After a turn: close the connection, or watch for what it waits for now."""
    cdef fn_conn *conn = &loop.stream.slots.conn[slot]
    cdef uint32_t before = conn.flags & (FN_READS | FN_WRITES)
    cdef uint32_t wants
    if turn == 0:
        wants = fn_stream_wants(&loop.stream, conn)
        if wants == before:
            return
        conn.flags = (conn.flags & ~<uint32_t>(FN_READS | FN_WRITES)) | wants
        if loop.poller.watch(loop.poller, conn.fd, before, wants, fn_slot_tag(&loop.stream.slots, slot)) == 0:
            return
        turn = FN_CLOSE(FN_REFUSED)
    end(loop, slot, turn)


cdef inline void begin(Loop *loop, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Give an accepted connection a slot and its first turn."""
    cdef uint32_t slot = fn_slot_take(&loop.stream.slots, fd, loop.stream.now_ms)
    if loop.stream.slots.trace != NULL:
        fn_trace_open(&loop.stream.slots.trace[slot], peer)
    settle(loop, slot, fn_stream_open(&loop.stream, &loop.stream.slots.conn[slot]))


cdef inline int accept_some(Loop *loop, int which, int most) noexcept nogil:
    """Accept up to `most`. Returns 1 if nobody waits any more, 0 if somebody may, or -errno if the
    listener is unusable.
    """
    cdef sockaddr_storage peer
    cdef int fd, i
    for i in range(most):
        if loop.stream.slots.open == loop.stream.slots.capacity:
            if loop.accepting:
                fn_count(&loop.stream.row.accept_pauses, 1)
            return set_accepting(loop, False)
        fd = fn_accept(loop.context, loop.context.listener[which], SOCK_NONBLOCK, &peer)
        if fd >= 0:
            begin(loop, fd, &peer)
        elif fd == -EAGAIN:
            return 1
        elif fd == -EMFILE:
            loop.resting = True
            loop.rest_over_ms = fn_now_ms() + loop.context.accept_pause_ms
            return set_accepting(loop, False)
        elif fd != -ECONNABORTED:
            # another loop shut a shared listener down
            return fd if fn_stop_state(loop.context) == FN_RUN else 1
    return 0


cdef inline int resume_accepting(Loop *loop) noexcept nogil:
    """Watch the listeners again once the reason for the pause is over."""
    if loop.accepting or loop.stream.slots.open == loop.stream.slots.capacity:
        return 0
    if loop.resting and <int32_t>(loop.rest_over_ms - loop.stream.now_ms) > 0:
        return 0
    loop.resting = False
    return set_accepting(loop, True)


cdef inline void turn(Loop *loop, uint64_t tag, uint32_t ready) noexcept nogil:
    """One connection's turn."""
    cdef fn_conn *conn = fn_slot_of(&loop.stream.slots, tag)
    cdef int result = 0
    if conn == NULL:
        return
    if ready & EPOLLOUT:
        result = fn_stream_write(&loop.stream, conn)
    if result == 0 and ready & (EPOLLIN | EPOLLERR | EPOLLHUP):
        if fn_stream_wants(&loop.stream, conn) & FN_READS:
            result = fn_stream_read(&loop.stream, conn)
        elif ready & (EPOLLERR | EPOLLHUP):
            result = fn_socket_close(conn.fd)
    settle(loop, <uint32_t>tag, result)


cdef inline int drain(Loop *loop) noexcept nogil:
    """Once asked to stop: take what is queued, then shut the listeners. Returns 1 when the loop is
    done, else 0 or -errno.
    """
    cdef int i, state, emptied = 0
    if not loop.draining:
        loop.draining = True
        loop.sweep = loop.context.accept_drain_max
        loop.poller.watch(loop.poller, loop.context.drain_fd, FN_READS, 0, listener_tag(STOP_TAG))
        loop.poller.watch(loop.poller, loop.context.now_fd, 0, FN_READS, listener_tag(STOP_TAG))
    if fn_stop_state(loop.context) == FN_NOW:
        return 1
    if not loop.swept and not loop.resting and loop.stream.slots.open < loop.stream.slots.capacity:
        for i in range(loop.context.listeners):
            state = accept_some(loop, i, loop.context.accept_burst)
            if state < 0:
                return state
            emptied += state
        loop.sweep -= loop.context.accept_burst
        if emptied == loop.context.listeners or loop.sweep <= 0:
            set_accepting(loop, False)
            loop.swept = True
            for i in range(loop.context.listeners):
                shutdown(loop.context.listener[i], SHUT_RDWR)
    return loop.swept and loop.stream.slots.open == 0


cdef inline int patience_ms(Loop *loop) noexcept nogil:
    """Close what has been idle too long. How long the poller may wait: until the next one is, or
    accepting has rested.
    """
    cdef int due
    cdef int32_t rest
    cdef uint32_t overdue = fn_stream_overdue(&loop.stream, &due)
    while overdue:
        end(loop, overdue, FN_CLOSE(FN_IDLE))
        overdue = fn_stream_overdue(&loop.stream, &due)
    if loop.resting:
        rest = <int32_t>(loop.rest_over_ms - loop.stream.now_ms)
        rest = rest if rest > 0 else 0
        due = rest if due < 0 or rest < due else due
    return due


cdef inline int wait(Loop *loop, int timeout_ms) noexcept nogil:
    """Wait for events; first without sleeping, for as long as busy polling allows. Returns their
    number or -errno.
    """
    cdef int n
    cdef uint64_t until_ns
    if loop.context.busy_poll_ns and timeout_ms:
        until_ns = fn_now_ns() + loop.context.busy_poll_ns
        while True:
            n = loop.poller.wait(loop.poller, loop.events, loop.context.events_per_wait, 0)
            if n:
                fn_count(&loop.stream.row.busy_poll_hits, 1)
                return n
            if fn_now_ns() >= until_ns:
                break
        fn_count(&loop.stream.row.busy_poll_misses, 1)
    return loop.poller.wait(loop.poller, loop.events, loop.context.events_per_wait, timeout_ms)


cdef inline int serve(Loop *loop) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef int i, n, state
    cdef uint64_t tag
    state = loop.poller.watch(loop.poller, loop.context.drain_fd, 0, FN_READS, listener_tag(STOP_TAG))
    if state == 0:
        state = set_accepting(loop, True)
    while state >= 0:
        n = wait(loop, patience_ms(loop))
        if n < 0:
            return n
        loop.stream.now_ms = fn_now_ms()
        for i in range(n):
            tag = loop.events[i].data.u64
            if <uint32_t>tag:
                turn(loop, tag, loop.events[i].events)
            elif is_listener(tag) and loop.accepting:
                state = accept_some(loop, <int>(tag >> 32), loop.context.accept_burst)
                if state < 0:
                    return state
        state = drain(loop) if fn_stop_state(loop.context) != FN_RUN else 0
        if state != 0:
            return state if state < 0 else 0
        if not loop.accepting:
            state = resume_accepting(loop)
    return state


cdef inline int run_loop(const fn_context *context, Poller *poller, uint32_t capacity) noexcept nogil:
    """Set up, serve, and close whatever is still open. Returns 0 or -errno."""
    cdef Loop loop
    cdef uint32_t slot
    cdef int result
    memset(&loop, 0, sizeof(Loop))
    loop.context, loop.poller = context, poller
    result = fn_stream_start(&loop.stream, context, capacity)
    loop.events = <epoll_event *>malloc(context.events_per_wait * sizeof(epoll_event))
    if loop.events == NULL:
        result = -ENOMEM
    if result == 0:
        result = serve(&loop)
        for slot in range(1, loop.stream.slots.touched + 1):
            if loop.stream.slots.conn[slot].fd >= 0:
                end(&loop, slot, FN_CLOSE(FN_STOPPED))
    fn_stream_finish(&loop.stream)
    free(loop.events)
    return result
