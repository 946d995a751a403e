"""epoll(7) poller, level-triggered.

Facts. A level-triggered descriptor is reported on every wait until it is drained, and a closed one
leaves the set by itself. Several loops may watch one listener, as they must for a Unix socket;
EPOLLEXCLUSIVE then wakes one, not all.
Decision: one read an event, which saves the EAGAIN that an edge-triggered loop must see before it
may sleep. Descriptors are added once, with their tag as data. Listeners are added exclusively, and
removed while accepting pauses, because an exclusive entry cannot be modified (epoll_ctl(2)). The
stop eventfd is not exclusive: it must wake all loops.
Not taken: EPOLLET (one more read an event), EPOLLONESHOT (an epoll_ctl an event).
Cost: one epoll_ctl a connection, and two more each time a peer stops reading and resumes.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastnet._errno_c cimport raise_errno
from fastnet.engine.stream._loop_c cimport Poller, is_listener, run_loop
from fastnet.cdefs.slots cimport FN_READ_INTEREST, FN_WRITE_INTEREST
from fastnet.cdefs.sys cimport (
    EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD,
    close, epoll_create1, epoll_event, fn_epoll_set, fn_epoll_wait,
)
from fastnet.engine.context_c cimport NativeLoopContext


cdef struct Epoll:
    Poller poller  # first, so that a Poller * is an Epoll *
    int fd         # of epoll_create1(2)


cdef int watch(
    Poller *poller, int fd, uint32_t before, uint32_t interest, uint64_t tag
) noexcept nogil:
    cdef int epoll = (<Epoll *>poller).fd
    cdef uint32_t events = 0
    if interest == 0:
        return fn_epoll_set(epoll, EPOLL_CTL_DEL, fd, 0, tag)
    if interest & FN_READ_INTEREST:
        events |= EPOLLIN
    if interest & FN_WRITE_INTEREST:
        events |= EPOLLOUT
    if before:
        return fn_epoll_set(epoll, EPOLL_CTL_MOD, fd, events, tag)
    if is_listener(tag):
        events |= EPOLLEXCLUSIVE
    return fn_epoll_set(epoll, EPOLL_CTL_ADD, fd, events, tag)


cdef void forget(Poller *poller, int fd) noexcept nogil:
    pass


cdef int wait(Poller *poller, epoll_event *events, int room, int timeout_ms) noexcept nogil:
    return fn_epoll_wait((<Epoll *>poller).fd, events, room, timeout_ms)


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Epoll epoll
    cdef int result
    epoll.poller = Poller(watch=watch, forget=forget, wait=wait)
    epoll.fd = raise_errno(epoll_create1(EPOLL_CLOEXEC))
    with nogil:
        result = run_loop(&native.c, &epoll.poller, native.c.max_connections)
        close(epoll.fd)
    raise_errno(result)
