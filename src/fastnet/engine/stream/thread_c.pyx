"""A thread for each connection.

Facts. A native thread that never touches Python needs no GIL and no Python thread state, so threads
of one server run on all cores at once. A default stack reserves 8 MiB; these threads call a few
small functions.
Decision: detached pthreads with a small stack and a buffer of their own. A place (an index) is
taken before a thread starts and given back by the thread as its last act; its counters are the
place's row, so no two threads share one.
Cost: a pthread_create a connection and one stack and buffer while it lasts.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_acceptor, fn_acceptor_next, fn_acceptor_open, fn_turn_away
from fastnet.cdefs.blocking cimport fn_serve
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

cdef struct Place:
    Crew *crew
    int fd
    sockaddr_storage peer
    uint32_t next_free    # chains the places without a thread

cdef struct Crew:
    const fn_context *context
    pthread_attr_t attributes
    pthread_mutex_t mutex # guards the three words below
    pthread_cond_t ended  # a thread has given its place back
    uint32_t alive
    uint32_t free
    Place *place          # context.max_connections; place i counts into row i + 1
    int room_fd           # eventfd: written when a full crew has a place again


cdef void *serve_one(void *argument) noexcept nogil:
    """The whole life of a connection's thread."""
    cdef Place *place = <Place *>argument
    cdef Crew *crew = place.crew
    cdef uint32_t index = <uint32_t>(place - crew.place)
    cdef char *buffer = <char *>malloc(crew.context.read_bytes)
    if buffer != NULL:
        fn_serve(crew.context, fn_row(crew.context, index + 1), place.fd, &place.peer, buffer)
        free(buffer)
    else:
        close(place.fd)
        fn_count_closed(fn_row(crew.context, index + 1), FN_REFUSED)
    pthread_mutex_lock(&crew.mutex)
    if crew.alive == crew.context.max_connections:
        eventfd_write(crew.room_fd, 1)
    place.next_free = crew.free
    crew.free = index
    crew.alive -= 1
    pthread_cond_signal(&crew.ended)
    pthread_mutex_unlock(&crew.mutex)
    return NULL


cdef void start(Crew *crew, int fd, const sockaddr_storage *peer) noexcept nogil:
    """Give the connection a thread. Without one to be had it is turned away."""
    cdef pthread_t thread
    cdef Place *place
    pthread_mutex_lock(&crew.mutex)
    place = &crew.place[crew.free]
    crew.free = place.next_free
    crew.alive += 1
    pthread_mutex_unlock(&crew.mutex)
    place.crew, place.fd, place.peer = crew, fd, peer[0]
    if pthread_create(&thread, &crew.attributes, serve_one, place) == 0:
        return
    fn_turn_away(crew.context, fd, peer, FN_REFUSED)
    pthread_mutex_lock(&crew.mutex)
    place.next_free = crew.free
    crew.free = <uint32_t>(place - crew.place)
    crew.alive -= 1
    pthread_mutex_unlock(&crew.mutex)


cdef int serve(Crew *crew) noexcept nogil:
    cdef fn_acceptor acceptor = fn_acceptor_open(crew.context, crew.room_fd)
    cdef sockaddr_storage peer
    cdef eventfd_t ignored
    cdef int fd
    while True:
        pthread_mutex_lock(&crew.mutex)
        acceptor.full = crew.alive == crew.context.max_connections
        pthread_mutex_unlock(&crew.mutex)
        fd = fn_acceptor_next(&acceptor, &peer)
        if fd >= 0:
            start(crew, fd, &peer)
        elif fd == -EAGAIN:
            eventfd_read(crew.room_fd, &ignored)
        else:
            pthread_mutex_lock(&crew.mutex)
            while crew.alive:
                pthread_cond_wait(&crew.ended, &crew.mutex)
            pthread_mutex_unlock(&crew.mutex)
            return 0 if fd == -ESHUTDOWN else fd


def run(context):
    """Serve context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef Crew crew
    cdef uint32_t i, places = native.c.max_connections
    cdef int result = -ENOMEM
    crew.context, crew.alive, crew.free = &native.c, 0, 0
    crew.room_fd = raise_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
    with nogil:
        pthread_attr_init(&crew.attributes)
        pthread_attr_setstacksize(&crew.attributes, native.c.thread_stack_bytes)
        pthread_attr_setdetachstate(&crew.attributes, PTHREAD_CREATE_DETACHED)
        pthread_mutex_init(&crew.mutex, NULL)
        pthread_cond_init(&crew.ended, NULL)
        crew.place = <Place *>malloc(places * sizeof(Place))
        if crew.place != NULL:
            for i in range(places):
                crew.place[i].next_free = i + 1
            result = serve(&crew)
        free(crew.place)
        pthread_cond_destroy(&crew.ended)
        pthread_mutex_destroy(&crew.mutex)
        pthread_attr_destroy(&crew.attributes)
        close(crew.room_fd)
    raise_errno(result)
