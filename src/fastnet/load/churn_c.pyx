# cython: cdivision=True
"""Churn load: a connection per message. Native.

Facts, decision and cost are those of churn_py, function for function; here a connection costs its
system calls and little else. The address is the model's peer name, copied as the kernel gave it, so
TCP over IPv4 and IPv6 and Unix sockets are one code. The loop is load/_loop_c.pxd.
"""

from collections.abc import Callable, Sequence

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from fastnet.cdefs.clock cimport fn_now_ns
from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.hist cimport fn_hist_record
from fastnet.cdefs.inet cimport (
    AF_INET, IPPROTO_IP, bind, connect, getpeername, setsockopt, sockaddr, sockaddr_in,
    socket as c_socket, socklen_t,
)
from fastnet.cdefs.sys cimport (
    EAGAIN, EINPROGRESS, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, SHUT_WR, SOCK_CLOEXEC,
    SOCK_NONBLOCK, SOCK_STREAM, close, errno, fn_epoll_set, fn_recv, fn_send, shutdown,
    sockaddr_storage,
)
from fastnet.load._loop_c cimport (
    LoadLoop, load_loop_close, load_loop_open, load_loop_received, load_loop_run,
)

import socket

from fastnet.limits import READ_BYTES
from fastnet.load.contract import SOURCES, Tally, source_address
from fastnet.load.pattern import first_offset

cdef enum:
    BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT (ip(7)); older headers lack it


cdef struct ChurnClient:
    # Makes one connection after another.
    int fd                   # -1 between connections
    bint half_closed
    size_t offset            # of its next message in the pattern
    uint64_t quota           # connections it may still make
    uint64_t unread          # bytes of this message that have not come back
    uint64_t unsent          # bytes of this message not sent yet
    uint64_t started_ns      # before socket(2)
    uint64_t moved_ns        # last time a byte moved in either direction
    ChurnClient *next_idle


cdef struct ChurnLoad:
    # All clients of one exchange; belongs to one thread.
    LoadLoop loop
    ChurnClient *clients
    ChurnClient *idle        # clients without a connection that have a quota
    unsigned char *buffer
    size_t read_bytes
    sockaddr_storage target
    socklen_t target_bytes
    uint32_t *sources        # addresses to connect from, in network byte order
    uint32_t sources_used    # 0: the kernel picks the address
    uint64_t connects        # attempts


def exchange(connections: Sequence, plan, bytes pattern, on_edge: Callable) -> Tally:
    cdef ChurnLoad load
    tally = Tally()
    memset(&load, 0, sizeof(load))
    load.loop.start = start_all
    load.loop.reopen = connect_idle
    load.loop.visit = visit
    load.loop.enforce_deadlines = end_stalled
    try:
        load_loop_open(&load.loop, plan, pattern, tally)
        open_clients(&load, connections[0], plan)
        load_loop_run(&load.loop, plan, on_edge, tally)
    finally:
        close_clients(&load)
        load_loop_close(&load.loop)
    return tally


cdef int open_clients(ChurnLoad *load, model, plan) except -1:
    cdef int number, descriptor = model.fileno()
    load.read_bytes = READ_BYTES
    load.target_bytes = sizeof(load.target)
    if getpeername(descriptor, <sockaddr *>&load.target, &load.target_bytes) < 0:
        raise_errno(-errno)
    if model.family == socket.AF_INET and model.getpeername()[0].startswith("127."):
        load.sources_used = SOURCES
    load.buffer = <unsigned char *>calloc(load.read_bytes, 1)
    load.sources = <uint32_t *>calloc(SOURCES, sizeof(uint32_t))
    load.clients = <ChurnClient *>calloc(load.loop.connections, sizeof(ChurnClient))
    if not (load.clients and load.buffer and load.sources):
        raise MemoryError()
    for number in range(load.loop.connections):
        load.clients[number].fd = -1
    for number in range(load.loop.connections):
        load.clients[number].offset = first_offset(number)
        load.clients[number].quota = plan.share(number)
    for number in range(SOURCES):
        load.sources[number] = int.from_bytes(socket.inet_aton(source_address(number)), "little")
    return 0


cdef void close_clients(ChurnLoad *load) noexcept:
    cdef int number
    if load.clients != NULL:
        for number in range(load.loop.connections):
            if load.clients[number].fd >= 0:
                close(load.clients[number].fd)
    free(load.clients)
    free(load.buffer)
    free(load.sources)


cdef void start_all(LoadLoop *loop) noexcept nogil:
    cdef ChurnLoad *load = <ChurnLoad *>loop
    cdef int number
    for number in range(loop.connections):
        if load.clients[number].quota:
            add_idle(load, &load.clients[number])


cdef void connect_idle(LoadLoop *loop) noexcept nogil:
    cdef ChurnLoad *load = <ChurnLoad *>loop
    cdef ChurnClient *client
    while load.idle != NULL and not loop.draining:
        client = load.idle
        load.idle = client.next_idle
        start_connection(load, client)


cdef void end_stalled(LoadLoop *loop) noexcept nogil:
    cdef ChurnLoad *load = <ChurnLoad *>loop
    cdef ChurnClient *client
    cdef int number
    for number in range(loop.connections):
        client = &load.clients[number]
        if client.fd >= 0 and loop.now_ns > client.moved_ns + loop.stall_ns:
            loop.stalled += 1
            end_connection(load, client)


cdef inline void add_idle(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    client.next_idle = load.idle
    load.idle = client


cdef int open_socket(ChurnLoad *load) noexcept nogil:
    """A connection that is made or being made. Returns a descriptor or -errno."""
    cdef sockaddr_in source
    cdef int failed, status = 0, one = 1
    cdef int kind = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC
    cdef int fd = c_socket((<sockaddr *>&load.target).sa_family, kind, 0)
    if fd < 0:
        return -errno
    if load.sources_used:
        memset(&source, 0, sizeof(source))
        source.sin_family = AF_INET
        source.sin_addr.s_addr = load.sources[load.connects % load.sources_used]
        setsockopt(fd, IPPROTO_IP, BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        status = bind(fd, <const sockaddr *>&source, sizeof(source))
    load.connects += 1
    if status == 0:
        status = connect(fd, <const sockaddr *>&load.target, load.target_bytes)
    if status < 0 and errno != EINPROGRESS:
        failed = -errno
        close(fd)
        return failed
    return fd


cdef void start_connection(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    """Connect, and send immediately if that is possible. A refused client makes no other."""
    cdef uint32_t events
    client.started_ns = fn_now_ns()
    client.moved_ns = client.started_ns
    client.unsent = load.loop.message_bytes
    client.unread = load.loop.message_bytes
    client.half_closed = False
    client.quota -= 1
    client.fd = open_socket(load)
    if client.fd < 0:
        client.fd = -1
        load.loop.refused += 1
        return
    load.loop.pending += 1
    if send_message(load, client):
        events = EPOLLIN | (EPOLLOUT if client.unsent else 0)
        fn_epoll_set(
            load.loop.epoll, EPOLL_CTL_ADD, client.fd, events, client - load.clients
        )


cdef void visit(LoadLoop *loop, uint64_t number, uint32_t events) noexcept nogil:
    cdef ChurnLoad *load = <ChurnLoad *>loop
    cdef ChurnClient *client = &load.clients[number]
    if client.unsent:
        if not send_message(load, client):
            return
        if client.unsent == 0:
            fn_epoll_set(loop.epoll, EPOLL_CTL_MOD, client.fd, EPOLLIN, number)
    if client.unsent < loop.message_bytes:
        receive(load, client)


cdef inline bint send_message(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    """Write once; half-close when all is sent. Returns whether the connection is still open."""
    cdef LoadLoop *loop = &load.loop
    cdef size_t start = (client.offset + loop.message_bytes - client.unsent) % loop.pattern_period
    cdef size_t size = min(client.unsent, <uint64_t>(loop.pattern_bytes - start))
    cdef ssize_t n = fn_send(client.fd, loop.pattern + start, size, 0)
    if n < 0:
        return True if n == -EAGAIN else fail_connection(load, client)
    client.unsent -= n
    client.moved_ns = loop.now_ns
    if client.unsent == 0:
        client.half_closed = True
        if shutdown(client.fd, SHUT_WR) < 0:
            return fail_connection(load, client)
    return True


cdef inline void receive(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    """Read once, check; the end of the stream in the right place ends the connection."""
    cdef LoadLoop *loop = &load.loop
    cdef ssize_t n = fn_recv(client.fd, load.buffer, load.read_bytes, 0)
    cdef size_t start
    if n < 0:
        if n != -EAGAIN:
            fail_connection(load, client)
        return
    load_loop_received(loop)
    client.moved_ns = loop.now_ns
    if n == 0:
        finish_connection(load, client)
        return
    start = (client.offset + loop.message_bytes - client.unread) % loop.pattern_period
    if <uint64_t>n > client.unread - client.unsent or memcmp(load.buffer, loop.pattern + start, n):
        loop.mismatches += 1
        end_connection(load, client)
        return
    client.unread -= n


cdef inline void finish_connection(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    """The peer has sent FIN. If it owes nothing, the next connection may start."""
    if client.unread or not client.half_closed:
        fail_connection(load, client)
        return
    end_connection(load, client)
    if not load.loop.draining:
        load.loop.messages += 1
        load.loop.bytes += load.loop.message_bytes
        fn_hist_record(&load.loop.latency_ns, load.loop.now_ns - client.started_ns, 1)
    client.offset = (client.offset + load.loop.message_bytes) % load.loop.pattern_period
    if client.quota:
        add_idle(load, client)


cdef bint fail_connection(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    """An error: refused if nothing had been sent, else lost."""
    if client.unsent == load.loop.message_bytes:
        load.loop.refused += 1
    else:
        load.loop.lost += 1
    end_connection(load, client)
    return False


cdef void end_connection(ChurnLoad *load, ChurnClient *client) noexcept nogil:
    close(client.fd)
    client.fd = -1
    load.loop.pending -= 1
