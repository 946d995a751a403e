"""Batches of datagrams: recvmmsg(2), the service for each, sendmmsg(2). Native.

Facts. recvmmsg's own timeout is checked only after a datagram has come (recvmmsg(2), BUGS).
Decision: the loop (_loop_c.pxd) receives without blocking, and waits with epoll(7) once nothing is
queued; the batch is csrc/fn_batch.h. A service that has to enter Python, or to acquire the newest
dictionary, gets the datagrams of a batch in one call.
Cost: one call more than a blocking recvmmsg when datagrams come one by one.
"""

from libc.stdint cimport uint32_t

from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.batch cimport FN_BATCH, FN_CALLS, FN_PIECES, fn_batch, fn_batch_peer_bytes
from fastnet.cdefs.batch_receive cimport fn_batch_message, fn_batch_receive
from fastnet.cdefs.batch_reply cimport fn_batch_add_reply
from fastnet.cdefs.batch_send cimport fn_batch_flush
from fastnet.cdefs.service cimport fn_call, fn_calls, fn_reply, fn_service
from fastnet.engine.context_c cimport NativeLoopContext
from fastnet.engine.datagram._loop_c cimport run_loop

from fastnet.limits import DATAGRAM_DRAIN_BATCHES_MAX


cdef inline void answer_datagram(
    fn_batch *batch, uint32_t peer, char *bytes, uint32_t n
) noexcept nogil:
    """One datagram: the reply waits with the others for the end of the batch."""
    cdef const fn_service *service = batch.context.service
    cdef fn_reply *reply
    if service.datagram == NULL:
        return
    if batch.replies == FN_PIECES:
        fn_batch_flush(batch)
    reply = &batch.reply[batch.replies]
    reply.parts = 0
    reply.flags = 0
    service.datagram(service, bytes, n, reply)
    if reply.parts:
        batch.replies += 1
        fn_batch_add_reply(batch, peer, reply, n)


cdef void answer_calls(fn_batch *batch) noexcept nogil:
    """The collected datagrams: one call of the service. The caller flushes the replies before the
    next call, which may free their bytes.
    """
    cdef fn_calls *calls = &batch.calls
    cdef fn_call *call
    cdef uint32_t i
    batch.context.service.batch(batch.context.service, calls)
    for i in range(calls.n):
        call = &calls.call[i]
        if call.reply.parts:
            fn_batch_add_reply(batch, <uint32_t>(call.peer - batch.peer), &call.reply, call.n)
    calls.n = 0


cdef inline void add_call(fn_batch *batch, uint32_t peer, char *bytes, uint32_t n) noexcept nogil:
    """Collect one datagram for a service that takes a batch."""
    cdef fn_call *call
    if batch.calls.n == FN_CALLS:
        answer_calls(batch)
        fn_batch_flush(batch)
    call = &batch.calls.call[batch.calls.n]
    call.bytes = bytes
    call.n = n
    call.peer = &batch.peer[peer]
    call.peer_bytes = fn_batch_peer_bytes(batch, peer)
    call.reply.parts = 0
    call.reply.flags = 0
    batch.calls.n += 1


cdef int handle_messages(fn_batch *batch, int messages_max) noexcept nogil:
    """Receive a batch and answer it. Returns how many messages there were, or -errno."""
    cdef int i, n = fn_batch_receive(batch, messages_max)
    cdef bint takes_batch = batch.context.service.batch != NULL
    cdef uint32_t at, size, segment, bytes
    cdef char *train
    for i in range(n):
        train = fn_batch_message(batch, i, &bytes, &segment)
        if train == NULL:
            continue
        at = 0
        while True:
            size = segment if bytes - at > segment else bytes - at
            if takes_batch:
                add_call(batch, i, train + at, size)
            else:
                answer_datagram(batch, i, train + at, size)
            at += segment
            if at >= bytes:
                break
    if batch.calls.n:
        answer_calls(batch)
    fn_batch_flush(batch)
    return n


def run(context):
    """Serve the context's socket until it is stopped (engine/datagram/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef int drain_batches = DATAGRAM_DRAIN_BATCHES_MAX
    cdef int result
    with nogil:
        result = run_loop(&native.c, True, handle_messages, FN_BATCH, drain_batches)
    raise_errno(result)
