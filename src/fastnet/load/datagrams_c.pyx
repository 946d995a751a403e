# cython: cdivision=True
"""Closed-loop load of datagrams: one is sent when one is back or lost. Native.

Facts and decision are those of datagrams_py, function for function. Decision of its own: what one
recvmmsg(2) brought is started again with one sendmmsg(2). Neither joins nor cuts datagrams, so the
server meets an ordinary client. The loop is load/_loop_c.pxd.
Cost: the load's share of a datagram is near that of a server that joins none.
"""

from collections.abc import Callable, Sequence

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from fastnet.cdefs.clock cimport fn_now_ns
from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.hist cimport fn_hist_record
from fastnet.cdefs.mmsg cimport iovec, mmsghdr, recvmmsg, sendmmsg
from fastnet.cdefs.sys cimport (
    EAGAIN, EINTR, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, MSG_DONTWAIT, MSG_NOSIGNAL, errno,
    fn_epoll_set, fn_recv,
)
from fastnet.load._loop_c cimport (
    LoadLoop, load_loop_close, load_loop_open, load_loop_received, load_loop_run,
)

from fastnet.load.contract import LOST_S, NS_PER_S, SEQUENCE_BYTES, SEQUENCE_STEP, Tally
from fastnet.load.pattern import first_offset

cdef enum:
    BATCH = 64
    DATAGRAM_ROOM = 65536


cdef struct WindowSlot:
    # One place of a window of sequence numbers.
    uint64_t sequence        # in flight, or the one it takes next
    uint64_t started_ns
    bint in_flight


cdef struct SendWindow:
    # One socket.
    int fd
    bint open
    size_t offset            # of sequence number 0 in the pattern
    uint64_t quota           # datagrams it may still start
    uint32_t outstanding     # slots in flight
    WindowSlot *slots


cdef struct DatagramLoad:
    # All sockets of one exchange; belongs to one thread.
    LoadLoop loop
    SendWindow *windows
    WindowSlot *slots
    uint32_t in_flight       # slots of a window
    uint64_t lost_ns
    size_t sequence_bytes
    size_t sequence_step
    unsigned char *memory    # of the receive buffers
    mmsghdr[BATCH] received
    iovec[BATCH] buffers
    uint32_t queued          # datagrams in `sent`
    mmsghdr[BATCH] sent
    iovec[2 * BATCH] parts
    uint64_t[BATCH] sequences


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef DatagramLoad *load = <DatagramLoad *>calloc(1, sizeof(DatagramLoad))
    if load == NULL:
        raise MemoryError()
    tally = Tally()
    load.loop.start = start_all
    load.loop.visit = visit
    load.loop.enforce_deadlines = give_up_lost
    try:
        load_loop_open(&load.loop, plan, pattern, tally)
        open_batches(load)
        open_windows(load, connections, plan)
        load_loop_run(&load.loop, plan, on_edge, tally)
    finally:
        load_loop_close(&load.loop)
        free(load.windows)
        free(load.slots)
        free(load.memory)
        free(load)
    return tally


cdef int open_batches(DatagramLoad *load) except -1:
    cdef int k
    load.lost_ns = round(LOST_S * NS_PER_S)
    load.sequence_bytes = SEQUENCE_BYTES
    load.sequence_step = SEQUENCE_STEP
    load.memory = <unsigned char *>calloc(BATCH, DATAGRAM_ROOM)
    if load.memory == NULL:
        raise MemoryError()
    for k in range(BATCH):
        load.buffers[k].iov_base = load.memory + <size_t>k * DATAGRAM_ROOM
        load.buffers[k].iov_len = DATAGRAM_ROOM
        load.received[k].msg_hdr.msg_iov = &load.buffers[k]
        load.received[k].msg_hdr.msg_iovlen = 1
        load.parts[2 * k].iov_base = &load.sequences[k]
        load.parts[2 * k].iov_len = load.sequence_bytes
        load.sent[k].msg_hdr.msg_iov = &load.parts[2 * k]
        load.sent[k].msg_hdr.msg_iovlen = 2
    return 0


cdef int open_windows(DatagramLoad *load, connections, plan) except -1:
    cdef SendWindow *window
    cdef int number, slot, size = len(connections)
    load.in_flight = plan.in_flight
    load.loop.connections = size
    load.windows = <SendWindow *>calloc(size, sizeof(SendWindow))
    load.slots = <WindowSlot *>calloc(<size_t>size * load.in_flight, sizeof(WindowSlot))
    if not (load.windows and load.slots):
        raise MemoryError()
    for number in range(size):
        window = &load.windows[number]
        window.fd = connections[number].fileno()
        window.open = True
        window.offset = first_offset(number)
        window.quota = plan.share(number)
        window.slots = load.slots + <size_t>number * load.in_flight
        for slot in range(<int>load.in_flight):
            window.slots[slot].sequence = slot
        raise_errno(fn_epoll_set(load.loop.epoll, EPOLL_CTL_ADD, window.fd, EPOLLIN, number))
    return 0


cdef void start_all(LoadLoop *loop) noexcept nogil:
    cdef DatagramLoad *load = <DatagramLoad *>loop
    cdef uint32_t slot
    cdef int number
    loop.now_ns = fn_now_ns()
    for number in range(loop.connections):
        for slot in range(load.in_flight):
            start_datagram(load, &load.windows[number], slot)
        flush(load, &load.windows[number])


cdef void give_up_lost(LoadLoop *loop) noexcept nogil:
    cdef DatagramLoad *load = <DatagramLoad *>loop
    cdef SendWindow *window
    cdef WindowSlot *slot
    cdef uint32_t index
    cdef int number
    for number in range(loop.connections):
        window = &load.windows[number]
        for index in range(load.in_flight):
            slot = &window.slots[index]
            if slot.in_flight and loop.now_ns > slot.started_ns + load.lost_ns:
                loop.lost += 1
                free_slot(load, window, slot)
                start_datagram(load, window, index)
        flush(load, window)


cdef void visit(LoadLoop *loop, uint64_t number, uint32_t events) noexcept nogil:
    """Receive a batch and start as many."""
    cdef DatagramLoad *load = <DatagramLoad *>loop
    cdef SendWindow *window = &load.windows[number]
    cdef int k, n
    if not window.open:
        return
    n = receive_batch(load, window)
    if n < 0:
        if n != -EAGAIN and n != -EINTR:
            end_window(load, window)
        return
    load_loop_received(loop)
    for k in range(n):
        if window.open:
            check_datagram(
                load, window, <const unsigned char *>load.buffers[k].iov_base,
                load.received[k].msg_len,
            )
    flush(load, window)


cdef inline int receive_batch(DatagramLoad *load, SendWindow *window) noexcept nogil:
    """Receive what is queued, at most a batch. Returns how many datagrams, or -errno."""
    cdef ssize_t n
    if load.in_flight == 1:
        n = fn_recv(window.fd, load.memory, DATAGRAM_ROOM, MSG_DONTWAIT)
        if n < 0:
            return <int>n
        load.received[0].msg_len = <unsigned int>n
        return 1
    n = recvmmsg(window.fd, load.received, BATCH, MSG_DONTWAIT, NULL)
    return -errno if n < 0 else <int>n


cdef inline void free_slot(
    DatagramLoad *load, SendWindow *window, WindowSlot *slot
) noexcept nogil:
    slot.in_flight = False
    slot.sequence += load.in_flight
    window.outstanding -= 1
    load.loop.pending -= 1


cdef inline size_t offset_of(
    const DatagramLoad *load, const SendWindow *window, uint64_t sequence
) noexcept nogil:
    return (window.offset + sequence * load.sequence_step) % load.loop.pattern_period


cdef inline void start_datagram(
    DatagramLoad *load, SendWindow *window, uint32_t index
) noexcept nogil:
    """Queue the next sequence number of a slot, if there is one to send."""
    cdef WindowSlot *slot = &window.slots[index]
    cdef iovec *payload
    if not window.quota or load.loop.draining or not window.open:
        return
    if load.queued == BATCH:
        flush(load, window)
    window.quota -= 1
    window.outstanding += 1
    load.loop.pending += 1
    slot.in_flight = True
    slot.started_ns = load.loop.now_ns
    load.sequences[load.queued] = slot.sequence
    payload = &load.parts[2 * load.queued + 1]
    payload.iov_base = <void *>(load.loop.pattern + offset_of(load, window, slot.sequence))
    payload.iov_len = load.loop.message_bytes - load.sequence_bytes
    load.queued += 1


cdef inline void flush(DatagramLoad *load, SendWindow *window) noexcept nogil:
    """Send what is queued. What the kernel has no room for is as good as lost."""
    cdef uint32_t at = 0
    cdef int n
    while at < load.queued and window.open:
        n = sendmmsg(window.fd, load.sent + at, load.queued - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n > 0:
            at += n
        elif errno == EAGAIN:
            break
        elif errno != EINTR:
            end_window(load, window)
    load.queued = 0


cdef inline void check_datagram(
    DatagramLoad *load, SendWindow *window, const unsigned char *data, size_t n
) noexcept nogil:
    cdef uint64_t sequence = 0
    cdef uint32_t index
    cdef WindowSlot *slot
    memcpy(&sequence, data, min(n, load.sequence_bytes))
    index = sequence % load.in_flight
    slot = &window.slots[index]
    if not is_echo(load, window, slot, sequence, data, n):
        load.loop.mismatches += 1
        end_window(load, window)
        return
    if sequence != slot.sequence:
        return  # late, or duplicated by the network: it was counted once
    free_slot(load, window, slot)
    if not load.loop.draining:
        load.loop.messages += 1
        load.loop.bytes += n
        fn_hist_record(&load.loop.latency_ns, load.loop.now_ns - slot.started_ns, 1)
    start_datagram(load, window, index)


cdef inline bint is_echo(
    const DatagramLoad *load, const SendWindow *window, const WindowSlot *slot,
    uint64_t sequence, const unsigned char *data, size_t n,
) noexcept nogil:
    """Whether these are the bytes that were sent with this sequence number."""
    if n != load.loop.message_bytes or sequence > slot.sequence:
        return False
    if sequence == slot.sequence and not slot.in_flight:
        return False
    return memcmp(
        data + load.sequence_bytes, load.loop.pattern + offset_of(load, window, sequence),
        n - load.sequence_bytes,
    ) == 0


cdef void end_window(DatagramLoad *load, SendWindow *window) noexcept nogil:
    """The peer is gone, or its datagrams are wrong. What was in flight is lost."""
    cdef uint32_t index
    window.open = False
    load.loop.lost += window.outstanding
    load.loop.pending -= window.outstanding
    window.outstanding = 0
    for index in range(load.in_flight):
        window.slots[index].in_flight = False
    fn_epoll_set(load.loop.epoll, EPOLL_CTL_DEL, window.fd, 0, 0)
