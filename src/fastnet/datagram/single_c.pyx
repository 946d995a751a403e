"""One datagram at a time: recvmsg(2), the service, sendmsg(2). Native.

Facts. A train of joined datagrams is cut by the kernel as long as nobody asks for UDP_GRO.
Decision: the same as single_py with the GIL released, and mmsg_c without its batches: what differs between it and one of them is
what the language costs, or what batches spare. A reply is out before the next datagram is looked at.
Cost: two system calls a datagram; a service that has to enter Python does so for each.
"""

from libc.stdint cimport uint32_t, uint64_t

from fastnet.cdefs.counters cimport fn_count
from fastnet.cdefs.datagram cimport (
    fn_batch, fn_batch_close, fn_batch_open, fn_batch_peer_bytes, fn_batch_train, fn_single_answer, fn_single_take,
)
from fastnet.cdefs.errno cimport raise_errno
from fastnet.cdefs.service cimport fn_call, fn_service
from fastnet.cdefs.stream cimport fn_now_ns
from fastnet.cdefs.sys cimport EAGAIN, ENOMEM, EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, close, epoll_create1, epoll_event
from fastnet.cdefs.sys cimport fn_epoll_set, fn_epoll_wait
from fastnet.cdefs.work cimport FN_NOW, FN_RUN, fn_stop_now
from fastnet.cdefs.work_c cimport NativeWork

from fastnet.limits import DATAGRAM_SWEEP_TURNS, DATAGRAMS_PER_TURN


cdef inline void ask(fn_batch *batch, char *bytes, uint32_t n) noexcept nogil:
    """What the service says to it goes out."""
    cdef const fn_service *service = batch.work.service
    cdef fn_call *call = batch.call
    call.bytes, call.n, call.peer, call.peer_bytes = bytes, n, batch.peer, fn_batch_peer_bytes(batch, 0)
    call.reply.parts = call.reply.flags = 0
    if service.batch != NULL:
        batch.calls.n = 1
        service.batch(service, &batch.calls)
        batch.calls.n = 0
    elif service.datagram != NULL:
        service.datagram(service, bytes, n, &call.reply)
    if call.reply.parts:
        fn_single_answer(batch, &call.reply, n)


cdef int take_some(fn_batch *batch, int most) noexcept nogil:
    """Take and answer up to `most`. Returns -errno if there were fewer (-EAGAIN: nothing is queued any more)."""
    cdef uint32_t bytes, segment
    cdef char *datagram
    cdef int i, result
    for i in range(most):
        result = fn_single_take(batch)
        if result < 0:
            return result
        datagram = fn_batch_train(batch, 0, &bytes, &segment)
        if datagram != NULL:
            ask(batch, datagram, bytes)
    return 0


cdef int wait(fn_batch *batch, int epoll) noexcept nogil:
    """Until there is a datagram or a request to stop; first without sleeping, for as long as busy polling allows."""
    cdef epoll_event event
    cdef int n
    cdef uint64_t until_ns
    if batch.work.busy_poll_ns:
        until_ns = fn_now_ns() + batch.work.busy_poll_ns
        while fn_now_ns() < until_ns:
            n = take_some(batch, 1)
            if n != -EAGAIN or fn_stop_now(batch.work) != FN_RUN:
                fn_count(&batch.row.spins_paid, 1)
                return 0
        fn_count(&batch.row.spins_vain, 1)
    n = fn_epoll_wait(epoll, &event, 1, -1)
    return n if n < 0 else 0


cdef int serve(fn_batch *batch, int epoll, int most, int sweep) noexcept nogil:
    """Serve until stopped. Returns 0 or -errno."""
    cdef int n, failed = 0
    while failed == 0 and sweep and fn_stop_now(batch.work) != FN_NOW:
        n = take_some(batch, most)
        if fn_stop_now(batch.work) != FN_RUN:
            sweep = 0 if n == -EAGAIN else sweep - 1
        elif n == -EAGAIN:
            failed = wait(batch, epoll)
    return failed


def run(work):
    """Serve work's socket until it is stopped (datagram/contract.py)."""
    cdef NativeWork native = NativeWork(work)
    cdef fn_batch *batch = NULL
    cdef int epoll = raise_errno(epoll_create1(EPOLL_CLOEXEC))
    cdef int most = DATAGRAMS_PER_TURN
    cdef int sweep = DATAGRAM_SWEEP_TURNS
    cdef int result
    with nogil:
        batch = fn_batch_open(&native.c, native.c.listener[0], 0)
        result = fn_epoll_set(epoll, EPOLL_CTL_ADD, native.c.listener[0], EPOLLIN, 0)
        if result == 0:
            result = fn_epoll_set(epoll, EPOLL_CTL_ADD, native.c.drain_fd, EPOLLIN, 1)
        if result == 0:
            result = serve(batch, epoll, most, sweep) if batch != NULL else -ENOMEM
        if batch != NULL and native.c.service.batch != NULL:
            native.c.service.batch(native.c.service, &batch.calls)
        fn_batch_close(batch)
        close(epoll)
    raise_errno(result)
