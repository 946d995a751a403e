"""Contract of a load generator: its plan, its report, and what both twins promise.

1. A plan opens its connections first, at most PENDING_CONNECTS_MAX at a time; none is measured
   before all are open or refused.
2. Closed loop: each connection keeps `in_flight` messages of `message_bytes` in flight and starts a
   new one only when one has come back. So a slow server gets fewer requests, and the latencies are
   those of a server that is never offered more than it answers (coordinated omission). For latency
   at a given rate, use an open loop.
3. A message has come back when its last byte was read; its latency counts from the moment it was
   started, before the call that hands it to the kernel, to the moment after that read. Messages
   started together share their start.
4. Every byte that comes back is compared with the byte that was sent at its offset in the stream.
   The streams of two connections start at different offsets of one pseudo-random pattern, so lost,
   repeated, altered, swapped and foreign bytes are detected. The first wrong byte, or one more than
   was sent, ends the connection: one mismatch.
5. `messages` are divided beforehand, as evenly as whole numbers allow. What an ended connection
   still owed of its share is not given to others, so a run that meets a fault reports fewer
   messages than were requested.
6. The window opens after the warm-up and closes when `seconds` are over, or all shares are done, or
   no connection is left. Only messages that came back inside the window count; `bytes` are the
   correct bytes read inside it.
7. After the window no message is started. Each connection half-closes, must receive all that it
   sent, and then the end of the stream. Faults of this drain are reported like those of the window.
8. A peer that ends the connection (FIN or RST) while it owes bytes is one `lost`. A peer with which
   no byte moved in either direction for `stall_s`, though it owes bytes or the end, is one
   `stalled`. A connection that could not be made is one `refused`. No connection is counted twice,
   and none delays the others.
9. A load that makes its own connections (churn) is given one as a model and makes `connections` at
   a time to its peer, one message each; its latency counts from before socket(2) to after the read
   of the end of the stream. A connection that cannot be made, or breaks before anything was sent on
   it, is one `refused`, and its client makes no other.
10. A load of datagrams keeps `in_flight` of them in flight on each socket. The first SEQUENCE_BYTES
    of one are its sequence number, which alone determines the rest; anything else, or more than was
    sent, is one mismatch and ends the socket's part. What has not come back within LOST_S is one
    `lost`, and the next number takes its slot; that it comes later, or twice, is no fault of the
    server. What the kernel has no room for is lost too: over a Unix socket everything beyond the
    server's queue of net.unix.max_dgram_qlen. A socket that is refused (no receiver) loses what it
    had in flight.
11. A run always ends: after warm-up and window at most, and then at most `stall_s` (and a tick)
    after the last byte moved. In the main thread an interrupt is handled within a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Protocol

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.limits import BUSY_POLL_US_MAX, KIB, MIB
from fastnet.metrics.histogram import Histogram

STALL_S = 5.0
"""Longest time a peer may owe bytes without moving one."""

PENDING_CONNECTS_MAX = 256
"""Connects in progress at one time. Fewer than the smallest usual backlog, so that no SYN is
retransmitted.
"""

PATTERN_PERIOD = 65521
"""Bytes before the pattern repeats. A prime, so that no lost or repeated block of a server's buffer
size fits it.
"""

CONNECTIONS_MAX = PATTERN_PERIOD
"""Each connection has its own offset in the pattern."""

IN_FLIGHT_MAX = 64 * KIB
"""Messages in flight on one connection. Each may need a time stamp of 16 bytes."""

MESSAGE_BYTES_MAX = 1024 * MIB
"""One message."""

SEQUENCE_BYTES = 8
"""The sequence number of a datagram, little-endian, at its beginning."""

SEQUENCE_STEP = 40
"""Offset in the pattern between one sequence number and the next."""

LOST_S = 0.5
"""A datagram that has not come back by then is lost."""

SOURCES = 64
"""Source addresses of a load that makes a connection per message: 64 times 28,000 ports outlast
their TIME_WAIT.
"""

UNLIMITED = 2**63 - 1
"""Messages of a connection whose end is the clock."""

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class LoadPlan:
    """What to send.

    At least one of seconds and messages is given; with both, the first one reached ends the window.
    """

    endpoint: Endpoint
    """The echo server."""

    connections: int = 1
    """Connections, or sockets of datagrams, at the same time."""

    message_bytes: int = 64
    """Length of each message."""

    in_flight: int = 1
    """Messages that a connection has sent and not received back (pipelining)."""

    seconds: float | None = None
    """Length of the window; None: until all messages are done."""

    messages: int | None = None
    """Messages of all connections together; None: until the seconds are over."""

    warmup_s: float = 0.0
    """Load that runs before the window opens. Not with messages, whose count is exact from the
    first one.
    """

    stall_s: float = STALL_S
    """Longest time a peer may owe bytes without moving one; also the connect timeout."""

    cpu: int | None = None
    """Processor that the loading thread is pinned to; None: wherever the kernel puts it."""

    busy_poll_us: int = 0
    """Microseconds to busy-poll before blocking; 0 blocks immediately."""

    def __post_init__(self) -> None:
        within("connections", self.connections, CONNECTIONS_MAX)
        within("message bytes", self.message_bytes, MESSAGE_BYTES_MAX)
        within("messages in flight", self.in_flight, IN_FLIGHT_MAX)
        if self.seconds is None and self.messages is None:
            raise ConfigError("a load without an end", "Give seconds, messages or both")
        if (
            (self.seconds is not None and self.seconds <= 0)
            or self.warmup_s < 0
            or self.stall_s <= 0
        ):
            raise ConfigError("a load cannot last no time", "Give positive seconds")
        if not 0 <= self.busy_poll_us <= BUSY_POLL_US_MAX:
            raise ConfigError(
                f"cannot busy-poll for {self.busy_poll_us} microseconds",
                f"Give 0 to {BUSY_POLL_US_MAX}",
            )
        if self.messages is not None and self.messages < 1:
            raise ConfigError(f"cannot load with {self.messages} messages", "Give at least 1")
        if self.messages is not None and self.warmup_s:
            raise ConfigError(
                "a number of messages has no warm-up",
                "Give seconds instead of messages, or no warm-up",
            )

    def share(self, connection: int) -> int:
        """The number of messages this connection may start (5)."""
        if self.messages is None:
            return UNLIMITED
        return self.messages // self.connections + (connection < self.messages % self.connections)


def source_address(number: int) -> str:
    """One of the loopback addresses that a load to 127/8 connects from."""
    return f"127.8.62.{1 + number}"


def within(quantity: str, value: int, value_max: int) -> None:
    """Raises ConfigError unless the value is 1 to value_max."""
    if not 1 <= value <= value_max:
        raise ConfigError(f"{value} {quantity} are out of range", f"Give 1 to {value_max}")


@dataclass
class Tally:
    """Counts of one exchange; both twins fill them in."""

    messages: int = 0
    """Messages that came back inside the window."""

    bytes: int = 0
    """Correct bytes read inside the window."""

    window_ns: int = 0
    """Length of the window."""

    cpu_ns: int = 0
    """Processor time of the loading thread inside the window."""

    mismatches: int = 0
    """Connections ended by a wrong byte (4)."""

    lost: int = 0
    """Connections ended by the peer while it owed bytes (8), or datagrams lost (10)."""

    stalled: int = 0
    """Connections on which no byte moved for stall_s (8)."""

    refused: int = 0
    """Connections that could not be made (8, 9)."""

    latency_ns: Histogram = field(default_factory=Histogram)
    """Of each message that came back inside the window (3)."""


class Exchange(Protocol):
    """`exchange` of a load module: everything after the connections are open."""

    def __call__(
        self,
        connections: Sequence[socket],
        plan: LoadPlan,
        pattern: bytes,
        on_edge: Callable[[], None],
    ) -> Tally:
        """Run warm-up, window and drain.

        Args:
            connections: Connected, non-blocking sockets, which the caller closes. A row of LOADS
                that makes its own connections is given one, as a model (9).
            plan: What to send.
            pattern: build_pattern() of load/pattern.py.
            on_edge: Called as the window opens and as it closes; the time it takes belongs to
                neither side.
        Returns:
            The counts. Faults of the peer are numbers in them, never exceptions.
        """


@dataclass(frozen=True)
class LoadReport:
    """Result of a run."""

    messages: int
    """Messages that came back inside the window."""

    bytes: int
    """Correct bytes read inside the window."""

    seconds: float
    """Length of the window."""

    mean_ns: float
    """Mean latency, exact."""

    p50_ns: int
    """Median latency, to three significant digits."""

    p90_ns: int
    """90th percentile of latency."""

    p99_ns: int
    """99th percentile of latency."""

    max_ns: int
    """Highest latency, exact."""

    mismatches: int
    """Connections ended by a wrong byte (4)."""

    errors: dict[str, int]
    """Faults by kind, `refused`, `lost` and `stalled` (8, 10); a kind without any is left out."""

    connect_seconds: float
    """Time until all connections were open or refused."""

    cpu_seconds: float
    """Processor time of the loading thread inside the window."""

    histogram: Histogram = field(repr=False, compare=False)
    """Latencies in nanoseconds."""

    @property
    def requests_per_s(self) -> float:
        """Messages that came back in one second of the window."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def ok(self) -> bool:
        """Everything that was sent came back, and nothing else."""
        return not self.mismatches and not self.errors
