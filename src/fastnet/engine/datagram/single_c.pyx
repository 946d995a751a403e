"""One datagram at a time: recvmsg(2), the service, sendmsg(2). Native.

Facts. A train of joined datagrams is cut by the kernel as long as nobody asks for UDP_GRO.
Decision: the same as single_py with the GIL released, and mmsg_c without its batches: what differs
between it and one of them is what the language costs, or what batches spare. A reply is out before
the next datagram is looked at.
Cost: two system calls a datagram; a service that has to enter Python does so for each.
"""

from libc.stdint cimport uint32_t

from fastnet.cdefs.batch cimport fn_batch, fn_batch_peer_bytes, fn_batch_train
from fastnet.cdefs.batch_loop cimport fn_batch_run
from fastnet.cdefs.batch_single cimport fn_single_answer, fn_single_take
from fastnet.cdefs.service cimport fn_call, fn_service
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext

from fastnet.limits import DATAGRAM_SWEEP_TURNS, DATAGRAMS_PER_TURN


cdef inline void ask(fn_batch *batch, char *bytes, uint32_t n) noexcept nogil:
    """What the service says to it goes out."""
    cdef const fn_service *service = batch.context.service
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
    """Take and answer up to `most`. Returns -errno if there were fewer (-EAGAIN: nothing is queued
    any more).
    """
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


def run(context):
    """Serve context's socket until it is stopped (engine/datagram/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef int most = DATAGRAMS_PER_TURN
    cdef int sweep = DATAGRAM_SWEEP_TURNS
    cdef int result
    with nogil:
        result = fn_batch_run(&native.c, 0, take_some, most, sweep)
    raise_errno(result)
