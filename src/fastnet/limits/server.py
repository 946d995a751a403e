"""Bounds of servers, their loops and the clients of streams and datagrams."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.limits.units import KIB, MIB

READ_BYTES = 64 * KIB
"""One read. All connections of a loop share one buffer of this size, so it stays in the L2
cache.
"""

ACCEPT_BURST = 64
"""Connections accepted in one turn of a loop before the established ones get their turn."""

ACCEPT_PAUSE_S = 0.1
"""Rest after accept(2) ran out of descriptors or memory; Trio and Go's net/http rest as long."""

BACKLOG = 4096
"""Connections the kernel may hold for us between handshake and accept; it caps this at
net.core.somaxconn.
"""

IDLE_TIMEOUT_S = 300.0
"""A connection with no byte in either direction for so long is closed. 0: never."""

DRAIN_S = 5.0
"""How long established connections may go on after SIGTERM."""

WRITE_BUFFER_BYTES_MAX = 256 * MIB
"""Bytes that all connections of one loop together may have waiting for slow readers."""

DATAGRAMS_PER_TURN = 64
"""Datagrams received before a loop checks the stop signal. The native loop receives them with one
recvmmsg(2).
"""

DATAGRAM_DRAIN_BATCHES_MAX = 64
"""Batches in which a stopping server still answers what is queued; a flood does not keep it alive."""

DATAGRAM_SEND_TIMEOUT_S = 0.01
"""How long a reply waits for room in the send buffer before it is dropped, as a network would."""

ANSWERED_PORT_MIN = 1024
"""Datagrams from ports below are not answered: the services there would answer in turn (RFC 862,
864).
"""

UNVALIDATED_REPLY_BYTES_MAX = 512
"""Longest reply to a datagram that was shorter: its sender may be forged, and the reply somebody
else's flood.
"""

HANDLER_LOG_S = 1.0
"""A Python handler that fails is logged once in so long, with how often it failed meanwhile."""

HANDLER_PEERS_KEPT = 4096
"""Peers whose address stays a Python value from one datagram to the next."""

RING_BUFFERS = 16
"""Buffers that all connections of one uring loop share; a power of two."""

RING_BUFFER_BYTES = 64 * KIB
"""Size of each. The ring goes round, so all of it must stay in the L2 cache: 1 MiB is half of a
common one.
"""

RING_BULK_BYTES = 8 * KIB
"""A uring connection that sends this much at once is read like an epoll one: then copying counts,
not system calls.
"""

RING_BULK_READS = 16
"""Shorter reads in a row after which it is not any more."""

EVENTS_PER_WAIT = 256
"""Events fetched by one epoll_wait(2)."""

TICK_S = 0.25
"""A blocking engine looks up this often to see whether it should stop or the peer has been idle too
long.
"""

BUSY_POLL_US_MAX = 1_000_000
"""Longest --busy-poll. A loop that looks for a second before it sleeps does not sleep under any
load worth the name.
"""

FD_SETSIZE = 1024
"""Descriptors that select(2) can watch; fixed when glibc was compiled."""

SELECT_SPARE_DESCRIPTORS = 16
"""Descriptors below FD_SETSIZE that the select engine leaves to the rest of the process."""

POOL_SIZE = 16
"""Threads of the pool engine."""

POOL_QUEUE_MAX = 128
"""Accepted connections that may wait for a thread of the pool before accepting pauses."""

FORK_CONNECTIONS_MAX = 512
"""Processes the fork engine keeps at once unless told otherwise."""

THREAD_CONNECTIONS_MAX = 1024
"""Threads the thread engine keeps at once unless told otherwise."""

THREAD_STACK_BYTES = 128 * KIB
"""Stack of a native connection thread; its buffer is not on it. 16 times the deepest frame seen."""

SPARE_DESCRIPTORS = 64
"""Descriptors that the default connection limit leaves to files, logs and Python itself."""

DESCRIPTORS_WANTED = 1 << 20
"""Descriptors that a command which serves asks the system for; a hard limit may be lower, and one
of a
billion is not used up: a closing child walks, and tables are sized by, what the soft limit says."""

METRICS_CONNECTIONS_MAX = 8
"""Readers of the metrics served at once; one more is turned away."""

METRICS_DEADLINE_S = 5.0
"""A reader of the metrics that is not done by then is cut off, however busily it dribbles."""

NUMBER_MAX = 2**31 - 1
"""Largest whole number any option takes: the kernel's int."""

SECONDS_MAX = 1_000_000.0
"""Longest time any option takes, eleven days; native loops keep milliseconds in 32 bits, which hold
four times that.
"""

WORKERS_MAX = 256
"""Loops of one server."""

WORKER_RESTART_S = 1.0
"""A worker process that dies younger than this is replaced only after as long a rest."""

SUFFIX_BYTES_MAX = 4 * KIB
"""Longest --suffix. It is appended to every reply, so it must stay small beside READ_BYTES."""

CONNECT_TIMEOUT_S = 10.0
"""How long a client waits for a connection, the name look-up included."""

CONNECT_STAGGER_S = 0.25
"""Head start of one address of a name before the next one is tried beside it (RFC 8305,
section 5).
"""

LAST_REPLIES_S = 1.0
"""How long a datagram client listens for last replies: UDP has no end of stream that could tell it
to stop.
"""

CLIENT_TIMEOUT_MAX_S = 7 * 86400.0
"""Longest --timeout of a client: poll(2) counts milliseconds in 31 bits, which end after 24
days.
"""

DATAGRAM_BYTES_MAX = 65507
"""Largest UDP payload over IPv4: 65535 less 20 bytes of IP header and 8 of UDP header (udp(7))."""

SOCKET_FILE_TURN_S = 1.0
"""How long a server waits while others make their socket files in the same folder, each in less
than a millisecond.
"""

SOCKET_FILE_LOOK_S = 0.002
"""How often it looks whether it is its turn."""

UNIXGRAM_BYTES_MAX = 256 * KIB
"""Longest datagram taken from a Unix socket; the usual SO_SNDBUF lets 212,960 bytes through
(unix(7)).
"""

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
    "even one slow reader would exceed the parked bytes"
)
assert SUFFIX_BYTES_MAX < READ_BYTES, "a suffix would outweigh the reply it is appended to"
assert FD_SETSIZE - SELECT_SPARE_DESCRIPTORS >= 1000, "the select engine promises 1000 connections"
assert SECONDS_MAX * 1000 < 2**32, "a time-out would wrap around in the native loops"
assert TICK_S < DRAIN_S, "a blocking engine would sleep through the whole drain"
assert CLIENT_TIMEOUT_MAX_S * 1000 < 2**31, "poll(2) could not wait that long"
assert UNIXGRAM_BYTES_MAX <= UNIXGRAM_SNDBUF_BYTES, "the longest datagram could not be sent back"
assert DATAGRAM_BYTES_MAX <= READ_BYTES, "one read could not hold the largest datagram"
