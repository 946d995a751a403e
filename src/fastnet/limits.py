"""Every bound of fastnet, with its unit and the argument for its size.

Facts. A server without a bound has one anyway: the host's memory or descriptors, found at the worst moment.
Decision: each bound stands here once, by name and unit; the command line can change most of them, and both twins
receive them from here as arguments. Relations between bounds are asserted at the end, so that a change that breaks
one fails at import.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

READ_BYTES = 64 * KIB
"""One read. All connections of a loop share one buffer of this size, so it stays in the L2 cache."""

ACCEPT_BURST = 64
"""Connections accepted in one turn of a loop before the established ones get their turn."""

ACCEPT_PAUSE_S = 0.1
"""Rest after accept(2) ran out of descriptors or memory; Trio and Go's net/http rest as long."""

BACKLOG = 4096
"""Connections the kernel may hold for us between handshake and accept; it caps this at net.core.somaxconn."""

IDLE_TIMEOUT_S = 300.0
"""A connection with no byte in either direction for so long is closed. 0: never."""

DRAIN_S = 5.0
"""How long established connections may go on after SIGTERM."""

PARKED_BYTES_MAX = 256 * MIB
"""Bytes that all connections of one loop together may have waiting for slow readers."""

DATAGRAMS_PER_TURN = 64
"""Datagrams taken before a loop looks whether it should stop. The native loop takes them with one recvmmsg(2)."""

DATAGRAM_SWEEP_TURNS = 64
"""Turns in which a stopping server still answers what is queued; a flood does not keep it alive."""

SEND_PATIENCE_S = 0.01
"""How long a reply waits for room in the send buffer before it is dropped, as a network would."""

ANSWERED_PORTS_FROM = 1024
"""Datagrams from ports below are not answered: the services there would answer in turn (RFC 862, 864)."""

RING_BUFFERS = 16
"""Buffers that all connections of one uring loop share; a power of two."""

RING_BUFFER_BYTES = 64 * KIB
"""Size of each. The ring goes round, so all of it must stay in the L2 cache: 1 MiB is half of a common one."""

RING_BULK_BYTES = 8 * KIB
"""A uring connection that sends this much at once is read like an epoll one: then copying counts, not system calls."""

RING_BULK_READS = 16
"""Shorter reads in a row after which it is not any more."""

EVENTS_PER_WAIT = 256
"""Events fetched by one epoll_wait(2)."""

TICK_S = 0.25
"""A blocking engine looks up this often to see whether it should stop or the peer has been idle too long."""

BUSY_POLL_US_MAX = 1_000_000
"""Longest --busy-poll. A loop that looks for a second before it sleeps does not sleep under any load worth the name."""

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
"""Descriptors that a command which serves asks the system for; a hard limit may be lower, and one of a billion is not
used up: a closing child walks, and tables are sized by, what the soft limit says."""

METRICS_CONNECTIONS_MAX = 8
"""Readers of the metrics served at once; one more is turned away."""

METRICS_DEADLINE_S = 5.0
"""A reader of the metrics that is not done by then is cut off, however busily it dribbles."""

NUMBER_MAX = 2**31 - 1
"""Largest whole number any option takes: the kernel's int."""

SECONDS_MAX = 1_000_000.0
"""Longest time any option takes, eleven days; native loops keep milliseconds in 32 bits, which hold four times that."""

WORKERS_MAX = 256
"""Loops of one server."""

WORKER_RESTART_S = 1.0
"""A worker process that dies younger than this is replaced only after as long a rest."""

SUFFIX_BYTES_MAX = 4 * KIB
"""Longest --suffix. It is appended to every reply, so it must stay small beside READ_BYTES."""

CONNECT_TIMEOUT_S = 10.0
"""How long a client waits for a connection, the name look-up included."""

CONNECT_STAGGER_S = 0.25
"""Head start of one address of a name before the next one is tried beside it (RFC 8305, section 5)."""

LAST_REPLIES_S = 1.0
"""How long a datagram client listens for last replies: UDP has no end of stream that could tell it to stop."""

CLIENT_TIMEOUT_MAX_S = 7 * 86400.0
"""Longest --timeout of a client: poll(2) counts milliseconds in 31 bits, which end after 24 days."""

DATAGRAM_BYTES_MAX = 65507
"""Largest UDP payload over IPv4: 65535 less 20 bytes of IP header and 8 of UDP header (udp(7))."""

MOVER_STEP_BYTES = 2 * MIB
"""Most that one step of a mover asks the kernel to move, so that no peer and no cold disk holds a thread for long."""

MOVER_BUFFER_BYTES = 256 * KIB
"""Buffer of the copy mover. It goes through the cache twice, once each way, so it must stay in L2."""

MOVER_PIPE_BYTES = MIB
"""Pipe of the splice mover: 256 slots, one for each fragment of a packet; what the kernel allows without privilege."""

MOVER_WAKE_BYTES = 256 * KIB
"""A mover that receives into a file lets itself be woken for so much and not for each packet; what is less is taken at
the end of its slice."""

MOVER_SLICE_S = TICK_S
"""A mover comes back to Python this often, for signals, progress and time-outs."""

TRANSFER_STALL_S = 60.0
"""A transfer in which nothing has moved for so long has failed."""

TRANSFER_CLIENTS_MAX = 64
"""Clients that `send --keep-open` serves at once; more wait in the listener's backlog."""

STRANGERS_MAX = 64
"""Silent connections that a listening receiver holds while it waits for the one that sends."""

RETRY_PAUSE_S = 0.1
"""Rest between two attempts to reach a listener that is not up yet."""

LAST_WORDS_BYTES = 4 * KIB
"""What is kept of a raw receiver's last words."""

LAST_WORDS_BYTES_MAX = 64 * KIB
"""A raw receiver that says more than this is not listened to any longer."""

EXEC_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of exec/1: the smallest MTU of IPv6, 1280, less 48 bytes of headers, so that none is cut up on the way."""

EXEC_PART_BYTES = 1152
"""Output in one part. With the 61 bytes around it, it fits EXEC_DATAGRAM_BYTES_MAX."""

EXEC_PARTS_PER_FETCH = 32
"""Most parts asked for at once: 36 KiB, which any receive buffer holds."""

EXEC_CLOCK_S = 60.0
"""How far the clocks of client and server may be apart, and how long a client may try before its request is stale."""

EXEC_COOKIE_S = 60.0
"""A cookie is good for this long at least, and for twice as long at most."""

EXEC_RESULT_S = 300.0
"""How long a result waits to be fetched."""

EXEC_RECORDS_MAX = 4096
"""Executions and refusals a server remembers at once; one more is refused until some are old enough to be forgotten."""

EXEC_NONCES_MAX = 65536
"""Nonces not yet stale that a server keeps; at 60 bytes each in a file of 4 MB."""

EXEC_CONCURRENT_MAX = 32
"""Commands one server runs at once, of all names together."""

EXEC_KEPT_BYTES_MAX = 64 * MIB
"""Output that all results together may hold, counted by their limits from the moment a command starts."""

EXEC_OUTPUT_BYTES_MAX = 16 * MIB
"""Largest output limit of one command."""

EXEC_OUTPUT_BYTES = 64 * KIB
"""Output limit of a command whose table names none."""

EXEC_TIME_LIMIT_S = 10.0
"""Time limit of a command whose table names none."""

EXEC_TIME_LIMIT_MAX_S = 86400.0
"""Longest time limit of a command."""

EXEC_KILL_GRACE_S = 1.0
"""Time between SIGTERM and SIGKILL for a command at its time limit."""

EXEC_KEYS_MAX = 1024
"""Keys in one file."""

EXEC_ARGUMENTS_MAX = 32
"""Arguments a command may take."""

EXEC_REST_S = 0.1
"""A client sends again after this long without an answer, then after twice as long, and so on."""

EXEC_REST_MAX_S = 1.0
"""Longest rest between two datagrams of a client."""

EXEC_TIMEOUT_S = 10.0
"""A client that has heard nothing from the server for so long gives up."""

EXEC_STRANGERS_ANSWERED = 10
"""Unsigned answers a second to datagrams that nobody we know has signed."""

EXEC_COMPLAINT_S = 60.0
"""Least time between two lines of the log about datagrams from strangers."""

CHAT_DATAGRAM_BYTES_MAX = 1232
"""Largest datagram of a chat; EXEC_DATAGRAM_BYTES_MAX says why."""

CHAT_TEXT_BYTES_MAX = 448
"""Longest message. With ADDRESS--PORT# before it, 47 bytes at most, it stays below UNPROVEN_BYTES."""

UNPROVEN_BYTES = 512
"""Bytes an address that has proven nothing may get for each datagram it sends, if that was not longer."""

CHAT_NAME_CHARACTERS_MAX = 24
"""Longest name of a member."""

CHAT_MEMBERS_MAX = 1024
"""Members of one server at once."""

CHAT_RATE = 5
"""Messages a second that a member may send for long."""

CHAT_BURST = 20
"""Messages a member may send at once after a rest."""

CHAT_SILENT_S = 30.0
"""A member of chat/1 that was not heard for so long is gone; its client is heard three times in that while."""

CHAT_TEXTBOOK_SILENT_S = 600.0
"""The same for a member that only said `online`, as no program says more than that for its user."""

CHAT_UNREAD_MAX = 256
"""Events a member of chat/1 may have unacknowledged; one more and it is gone."""

CHAT_WINDOW = 16
"""Unacknowledged events that are on the way to one member at once."""

CHAT_HISTORY = 50
"""Messages of a room that somebody who comes is told; at most 16 events are on the way at once, so it is no burst."""

CHAT_ROOMS_MAX = 256
"""Rooms whose messages are kept. The one that was silent longest is forgotten first."""

CHAT_HINTS = 50
"""Hints a second to addresses that are not online."""

CHAT_TIMEOUT_S = 10.0
"""A chat client that has heard nothing for so long gives up."""


@dataclass(frozen=True)
class Limits:
    """The bounds one loop is given. Bytes, seconds and counts as the names say."""

    max_connections: int
    idle_timeout_s: float = IDLE_TIMEOUT_S
    parked_bytes_max: int = PARKED_BYTES_MAX
    read_bytes: int = READ_BYTES
    busy_poll_us: int = 0
    answer_any_port: bool = False
    accept_burst: int = ACCEPT_BURST
    accept_pause_s: float = ACCEPT_PAUSE_S
    events_per_wait: int = EVENTS_PER_WAIT
    tick_s: float = TICK_S
    ring_buffers: int = RING_BUFFERS
    ring_buffer_bytes: int = RING_BUFFER_BYTES
    ring_bulk_bytes: int = RING_BULK_BYTES
    ring_bulk_reads: int = RING_BULK_READS
    pool_size: int = POOL_SIZE
    pool_queue_max: int = POOL_QUEUE_MAX
    thread_stack_bytes: int = THREAD_STACK_BYTES


assert PARKED_BYTES_MAX >= 2 * (READ_BYTES + SUFFIX_BYTES_MAX), "even one slow reader would exceed the parked bytes"
assert SUFFIX_BYTES_MAX < READ_BYTES, "a suffix would outweigh the reply it is appended to"
assert FD_SETSIZE - SELECT_SPARE_DESCRIPTORS >= 1000, "the select engine promises 1000 connections"
assert SECONDS_MAX * 1000 < 2**32, "a time-out would wrap around in the native loops"
assert TICK_S < DRAIN_S, "a blocking engine would sleep through the whole drain"
assert CLIENT_TIMEOUT_MAX_S * 1000 < 2**31, "poll(2) could not wait that long"
assert DATAGRAM_BYTES_MAX <= READ_BYTES, "one read could not hold the largest datagram"
assert EXEC_PART_BYTES + 61 <= EXEC_DATAGRAM_BYTES_MAX, "a part would be cut up on the way"
assert EXEC_TIMEOUT_S < EXEC_CLOCK_S, "a client would still try when its request is stale"
assert EXEC_OUTPUT_BYTES_MAX <= EXEC_KEPT_BYTES_MAX, "no server could keep the longest output"
assert CHAT_HISTORY + CHAT_WINDOW < CHAT_UNREAD_MAX, "who comes would be gone before reading what was said"
assert CHAT_TEXT_BYTES_MAX + 47 <= UNPROVEN_BYTES, "a textbook member that proves nothing could not get a whole message"
assert 3 * CHAT_TIMEOUT_S <= CHAT_SILENT_S, "a lost sign of life would end a membership"
