"""A process for each connection; the parent accepts, the child serves one peer and exits.

Facts. A child that dies stays a zombie until its parent waits for it; the textbook's SIGCHLD
handler does that for the whole process, steals the exit status of children it did not make, and
several deaths may share one signal. A pidfd becomes readable when its process ends, can sit in an
epoll set and names exactly that child (pidfd_open(2), Linux 5.3). After fork(2) in a process with
threads the child may call only async-signal-safe functions (signal-safety(7)).
Decision: no SIGCHLD handler; an epoll set of pidfds, itself polled beside the listener. The child
runs C only: no Python, no malloc, its buffer was allocated before, its counters are in shared
memory, it ends with _exit. Signals sent to the whole group (Ctrl-C, a service manager) are the
parent's business; children obey the shared stop word.
Cost: a fork and a descriptor in the parent for each connection; a killed child costs its own
connection, counted `killed`.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_acceptor, fn_acceptor_next, fn_acceptor_open, fn_turn_away
from fastnet.cdefs.blocking cimport fn_serve
from fastnet.cdefs.child cimport (
    fn_child_keep_only, fn_child_reap, fn_child_signals, fn_exit, fn_fork,
)
from fastnet.cdefs.context cimport fn_context, fn_row
from fastnet.cdefs.counters cimport FN_KILLED, FN_REFUSED, fn_count_closed
from fastnet.cdefs.sys cimport (
    EAGAIN, ENOMEM, EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, ESHUTDOWN, close,
    epoll_create1, epoll_event, fn_epoll_set, fn_epoll_wait, fn_pidfd_open, sockaddr_storage,
)
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext

cdef struct Child:
    int pid
    int pidfd
    uint32_t next_free    # chains the places without a child

cdef struct Nursery:
    const fn_context *context
    int deaths            # epoll set of all pidfds
    Child *child          # context.max_connections places; place i counts into row i + 1
    uint32_t alive
    uint32_t free
    char *buffer          # each child has its own copy from the moment it writes to it


cdef void reap(Nursery *nursery, int timeout_ms) noexcept nogil:
    """Wait for each child that has ended and free its place."""
    cdef epoll_event ended[64]
    cdef int i, n = fn_epoll_wait(nursery.deaths, ended, 64, timeout_ms)
    cdef Child *child
    for i in range(n):
        child = &nursery.child[ended[i].data.u64]
        if fn_child_reap(child.pid):
            fn_count_closed(fn_row(nursery.context, 0), FN_KILLED)
        # A sibling just forked may still hold a copy, and only the last one's close would take it
        # out of the set.
        fn_epoll_set(nursery.deaths, EPOLL_CTL_DEL, child.pidfd, 0, 0)
        close(child.pidfd)
        child.next_free = nursery.free
        nursery.free = <uint32_t>ended[i].data.u64
        nursery.alive -= 1


cdef void be_child(Nursery *nursery, uint32_t place, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Serve one connection in the new process. Does not return."""
    fn_child_signals()
    fn_child_keep_only(fd, nursery.context.trace_fd)
    fn_serve(nursery.context, fn_row(nursery.context, place + 1), fd, peer, nursery.buffer)
    fn_exit(0)


cdef void spawn(Nursery *nursery, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Fork a child for fd. Without one to be had the connection is turned away."""
    cdef uint32_t place = nursery.free
    cdef Child *child = &nursery.child[place]
    child.pid = fn_fork()
    if child.pid == 0:
        be_child(nursery, place, fd, peer)
    if child.pid < 0:
        fn_turn_away(nursery.context, fd, peer, FN_REFUSED)
        return
    close(fd)
    nursery.free = child.next_free
    nursery.alive += 1
    child.pidfd = fn_pidfd_open(child.pid)
    if child.pidfd < 0 or fn_epoll_set(nursery.deaths, EPOLL_CTL_ADD, child.pidfd, EPOLLIN, place) < 0:
        # Out of descriptors: nothing would tell us of its end, so see it out now.
        if fn_child_reap(child.pid):
            fn_count_closed(fn_row(nursery.context, 0), FN_KILLED)
        if child.pidfd >= 0:
            close(child.pidfd)
        child.next_free = nursery.free
        nursery.free = place
        nursery.alive -= 1


cdef int serve(Nursery *nursery) noexcept nogil:
    cdef fn_acceptor acceptor = fn_acceptor_open(nursery.context, nursery.deaths)
    cdef sockaddr_storage peer
    cdef int fd
    while True:
        acceptor.full = nursery.alive == nursery.context.max_connections
        fd = fn_acceptor_next(&acceptor, &peer)
        if fd >= 0:
            spawn(nursery, fd, &peer)
        elif fd == -EAGAIN:
            reap(nursery, 0)
        else:
            while nursery.alive:
                reap(nursery, -1)
            return 0 if fd == -ESHUTDOWN else fd


def run(context):
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Nursery nursery
    cdef uint32_t i, places = native.c.max_connections
    cdef int result = -ENOMEM
    nursery.context, nursery.alive, nursery.free = &native.c, 0, 0
    nursery.deaths = raise_errno(epoll_create1(EPOLL_CLOEXEC))
    with nogil:
        nursery.child = <Child *>malloc(places * sizeof(Child))
        nursery.buffer = <char *>malloc(native.c.read_bytes)
        if nursery.child != NULL and nursery.buffer != NULL:
            for i in range(places):
                nursery.child[i].next_free = i + 1
            result = serve(&nursery)
        free(nursery.child)
        free(nursery.buffer)
        close(nursery.deaths)
    raise_errno(result)
