"""A fixed number of threads and a bounded queue of accepted connections.

Facts. A blocked thread serves one connection from beginning to end, so a pool of n threads serves n
peers at once and the others wait. A queue without a bound would only hide that.
Decision: one thread accepts and queues, `pool_size` threads take. When the queue is full, accepting
pauses and the kernel's backlog holds the rest. Threads are made once, so a connection costs a lock
and a wake-up instead of a new thread.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_acceptor, fn_acceptor_next, fn_acceptor_open
from fastnet.cdefs.blocking cimport fn_serve
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

cdef struct Waiting:
    int fd
    sockaddr_storage peer

cdef struct Member:
    Pool *pool
    pthread_t thread
    uint32_t index        # counts into row index + 1
    char *buffer

cdef struct Pool:
    const fn_context *context
    pthread_mutex_t mutex # guards the four words below and the queue
    pthread_cond_t filled
    uint32_t first
    uint32_t waiting
    uint32_t held         # waiting or being served
    int closing           # no more connections will come
    Waiting *queue        # a ring of context.pool_queue_max
    Member *member
    int room_fd           # eventfd: written when a full pool has room again


cdef bint is_full(const Pool *pool) noexcept nogil:
    return pool.waiting >= pool.context.pool_queue_max or pool.held >= pool.context.max_connections


cdef void *take_turns(void *argument) noexcept nogil:
    """The whole life of a pool thread: connection after connection."""
    cdef Member *member = <Member *>argument
    cdef Pool *pool = member.pool
    cdef Waiting next
    cdef uint32_t served = 0
    while True:
        pthread_mutex_lock(&pool.mutex)
        if served and is_full(pool):
            eventfd_write(pool.room_fd, 1)
        pool.held -= served
        served = 1
        while pool.waiting == 0 and not pool.closing:
            pthread_cond_wait(&pool.filled, &pool.mutex)
        if pool.waiting == 0:
            pthread_mutex_unlock(&pool.mutex)
            return NULL
        next = pool.queue[pool.first]
        pool.first = (pool.first + 1) % pool.context.pool_queue_max
        if is_full(pool):
            eventfd_write(pool.room_fd, 1)
        pool.waiting -= 1
        pthread_mutex_unlock(&pool.mutex)
        fn_serve(pool.context, fn_row(pool.context, member.index + 1), next.fd, &next.peer, member.buffer)


cdef int serve(Pool *pool) noexcept nogil:
    cdef fn_acceptor acceptor = fn_acceptor_open(pool.context, pool.room_fd)
    cdef Waiting next
    cdef eventfd_t ignored
    while True:
        pthread_mutex_lock(&pool.mutex)
        acceptor.full = is_full(pool)
        pthread_mutex_unlock(&pool.mutex)
        next.fd = fn_acceptor_next(&acceptor, &next.peer)
        if next.fd >= 0:
            pthread_mutex_lock(&pool.mutex)
            pool.queue[(pool.first + pool.waiting) % pool.context.pool_queue_max] = next
            pool.waiting += 1
            pool.held += 1
            pthread_cond_signal(&pool.filled)
            pthread_mutex_unlock(&pool.mutex)
        elif next.fd == -EAGAIN:
            eventfd_read(pool.room_fd, &ignored)
        else:
            return 0 if next.fd == -ESHUTDOWN else next.fd


cdef int hire(Pool *pool, uint32_t *hired) noexcept nogil:
    """Start all members. Returns 0 or -errno; hired: how many run."""
    cdef pthread_attr_t attributes
    cdef Member *member
    cdef int failed = 0
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, pool.context.thread_stack_bytes)
    while hired[0] < pool.context.pool_size and failed == 0:
        member = &pool.member[hired[0]]
        member.pool, member.index = pool, hired[0]
        member.buffer = <char *>malloc(pool.context.read_bytes)
        failed = ENOMEM if member.buffer == NULL else pthread_create(&member.thread, &attributes, take_turns, member)
        if failed:
            free(member.buffer)
        else:
            hired[0] += 1
    pthread_attr_destroy(&attributes)
    return -failed


cdef void dismiss(Pool *pool, uint32_t hired) noexcept nogil:
    """Let the members finish what they serve and what is queued."""
    cdef uint32_t i
    pthread_mutex_lock(&pool.mutex)
    pool.closing = True
    pthread_cond_broadcast(&pool.filled)
    pthread_mutex_unlock(&pool.mutex)
    for i in range(hired):
        pthread_join(pool.member[i].thread, NULL)
        free(pool.member[i].buffer)


def run(context):
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Pool pool
    cdef uint32_t hired = 0
    cdef int result = -ENOMEM
    pool.context, pool.first, pool.waiting, pool.held, pool.closing = &native.c, 0, 0, 0, False
    pool.room_fd = raise_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
    with nogil:
        pthread_mutex_init(&pool.mutex, NULL)
        pthread_cond_init(&pool.filled, NULL)
        pool.queue = <Waiting *>malloc(native.c.pool_queue_max * sizeof(Waiting))
        pool.member = <Member *>malloc(native.c.pool_size * sizeof(Member))
        if pool.queue != NULL and pool.member != NULL:
            result = hire(&pool, &hired)
            if result == 0:
                result = serve(&pool)
            dismiss(&pool, hired)
        free(pool.queue)
        free(pool.member)
        pthread_cond_destroy(&pool.filled)
        pthread_mutex_destroy(&pool.mutex)
        close(pool.room_fd)
    raise_errno(result)
