"""Batches of datagrams: recvmmsg(2), the service for each, sendmmsg(2). Native.

Facts. recvmmsg's own time-out is looked at only after a datagram has come (recvmmsg(2), BUGS).
Decision: the loop asks without waiting, and waits with epoll(7) once nothing is queued; the batch
is csrc/fn_batch.h. A service that has to enter Python, or to look up the newest table, gets the
datagrams of a batch in one call.
Cost: one call more than a blocking recvmmsg when datagrams come one by one.
"""

from libc.stdint cimport uint32_t

from fastnet.cdefs.batch cimport (
    FN_BATCH, FN_CALLS, FN_PIECES, fn_batch, fn_batch_peer_bytes, fn_batch_take, fn_batch_train,
)
from fastnet.cdefs.batch_loop cimport fn_batch_run
from fastnet.cdefs.batch_reply cimport fn_batch_answer, fn_batch_flush
from fastnet.cdefs.service cimport fn_call, fn_calls, fn_reply, fn_service
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext

from fastnet.limits import DATAGRAM_SWEEP_TURNS


cdef inline void answer_each(fn_batch *batch, uint32_t peer, char *bytes, uint32_t n) noexcept nogil:
    """One datagram: the service's answer waits with the others for the end of the batch."""
    cdef const fn_service *service = batch.context.service
    cdef fn_reply *reply
    if service.datagram == NULL:
        return
    if batch.replies == FN_PIECES:
        fn_batch_flush(batch)
    reply = &batch.reply[batch.replies]
    reply.parts = reply.flags = 0
    service.datagram(service, bytes, n, reply)
    if reply.parts:
        batch.replies += 1
        fn_batch_answer(batch, peer, reply, n)


cdef void answer_all(fn_batch *batch) noexcept nogil:
    """The datagrams that were collected: one call of the service, and what it answers goes out."""
    cdef fn_calls *calls = &batch.calls
    cdef uint32_t i
    batch.context.service.batch(batch.context.service, calls)
    for i in range(calls.n):
        if calls.call[i].reply.parts:
            fn_batch_answer(batch, <uint32_t>(calls.call[i].peer - batch.peer), &calls.call[i].reply, calls.call[i].n)
    fn_batch_flush(batch)
    calls.n = 0


cdef inline void collect(fn_batch *batch, uint32_t peer, char *bytes, uint32_t n) noexcept nogil:
    """One datagram, for a service that takes a batch at once."""
    cdef fn_call *call
    if batch.calls.n == FN_CALLS:
        answer_all(batch)
    call = &batch.calls.call[batch.calls.n]
    call.bytes, call.n, call.peer = bytes, n, &batch.peer[peer]
    call.peer_bytes = fn_batch_peer_bytes(batch, peer)
    call.reply.parts = call.reply.flags = 0
    batch.calls.n += 1


cdef int turn(fn_batch *batch, int most) noexcept nogil:
    """Take a batch of up to `most` messages and answer it. Returns how many there were, or
    -errno.
    """
    cdef int i, n = fn_batch_take(batch, most)
    cdef bint at_once = batch.context.service.batch != NULL
    cdef uint32_t at, size, segment, bytes
    cdef char *train
    for i in range(n):
        train = fn_batch_train(batch, i, &bytes, &segment)
        if train == NULL:
            continue
        at = 0
        while True:
            size = segment if bytes - at > segment else bytes - at
            if at_once:
                collect(batch, i, train + at, size)
            else:
                answer_each(batch, i, train + at, size)
            at += segment
            if at >= bytes:
                break
    if batch.calls.n:
        answer_all(batch)
    fn_batch_flush(batch)
    return n


def run(context):
    """Serve context's socket until it is stopped (engine/datagram/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef int sweep = DATAGRAM_SWEEP_TURNS
    cdef int result
    with nogil:
        result = fn_batch_run(&native.c, 1, turn, FN_BATCH, sweep)
    raise_errno(result)
