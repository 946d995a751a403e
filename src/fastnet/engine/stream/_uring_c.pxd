"""The state of one uring loop, and the user_data that names what a completion answers.

Facts. user_data is 64 bits that come back with each completion, also after the connection that
submitted the request is closed.
Decision: the top byte is the operation, then 24 bits of the slot's generation, then the slot (or
the index of a listener), so a late completion is recognised. Connections are in
_uring_connection_c.pxd, listeners in _uring_accept_c.pxd, the loop in uring_c.pyx. All functions
are inline, as in _loop_c.pxd.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastnet.cdefs.context cimport FN_LISTENERS_MAX, fn_context
from fastnet.cdefs.ring cimport fn_ring
from fastnet.cdefs.ring_queue cimport fn_ring_prepare
from fastnet.cdefs.stream cimport fn_stream
from fastnet.cdefs.uring_abi cimport FN_OP_ASYNC_CANCEL

cdef enum Operation:  # the top byte of user_data
    RECV = 1
    SEND = 2
    ACCEPT = 3
    STOP = 4
    CANCEL = 5
    POLL = 6
    REREAD = 7


cdef struct RingConnection:    # of a connection, beside its slot in fn_slots
    char *deferred             # input received while a send is out, for the service to get later
    uint32_t deferred_bytes    # its length
    uint32_t deferred_room     # the size of its block
    uint8_t requests           # submitted and not completed
    uint8_t lifecycle          # enum Lifecycle
    uint8_t read_mode          # enum ReadMode
    uint8_t poll_input         # enum PollInput
    uint8_t sending            # a send is out
    uint8_t bulk_reads         # short reads until messages count as short again; 0: they do
    uint8_t hung_up            # polled: end of stream or an error is behind the input
    uint8_t fin_deferred       # the peer's FIN came behind the deferred input
    uint8_t why                # enum fn_closed, once CLOSING


cdef struct RingLoop:
    fn_stream stream
    const fn_context *context
    fn_ring ring
    RingConnection *connection              # by slot
    uint32_t bulk_bytes                     # a read this long makes messages count as long
    uint32_t bulk_reads                     # short reads in a row that end that
    uint8_t[FN_LISTENERS_MAX] accept_mode   # enum AcceptMode: what is out on each listener
    uint8_t[FN_LISTENERS_MAX] cancelling    # and has been cancelled
    bint full                               # no slot is free
    bint backing_off                        # accepting pauses until accept_resume_ms
    uint32_t accept_resume_ms
    bint draining                           # the request to drain has been seen
    int accepts_left                        # while draining: connections that may be accepted
    bint listeners_shut


cdef inline uint64_t user_data(int operation, uint32_t generation, uint32_t slot) noexcept nogil:
    return <uint64_t>operation << 56 | <uint64_t>(generation & 0xFFFFFF) << 32 | slot


cdef inline void cancel(RingLoop *loop, uint64_t target) noexcept nogil:
    """Cancel the request with user_data `target`."""
    fn_ring_prepare(&loop.ring, FN_OP_ASYNC_CANCEL, -1, user_data(CANCEL, 0, 0)).address = target
