"""A thread for each connection.

Facts. A native thread that never touches Python needs no GIL and no Python thread state, so threads
of one server run on all cores. A default stack reserves 8 MiB; these threads call a few small
functions.
Decision: detached pthreads with a small stack and a buffer of their own. A slot is allocated before
a thread starts and released by the thread as its last act; its counters are the slot's row, so no
two threads share one.
Cost: a pthread_create a connection, and one stack and buffer while it lasts.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_accept_reject, fn_acceptor, fn_acceptor_init, fn_acceptor_next
from fastnet.cdefs.blocking cimport fn_blocking_serve
from fastnet.cdefs.context cimport fn_context, fn_row
from fastnet.cdefs.counters cimport FN_REFUSED, fn_count_closed
from fastnet.cdefs.sys cimport (
    EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, ENOMEM, ESHUTDOWN, close, eventfd, eventfd_read, eventfd_t,
    eventfd_write, sockaddr_storage,
)
from fastnet.cdefs.thread cimport (
    PTHREAD_CREATE_DETACHED, pthread_attr_destroy, pthread_attr_init, pthread_attr_setdetachstate,
    pthread_attr_setstacksize, pthread_attr_t, pthread_cond_destroy, pthread_cond_init,
    pthread_cond_signal, pthread_cond_t, pthread_cond_wait, pthread_create, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_t,
)
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext

cdef struct ThreadSlot:
    ThreadTable *table
    int fd                # of the connection
    sockaddr_storage peer
    uint32_t next_free    # next slot of the free list

cdef struct ThreadTable:
    const fn_context *context
    pthread_attr_t attributes
    pthread_mutex_t mutex # guards alive, free_slot and the free list
    pthread_cond_t ended  # a thread has released its slot
    uint32_t alive        # slots in use
    uint32_t free_slot    # head of the free list
    ThreadSlot *slot      # context.max_connections; slot i counts into row i + 1
    int capacity_fd       # eventfd: written when a full table has a free slot again


cdef void release(ThreadTable *table, uint32_t index) noexcept nogil:
    """Put a slot back on the free list."""
    pthread_mutex_lock(&table.mutex)
    if table.alive == table.context.max_connections:
        eventfd_write(table.capacity_fd, 1)
    table.slot[index].next_free = table.free_slot
    table.free_slot = index
    table.alive -= 1
    pthread_cond_signal(&table.ended)
    pthread_mutex_unlock(&table.mutex)


cdef void *run_thread(void *argument) noexcept nogil:
    """The life of a connection's thread."""
    cdef ThreadSlot *slot = <ThreadSlot *>argument
    cdef ThreadTable *table = slot.table
    cdef uint32_t index = <uint32_t>(slot - table.slot)
    cdef char *buffer = <char *>malloc(table.context.read_bytes)
    if buffer != NULL:
        fn_blocking_serve(
            table.context, fn_row(table.context, index + 1), slot.fd, &slot.peer, buffer
        )
        free(buffer)
    else:
        close(slot.fd)
        fn_count_closed(fn_row(table.context, index + 1), FN_REFUSED)
    release(table, index)
    return NULL


cdef void start_thread(ThreadTable *table, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Start a thread for the connection. If pthread_create(3) fails, it is rejected."""
    cdef pthread_t thread
    cdef ThreadSlot *slot
    pthread_mutex_lock(&table.mutex)
    slot = &table.slot[table.free_slot]
    table.free_slot = slot.next_free
    table.alive += 1
    pthread_mutex_unlock(&table.mutex)
    slot.table = table
    slot.fd = fd
    slot.peer = peer[0]
    if pthread_create(&thread, &table.attributes, run_thread, slot) == 0:
        return
    fn_accept_reject(table.context, fd, peer, FN_REFUSED)
    release(table, <uint32_t>(slot - table.slot))


cdef int serve(ThreadTable *table) noexcept nogil:
    """Serve until stopped and every thread has ended. Returns 0 or -errno."""
    cdef fn_acceptor acceptor = fn_acceptor_init(table.context, table.capacity_fd)
    cdef sockaddr_storage peer
    cdef eventfd_t ignored
    cdef int fd
    while True:
        pthread_mutex_lock(&table.mutex)
        acceptor.full = table.alive == table.context.max_connections
        pthread_mutex_unlock(&table.mutex)
        fd = fn_acceptor_next(&acceptor, &peer)
        if fd >= 0:
            start_thread(table, fd, &peer)
        elif fd == -EAGAIN:
            eventfd_read(table.capacity_fd, &ignored)
        else:
            pthread_mutex_lock(&table.mutex)
            while table.alive:
                pthread_cond_wait(&table.ended, &table.mutex)
            pthread_mutex_unlock(&table.mutex)
            return 0 if fd == -ESHUTDOWN else fd


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef ThreadTable table
    cdef uint32_t i, slots = native.c.max_connections
    cdef int result = -ENOMEM
    table.context = &native.c
    table.alive = 0
    table.free_slot = 0
    table.capacity_fd = raise_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
    with nogil:
        pthread_attr_init(&table.attributes)
        pthread_attr_setstacksize(&table.attributes, native.c.thread_stack_bytes)
        pthread_attr_setdetachstate(&table.attributes, PTHREAD_CREATE_DETACHED)
        pthread_mutex_init(&table.mutex, NULL)
        pthread_cond_init(&table.ended, NULL)
        table.slot = <ThreadSlot *>malloc(slots * sizeof(ThreadSlot))
        if table.slot != NULL:
            for i in range(slots):
                table.slot[i].next_free = i + 1
            result = serve(&table)
        free(table.slot)
        pthread_cond_destroy(&table.ended)
        pthread_mutex_destroy(&table.mutex)
        pthread_attr_destroy(&table.attributes)
        close(table.capacity_fd)
    raise_errno(result)
