"""A fixed number of threads and a bounded queue of accepted connections.

Facts. A blocked thread serves one connection from beginning to end, so a pool of n threads serves n
peers in parallel and the others wait. A queue without a bound would only hide that.
Decision: one thread accepts and queues, `pool_size` threads serve. When the queue is full,
accepting pauses and the kernel's backlog holds the rest. Threads are made once, so a connection
costs a lock and a wake-up instead of a new thread.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnet.cdefs.accept cimport fn_acceptor, fn_acceptor_init, fn_acceptor_next
from fastnet.cdefs.blocking cimport fn_blocking_serve
from fastnet.cdefs.context cimport fn_context, fn_row
from fastnet.cdefs.sys cimport (
    EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, ENOMEM, ESHUTDOWN, close, eventfd, eventfd_read, eventfd_t,
    eventfd_write, sockaddr_storage,
)
from fastnet.cdefs.thread cimport (
    pthread_attr_destroy, pthread_attr_init, pthread_attr_setstacksize, pthread_attr_t,
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal,
    pthread_cond_t, pthread_cond_wait, pthread_create, pthread_join, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_t,
)
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext

cdef struct QueuedConnection:
    int fd
    sockaddr_storage peer

cdef struct PoolThread:
    ThreadPool *pool
    pthread_t thread
    uint32_t index        # counts into row index + 1
    char *buffer          # read buffer

cdef struct ThreadPool:
    const fn_context *context
    pthread_mutex_t mutex # guards the four words below and the queue
    pthread_cond_t filled # the queue is not empty, or closing is set
    uint32_t first        # head of the queue
    uint32_t queued       # connections in the queue
    uint32_t admitted     # connections queued or being served
    bint closing          # no further connection will be queued
    QueuedConnection *queue   # a ring of context.pool_queue_max
    PoolThread *member        # context.pool_size
    int capacity_fd       # eventfd: written when a full pool has capacity again


cdef bint is_full(const ThreadPool *pool) noexcept nogil:
    return (
        pool.queued >= pool.context.pool_queue_max
        or pool.admitted >= pool.context.max_connections
    )


cdef bint take_connection(
    ThreadPool *pool, uint32_t finished, QueuedConnection *conn
) noexcept nogil:
    """Wait for a connection. finished: connections this thread has just closed. Returns False when
    the pool is closing and the queue is empty.
    """
    pthread_mutex_lock(&pool.mutex)
    if finished and is_full(pool):
        eventfd_write(pool.capacity_fd, 1)
    pool.admitted -= finished
    while pool.queued == 0 and not pool.closing:
        pthread_cond_wait(&pool.filled, &pool.mutex)
    if pool.queued == 0:
        pthread_mutex_unlock(&pool.mutex)
        return False
    conn[0] = pool.queue[pool.first]
    pool.first = (pool.first + 1) % pool.context.pool_queue_max
    if is_full(pool):
        eventfd_write(pool.capacity_fd, 1)
    pool.queued -= 1
    pthread_mutex_unlock(&pool.mutex)
    return True


cdef void *run_thread(void *argument) noexcept nogil:
    """The life of a pool thread: connection after connection."""
    cdef PoolThread *member = <PoolThread *>argument
    cdef const fn_context *context = member.pool.context
    cdef QueuedConnection conn
    cdef uint32_t finished = 0
    while take_connection(member.pool, finished, &conn):
        fn_blocking_serve(
            context, fn_row(context, member.index + 1), conn.fd, &conn.peer, member.buffer
        )
        finished = 1
    return NULL


cdef int serve(ThreadPool *pool) noexcept nogil:
    """Queue connections until stopped. Returns 0 or -errno."""
    cdef fn_acceptor acceptor = fn_acceptor_init(pool.context, pool.capacity_fd)
    cdef QueuedConnection conn
    cdef eventfd_t ignored
    while True:
        pthread_mutex_lock(&pool.mutex)
        acceptor.full = is_full(pool)
        pthread_mutex_unlock(&pool.mutex)
        conn.fd = fn_acceptor_next(&acceptor, &conn.peer)
        if conn.fd >= 0:
            pthread_mutex_lock(&pool.mutex)
            pool.queue[(pool.first + pool.queued) % pool.context.pool_queue_max] = conn
            pool.queued += 1
            pool.admitted += 1
            pthread_cond_signal(&pool.filled)
            pthread_mutex_unlock(&pool.mutex)
        elif conn.fd == -EAGAIN:
            eventfd_read(pool.capacity_fd, &ignored)
        else:
            return 0 if conn.fd == -ESHUTDOWN else conn.fd


cdef int start_thread(
    ThreadPool *pool, uint32_t index, const pthread_attr_t *attributes
) noexcept nogil:
    """Returns 0 or -errno."""
    cdef PoolThread *member = &pool.member[index]
    cdef int failed
    member.pool = pool
    member.index = index
    member.buffer = <char *>malloc(pool.context.read_bytes)
    if member.buffer == NULL:
        return -ENOMEM
    failed = pthread_create(&member.thread, attributes, run_thread, member)
    if failed:
        free(member.buffer)
    return -failed


cdef int start_threads(ThreadPool *pool, uint32_t *started) noexcept nogil:
    """Start all threads. Returns 0 or -errno; started: how many run."""
    cdef pthread_attr_t attributes
    cdef int failed = 0
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, pool.context.thread_stack_bytes)
    while started[0] < pool.context.pool_size and failed == 0:
        failed = start_thread(pool, started[0], &attributes)
        if failed == 0:
            started[0] += 1
    pthread_attr_destroy(&attributes)
    return failed


cdef void stop_threads(ThreadPool *pool, uint32_t started) noexcept nogil:
    """Let the threads finish what they serve and what is queued, and join them."""
    cdef uint32_t i
    pthread_mutex_lock(&pool.mutex)
    pool.closing = True
    pthread_cond_broadcast(&pool.filled)
    pthread_mutex_unlock(&pool.mutex)
    for i in range(started):
        pthread_join(pool.member[i].thread, NULL)
        free(pool.member[i].buffer)


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef ThreadPool pool
    cdef uint32_t started = 0
    cdef int result = -ENOMEM
    memset(&pool, 0, sizeof(ThreadPool))
    pool.context = &native.c
    pool.capacity_fd = raise_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
    with nogil:
        pthread_mutex_init(&pool.mutex, NULL)
        pthread_cond_init(&pool.filled, NULL)
        pool.queue = <QueuedConnection *>malloc(
            native.c.pool_queue_max * sizeof(QueuedConnection)
        )
        pool.member = <PoolThread *>malloc(native.c.pool_size * sizeof(PoolThread))
        if pool.queue != NULL and pool.member != NULL:
            result = start_threads(&pool, &started)
            if result == 0:
                result = serve(&pool)
            stop_threads(&pool, started)
        free(pool.queue)
        free(pool.member)
        pthread_cond_destroy(&pool.filled)
        pthread_mutex_destroy(&pool.mutex)
        close(pool.capacity_fd)
    raise_errno(result)
