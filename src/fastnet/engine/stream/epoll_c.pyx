"""Wait with epoll(7), level-triggered.

Facts. A level-triggered descriptor is reported on every wait until it is drained, and a closed one
leaves the set by itself. Several loops may watch one listener, as they must for a Unix socket;
EPOLLEXCLUSIVE then wakes one, not all.
Consequence: one read an event is enough, and the EAGAIN that an edge-triggered loop needs before it
may sleep is saved.
Decision: descriptors are added once, with our tag as data; listeners are added exclusively, and
removed while accepting pauses because an exclusive entry cannot be modified (epoll_ctl(2)). The
request to stop is not: it must wake all.
Cost: one epoll_ctl a connection, and two more each time a peer stops reading and resumes.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastnet._errno_c cimport raise_errno
from fastnet.engine.stream._loop_c cimport Poller, is_listener, run_loop
from fastnet.cdefs.slots cimport FN_READS, FN_WRITES
from fastnet.cdefs.sys cimport (
    EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD,
    close, epoll_create1, epoll_event, fn_epoll_set, fn_epoll_wait,
)
from fastnet.engine.context_c cimport NativeLoopContext


cdef struct Epoll:
    Poller poller
    int fd


cdef int watch(Poller *poller, int fd, uint32_t before, uint32_t wants, uint64_t tag) noexcept nogil:
    cdef int epoll = (<Epoll *>poller).fd
    cdef uint32_t events = (EPOLLIN if wants & FN_READS else 0) | (EPOLLOUT if wants & FN_WRITES else 0)
    if wants == 0:
        return fn_epoll_set(epoll, EPOLL_CTL_DEL, fd, 0, tag)
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
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Epoll epoll
    cdef int result
    epoll.poller = Poller(watch=watch, forget=forget, wait=wait)
    epoll.fd = raise_errno(epoll_create1(EPOLL_CLOEXEC))
    with nogil:
        result = run_loop(&native.c, &epoll.poller, native.c.max_connections)
        close(epoll.fd)
    raise_errno(result)
