"""Bounds of servers, their loops and the clients of streams and datagrams."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.limits.units import KIB, MIB

READ_BYTES = 64 * KIB
"""One read. All connections of a loop share one such buffer, so it stays in the L2 cache."""

ACCEPT_BURST = 64
"""Connections accepted in one iteration of a loop before established ones are served."""

ACCEPT_PAUSE_S = 0.1
"""Accept backoff after accept(2) ran out of descriptors or memory, as in Trio and Go's net/http."""

BACKLOG = 4096
"""Connections the kernel queues between handshake and accept; at most net.core.somaxconn."""

IDLE_TIMEOUT_S = 300.0
"""Idle timeout: a connection without a byte in either direction is closed. 0 disables it."""

DRAIN_S = 5.0
"""How long open connections may continue after SIGTERM."""

WRITE_BUFFER_BYTES_MAX = 256 * MIB
"""Write buffers of all connections of one loop together."""

DATAGRAMS_PER_TURN = 64
"""Datagrams received before a loop checks the stop signal. The native loop receives them with one
recvmmsg(2).
"""

DATAGRAM_DRAIN_BATCHES_MAX = 64
"""Batches in which a stopping server still serves queued datagrams, even during a flood."""

DATAGRAM_SEND_TIMEOUT_S = 0.01
"""How long a reply waits for room in the send buffer before it is dropped."""

ANSWERED_PORT_MIN = 1024
"""Datagrams from lower ports are ignored: the services there reply in turn (RFC 862, 864)."""

UNVALIDATED_REPLY_BYTES_MAX = 512
"""Longest reply to a shorter datagram of an unvalidated address, which may be forged: limits
amplification (RFC 9000, section 8).
"""

HANDLER_LOG_S = 1.0
"""Interval of log lines about a Python handler that fails; each has the number of failures."""

HANDLER_PEERS_KEPT = 4096
"""Peers whose address is cached as a Python value from one datagram to the next."""

RING_BUFFERS = 16
"""Buffers that all connections of one uring loop share; a power of two."""

RING_BUFFER_BYTES = 64 * KIB
"""Size of each. The ring goes round, so all of it must stay in the L2 cache: 1 MiB is half of a
common one.
"""

RING_BULK_BYTES = 8 * KIB
"""After a receive of this size a uring connection is read as with epoll: then the copy dominates,
not the system call.
"""

RING_BULK_READS = 16
"""Consecutive shorter reads after which it is read by multishot receives again."""

EVENTS_PER_WAIT = 256
"""Events fetched by one epoll_wait(2)."""

TICK_S = 0.25
"""A blocking engine checks this often for a stop request and for idle peers."""

BUSY_POLL_US_MAX = 1_000_000
"""Longest --busy-poll. A loop that polls for a second before it blocks never blocks under load."""

FD_SETSIZE = 1024
"""Descriptors that select(2) can watch; fixed when glibc was compiled."""

SELECT_SPARE_DESCRIPTORS = 16
"""Descriptors below FD_SETSIZE that the select engine leaves to the rest of the process."""

POOL_SIZE = 16
"""Threads of the pool engine."""

POOL_QUEUE_MAX = 128
"""Accepted connections that may wait for a thread of the pool before accepting pauses."""

FORK_CONNECTIONS_MAX = 512
"""Most concurrent processes of the fork engine by default."""

THREAD_CONNECTIONS_MAX = 1024
"""Most concurrent threads of the thread engine by default."""

THREAD_STACK_BYTES = 128 * KIB
"""Stack of a native connection thread; its buffer is not on it. 16 times the deepest frame seen."""

SPARE_DESCRIPTORS = 64
"""Descriptors that the default connection limit leaves to files, logs and Python itself."""

DESCRIPTORS_WANTED = 1 << 20
"""Soft descriptor limit of a serving command, if the hard limit allows it. A limit of a billion is
not used up: a child that closes its descriptors walks the soft limit, and tables are sized by it.
"""

METRICS_CONNECTIONS_MAX = 8
"""Most concurrent connections to the metrics; one more is closed."""

METRICS_DEADLINE_S = 5.0
"""A connection to the metrics is closed after this time, even if it still sends."""

NUMBER_MAX = 2**31 - 1
"""Largest whole number of any option: the kernel's int."""

SECONDS_MAX = 1_000_000.0
"""Longest duration of any option, eleven days; a quarter of 2**32 ms, as native loops count."""

WORKERS_MAX = 256
"""Loops of one server."""

WORKER_RESTART_S = 1.0
"""A worker process that dies within this time is restarted only after this delay."""

SUFFIX_BYTES_MAX = 4 * KIB
"""Longest --suffix. It is appended to every reply, so it must stay small beside READ_BYTES."""

CONNECT_TIMEOUT_S = 10.0
"""Timeout of a client's connect, name lookup included."""

CONNECT_STAGGER_S = 0.25
"""Connection attempt delay of Happy Eyeballs (RFC 8305, section 5)."""

LAST_REPLIES_S = 1.0
"""How long a datagram client waits for the last replies: UDP has no end of stream."""

CLIENT_TIMEOUT_MAX_S = 7 * 86400.0
"""Longest --timeout of a client: poll(2) counts milliseconds in 31 bits, which end after 24
days.
"""

DATAGRAM_BYTES_MAX = 65507
"""Largest UDP payload over IPv4: 65535 less 20 bytes of IP header and 8 of UDP header (udp(7))."""

SOCKET_FILE_TURN_S = 1.0
"""How long a server waits for the directory lock; other servers hold it for under a millisecond."""

SOCKET_FILE_LOOK_S = 0.002
"""How often it tries to get the lock."""

UNIXGRAM_BYTES_MAX = 256 * KIB
"""Longest datagram received from a Unix socket; the default SO_SNDBUF allows 212,960 (unix(7))."""

UNIXGRAM_SNDBUF_BYTES = 4 * MIB
"""SO_SNDBUF of a Unix datagram server: replies count against it until they are read, also those to
peers that never read. The kernel cuts it at net.core.wmem_max."""


@dataclass(frozen=True)
class Limits:
    """The bounds one loop is given. Bytes, seconds and counts as the names say."""

    max_connections: int
    idle_timeout_s: float = IDLE_TIMEOUT_S
    write_buffer_bytes_max: int = WRITE_BUFFER_BYTES_MAX
    read_bytes: int = READ_BYTES
    busy_poll_us: int = 0
    answer_any_port: bool = False
    unvalidated_reply_bytes_max: int = UNVALIDATED_REPLY_BYTES_MAX
    datagram_bytes_max: int = DATAGRAM_BYTES_MAX
    accept_burst: int = ACCEPT_BURST
    accept_drain_max: int = BACKLOG
    accept_pause_s: float = ACCEPT_PAUSE_S
    answered_port_min: int = ANSWERED_PORT_MIN
    send_timeout_s: float = DATAGRAM_SEND_TIMEOUT_S
    events_per_wait: int = EVENTS_PER_WAIT
    tick_s: float = TICK_S
    ring_buffers: int = RING_BUFFERS
    ring_buffer_bytes: int = RING_BUFFER_BYTES
    ring_bulk_bytes: int = RING_BULK_BYTES
    ring_bulk_reads: int = RING_BULK_READS
    pool_size: int = POOL_SIZE
    pool_queue_max: int = POOL_QUEUE_MAX
    thread_stack_bytes: int = THREAD_STACK_BYTES


assert WRITE_BUFFER_BYTES_MAX >= 2 * (READ_BYTES + SUFFIX_BYTES_MAX), (
    "one slow reader would exceed the write buffer"
)
assert SUFFIX_BYTES_MAX < READ_BYTES, "a suffix would outweigh the reply it is appended to"
assert FD_SETSIZE - SELECT_SPARE_DESCRIPTORS >= 1000, "the select engine promises 1000 connections"
assert SECONDS_MAX * 1000 < 2**32, "a time-out would wrap around in the native loops"
assert TICK_S < DRAIN_S, "a blocking engine would sleep through the whole drain"
assert CLIENT_TIMEOUT_MAX_S * 1000 < 2**31, "poll(2) could not wait that long"
assert UNIXGRAM_BYTES_MAX <= UNIXGRAM_SNDBUF_BYTES, "the longest datagram could not be sent back"
assert DATAGRAM_BYTES_MAX <= READ_BYTES, "one read could not hold the largest datagram"
