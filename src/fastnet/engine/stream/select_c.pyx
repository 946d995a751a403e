"""Wait with select(2): two bitmaps, copied and scanned on every wait.

Facts. An fd_set has FD_SETSIZE bits, 1024 since glibc was compiled; FD_SET on a higher descriptor
writes past its end. The kernel scans every bit up to the highest descriptor, on every call.
Consequence: the cost of a wait grows with the highest descriptor, not with what is ready, and there
is a hard bound.
Decision: the bound is the connection limit, minus the descriptors the process already has; at the
limit accepting pauses as at any other. A connection whose descriptor is too high all the same is
turned away, counted, never FD_SET.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastnet._errno_c cimport raise_errno
from fastnet.engine.stream._loop_c cimport Poller, run_loop
from fastnet.cdefs.slots cimport FN_READS, FN_WRITES
from fastnet.cdefs.sys cimport (
    EMFILE, EPOLLIN, EPOLLOUT, FD_CLR, FD_ISSET, FD_SET, FD_SETSIZE, epoll_event, fd_set, fn_select,
)
from fastnet.engine.context_c cimport NativeLoopContext


cdef struct Select:
    Poller poller
    fd_set reads
    fd_set writes
    int bound                       # one more than the highest descriptor watched
    # where the next scan starts, so that high descriptors are not starved
    int next                      
    uint64_t tag[FD_SETSIZE]


cdef int watch(Poller *poller, int fd, uint32_t before, uint32_t wants, uint64_t tag) noexcept nogil:
    cdef Select *select = <Select *>poller
    if fd >= FD_SETSIZE:
        return -EMFILE
    select.tag[fd] = tag
    forget(poller, fd)
    if wants & FN_READS:
        FD_SET(fd, &select.reads)
    if wants & FN_WRITES:
        FD_SET(fd, &select.writes)
    if fd >= select.bound:
        select.bound = fd + 1
    return 0


cdef void forget(Poller *poller, int fd) noexcept nogil:
    cdef Select *select = <Select *>poller
    if fd < FD_SETSIZE:
        FD_CLR(fd, &select.reads)
        FD_CLR(fd, &select.writes)


cdef int wait(Poller *poller, epoll_event *events, int room, int timeout_ms) noexcept nogil:
    cdef Select *select = <Select *>poller
    cdef fd_set reads = select.reads
    cdef fd_set writes = select.writes
    cdef int ready = fn_select(select.bound, &reads, &writes, timeout_ms)
    cdef int i, fd = 0, found = 0
    cdef uint32_t seen
    if ready < 0:
        return ready
    for i in range(select.bound):
        if ready <= 0 or found == room:
            break
        fd = (select.next + i) % select.bound
        seen = (EPOLLIN if FD_ISSET(fd, &reads) else 0) | (EPOLLOUT if FD_ISSET(fd, &writes) else 0)
        if seen:
            events[found].events = seen
            events[found].data.u64 = select.tag[fd]
            found += 1
            ready -= 2 if seen == (EPOLLIN | EPOLLOUT) else 1
    if found == room:
        select.next = (fd + 1) % select.bound
    return found


def run(context):
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Select select
    cdef int result
    memset(&select, 0, sizeof(Select))
    select.poller = Poller(watch=watch, forget=forget, wait=wait)
    with nogil:
        result = run_loop(&native.c, &select.poller, native.c.max_connections)
    raise_errno(result)
