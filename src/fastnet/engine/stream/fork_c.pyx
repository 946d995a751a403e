"""A process for each connection: the parent accepts, the child serves one peer and exits.

Facts. A child that has exited stays a zombie until its parent waits for it; the textbook's SIGCHLD
handler does that for the whole process, takes the exit status of children it did not make, and
several exits may share one signal. A pidfd becomes readable when its process exits, can be in an
epoll set and names exactly that child (pidfd_open(2), Linux 5.3). After fork(2) in a process with
threads the child may call only async-signal-safe functions (signal-safety(7)).
Decision: no SIGCHLD handler; an epoll set of pidfds, itself polled beside the listener. The child
runs C only: no Python, no malloc, its buffer was allocated before, its counters are in shared
memory, it ends with _exit. Signals sent to the process group (Ctrl-C, a service manager) are the
parent's decision; children obey the shared stop word.
Cost: a fork and a descriptor in the parent for each connection; a killed child costs its own
connection, counted `killed`.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_accept_reject, fn_acceptor, fn_acceptor_init, fn_acceptor_next
from fastnet.cdefs.blocking cimport fn_blocking_serve
from fastnet.cdefs.child cimport (
    fn_child_exit, fn_child_fork, fn_child_keep_only, fn_child_reap, fn_child_reset_signals,
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
    uint32_t next_free    # next slot of the free list

cdef struct ChildTable:
    const fn_context *context
    int exits             # epoll set of all pidfds
    Child *child          # context.max_connections slots; slot i counts into row i + 1
    uint32_t alive        # slots in use
    uint32_t free_slot    # head of the free list
    char *buffer          # read buffer; each child has its own copy once it writes to it


cdef void reap(ChildTable *table, uint32_t slot) noexcept nogil:
    """Collect the exit status of a child and free its slot."""
    cdef Child *child = &table.child[slot]
    if fn_child_reap(child.pid):
        fn_count_closed(fn_row(table.context, 0), FN_KILLED)
    child.next_free = table.free_slot
    table.free_slot = slot
    table.alive -= 1


cdef void reap_exited(ChildTable *table, int timeout_ms) noexcept nogil:
    """Wait for children to exit and free their slots."""
    cdef epoll_event exited[64]
    cdef int i, pidfd, n = fn_epoll_wait(table.exits, exited, 64, timeout_ms)
    for i in range(n):
        pidfd = table.child[exited[i].data.u64].pidfd
        reap(table, <uint32_t>exited[i].data.u64)
        # A sibling just forked may still hold a copy, and only the last one's close would take it
        # out of the set.
        fn_epoll_set(table.exits, EPOLL_CTL_DEL, pidfd, 0, 0)
        close(pidfd)


cdef void run_child(
    ChildTable *table, uint32_t slot, int fd, const sockaddr_storage *peer
) noexcept nogil:
    """Serve one connection in the new process. Does not return."""
    fn_child_reset_signals()
    fn_child_keep_only(fd, table.context.trace_fd)
    fn_blocking_serve(table.context, fn_row(table.context, slot + 1), fd, peer, table.buffer)
    fn_child_exit(0)


cdef bint watch_exit(ChildTable *table, uint32_t slot) noexcept nogil:
    """Add the child's pidfd to the epoll set. Returns False without a descriptor for it."""
    cdef int pidfd = fn_pidfd_open(table.child[slot].pid)
    table.child[slot].pidfd = pidfd
    if pidfd < 0:
        return False
    if fn_epoll_set(table.exits, EPOLL_CTL_ADD, pidfd, EPOLLIN, slot) < 0:
        close(pidfd)
        return False
    return True


cdef void spawn(ChildTable *table, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Fork a child for fd. If fork(2) fails, the connection is rejected."""
    cdef uint32_t slot = table.free_slot
    cdef Child *child = &table.child[slot]
    child.pid = fn_child_fork()
    if child.pid == 0:
        run_child(table, slot, fd, peer)
    if child.pid < 0:
        fn_accept_reject(table.context, fd, peer, FN_REFUSED)
        return
    close(fd)
    table.free_slot = child.next_free
    table.alive += 1
    if not watch_exit(table, slot):
        reap(table, slot)  # out of descriptors: its exit would not be reported, so wait for it


cdef int serve(ChildTable *table) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef fn_acceptor acceptor = fn_acceptor_init(table.context, table.exits)
    cdef sockaddr_storage peer
    cdef int fd
    while True:
        acceptor.full = table.alive == table.context.max_connections
        fd = fn_acceptor_next(&acceptor, &peer)
        if fd >= 0:
            spawn(table, fd, &peer)
        elif fd == -EAGAIN:
            reap_exited(table, 0)
        else:
            while table.alive:
                reap_exited(table, -1)
            return 0 if fd == -ESHUTDOWN else fd


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef ChildTable table
    cdef uint32_t i, slots = native.c.max_connections
    cdef int result = -ENOMEM
    table.context = &native.c
    table.alive = 0
    table.free_slot = 0
    table.exits = raise_errno(epoll_create1(EPOLL_CLOEXEC))
    with nogil:
        table.child = <Child *>malloc(slots * sizeof(Child))
        table.buffer = <char *>malloc(native.c.read_bytes)
        if table.child != NULL and table.buffer != NULL:
            for i in range(slots):
                table.child[i].next_free = i + 1
            result = serve(&table)
        free(table.child)
        free(table.buffer)
        close(table.exits)
    raise_errno(result)
