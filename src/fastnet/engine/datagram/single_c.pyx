"""One datagram at a time: recvmsg(2), the service, sendmsg(2). Native.

Facts. The kernel cuts a train of joined datagrams unless UDP_GRO is set.
Decision: the same as single_py with the GIL released, and mmsg_c without its batches: what differs
between it and one of them is what the language costs, or what batches save. A reply is sent before
the next datagram is received.
Cost: two system calls a datagram; a service that has to enter Python does so for each.
"""

from libc.stdint cimport uint32_t

from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.batch cimport fn_batch, fn_batch_peer_bytes
from fastnet.cdefs.batch_receive cimport fn_batch_message
from fastnet.cdefs.batch_single cimport fn_batch_single_receive, fn_batch_single_reply
from fastnet.cdefs.service cimport fn_call, fn_service
from fastnet.engine.context_c cimport NativeLoopContext
from fastnet.engine.datagram._loop_c cimport run_loop

from fastnet.limits import DATAGRAM_DRAIN_BATCHES_MAX, DATAGRAMS_PER_TURN


cdef inline void answer_datagram(fn_batch *batch, char *bytes, uint32_t n) noexcept nogil:
    """One datagram: the reply is sent immediately."""
    cdef const fn_service *service = batch.context.service
    cdef fn_call *call = batch.call
    call.bytes = bytes
    call.n = n
    call.peer = batch.peer
    call.peer_bytes = fn_batch_peer_bytes(batch, 0)
    call.reply.parts = 0
    call.reply.flags = 0
    if service.batch != NULL:
        batch.calls.n = 1
        service.batch(service, &batch.calls)
        batch.calls.n = 0
    elif service.datagram != NULL:
        service.datagram(service, bytes, n, &call.reply)
    if call.reply.parts:
        fn_batch_single_reply(batch, &call.reply, n)


cdef int handle_messages(fn_batch *batch, int messages_max) noexcept nogil:
    """Receive and answer up to messages_max. Returns -errno if there were fewer (-EAGAIN: nothing
    is queued any more).
    """
    cdef uint32_t bytes, segment
    cdef char *datagram
    cdef int i, result
    for i in range(messages_max):
        result = fn_batch_single_receive(batch)
        if result < 0:
            return result
        datagram = fn_batch_message(batch, 0, &bytes, &segment)
        if datagram != NULL:
            answer_datagram(batch, datagram, bytes)
    return 0


def run(context):
    """Serve the context's socket until it is stopped (engine/datagram/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef int messages_max = DATAGRAMS_PER_TURN
    cdef int drain_batches = DATAGRAM_DRAIN_BATCHES_MAX
    cdef int result
    with nogil:
        result = run_loop(&native.c, False, handle_messages, messages_max, drain_batches)
    raise_errno(result)
