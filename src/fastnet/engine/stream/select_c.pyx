"""select(2) poller: two bitmaps, copied and scanned on every wait.

Facts. An fd_set has FD_SETSIZE bits, 1024 since glibc was compiled; FD_SET on a higher descriptor
writes past its end. The kernel scans every bit up to the highest descriptor, on every call, so the
cost of a wait grows with the highest descriptor and not with what is ready.
Decision: FD_SETSIZE minus the descriptors the process already has is the connection limit; at the
limit accepting pauses as at any other. A connection whose descriptor is too high all the same is
rejected and counted, never FD_SET.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastnet._errno_c cimport raise_errno
from fastnet.engine.stream._loop_c cimport Poller, run_loop
from fastnet.cdefs.slots cimport FN_READ_INTEREST, FN_WRITE_INTEREST
from fastnet.cdefs.sys cimport (
    EMFILE, EPOLLIN, EPOLLOUT, FD_CLR, FD_ISSET, FD_SET, FD_SETSIZE, epoll_event, fd_set, fn_select,
)
from fastnet.engine.context_c cimport NativeLoopContext


cdef struct Select:
    Poller poller             # first, so that a Poller * is a Select *
    fd_set reads              # descriptors with read interest
    fd_set writes             # descriptors with write interest
    int bound                 # one more than the highest descriptor watched
    int next_fd               # where the next scan starts, so that high descriptors do not starve
    uint64_t tag[FD_SETSIZE]  # by descriptor


cdef int watch(
    Poller *poller, int fd, uint32_t before, uint32_t interest, uint64_t tag
) noexcept nogil:
    cdef Select *select = <Select *>poller
    if fd >= FD_SETSIZE:
        return -EMFILE
    select.tag[fd] = tag
    forget(poller, fd)
    if interest & FN_READ_INTEREST:
        FD_SET(fd, &select.reads)
    if interest & FN_WRITE_INTEREST:
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
        fd = (select.next_fd + i) % select.bound
        seen = 0
        if FD_ISSET(fd, &reads):
            seen |= EPOLLIN
            ready -= 1
        if FD_ISSET(fd, &writes):
            seen |= EPOLLOUT
            ready -= 1
        if seen:
            events[found].events = seen
            events[found].data.u64 = select.tag[fd]
            found += 1
    if found == room:
        select.next_fd = (fd + 1) % select.bound
    return found


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Select select
    cdef int result
    memset(&select, 0, sizeof(Select))
    select.poller = Poller(watch=watch, forget=forget, wait=wait)
    with nogil:
        result = run_loop(&native.c, &select.poller, native.c.max_connections)
    raise_errno(result)
