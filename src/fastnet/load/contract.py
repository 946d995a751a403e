"""What a load is asked for, what it reports, and what both twins promise.

1. A plan opens its connections first, a bounded number at a time; none is measured before all are
   open or refused.
2. Closed loop: each connection keeps `in_flight` messages of `message_bytes` on their way and
   starts a new one only when one has come back. So a slow server is asked less, and the latencies
   are those of a server that is never asked more than it answers (coordinated omission). For
   latency at a given rate, use the open loop.
3. A message has come back when its last byte was read; its latency counts from the moment it was
   started, before the call that hands it to the kernel, to the moment after that read. Messages
   started together share their start.
4. Every byte that comes back is compared with the byte that was sent at its place in the stream.
   The streams of two connections start at different places of one pseudo-random pattern, so lost,
   repeated, altered, swapped and foreign bytes show. The first wrong byte, or one more than was
   sent, ends the connection: one mismatch.
5. `messages` are shared out beforehand, as evenly as whole numbers allow. What an ended connection
   still owed of its share is not given to others, so a run that meets a fault reports fewer
   messages than were asked for.
6. The window opens after the warm-up and closes when `seconds` are over, or all shares are done, or
   no connection is left. Only messages that came back inside the window count; `bytes` are the
   right bytes read inside it.
7. After the window no message is started. Each connection half-closes, must get back all that it
   sent, and then the end of the stream. Faults of this drain are reported like those of the window.
8. A peer that ends the connection (FIN or RST) while it owes bytes is one `lost`. A peer with which
   no byte moved in either direction for `stall_s`, though it owes bytes or the end, is one
   `stalled`. A connection that could not be made is one `refused`. No connection is counted twice,
   and none keeps the others from going on.
9. A load that makes its own connections (churn) is given one as a model and makes `connections` at
   a time to its peer, one message each; its latency counts from before socket(2) to after the read
   of the end of the stream. A connection that cannot be made, or breaks before anything was sent on
   it, is one `refused`, and its place makes no other.
10. A load of datagrams keeps `in_flight` of them on their way on each socket. The first
    NUMBER_BYTES of one are its number,
   and that alone says what the rest must be; anything else, or more than was sent, is one mismatch
   and ends the socket's part. What has not come back within LOST_S is one `lost`, and the next
   number takes its place; that it comes later, or twice, is not held against the server. What finds
   no room is lost too: over a Unix socket everything beyond the server's queue of
   net.unix.max_dgram_qlen. A socket that is refused (nobody listens) loses what it had on its way.
11. A run always ends: after warm-up and window at most, and then at most `stall_s` (and a tick)
    after the last byte
   moved. In the main thread an interrupt is seen within a tick.
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
"""How long a peer may owe bytes without moving one."""

DIALS_MAX = 256
"""Connections on their way at once. Fewer than the smallest usual backlog, so that no SYN must be
resent.
"""

PATTERN_PERIOD = 65521
"""Bytes before the pattern repeats. A prime, so that no lost or repeated block of a server's buffer
size fits it.
"""

CONNECTIONS_MAX = PATTERN_PERIOD
"""Each connection has its own place in the pattern."""

IN_FLIGHT_MAX = 64 * KIB
"""Messages on their way on one connection. Each may need a time stamp of 16 bytes."""

MESSAGE_BYTES_MAX = 1024 * MIB
"""One message."""

NUMBER_BYTES = 8
"""The number of a datagram, little-endian, at its beginning."""

NUMBERS_APART = 40
"""Places of the pattern between one number and the next."""

LOST_S = 0.5
"""A datagram that has not come back by then is lost."""

SOURCES = 64
"""Source addresses of a load that makes a connection for each message: 64 times 28,000 ports
outlast their TIME_WAIT.
"""

UNLIMITED = 2**63 - 1
"""Messages of a connection whose end is the clock."""

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class LoadPlan:
    """What to send. At least one of seconds and messages; with both, the first one reached ends the
    window.

    warmup_s: run so long before the window opens. Not with messages, whose count is exact from the
    first one. cpu: bind the loading thread to this processor for the run; None: wherever the kernel
    puts it. busy_poll_us: look so long for an echo before sleeping, for latency without wake-ups; 0
    sleeps at once.
    """

    endpoint: Endpoint
    connections: int = 1
    message_bytes: int = 64
    in_flight: int = 1
    seconds: float | None = None
    messages: int | None = None
    warmup_s: float = 0.0
    stall_s: float = STALL_S
    cpu: int | None = None
    busy_poll_us: int = 0

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
                f"cannot look for {self.busy_poll_us} microseconds", f"Give 0 to {BUSY_POLL_US_MAX}"
            )
        if self.messages is not None and self.messages < 1:
            raise ConfigError(f"cannot load with {self.messages} messages", "Give at least 1")
        if self.messages is not None and self.warmup_s:
            raise ConfigError(
                "a number of messages has no warm-up",
                "Give seconds instead of messages, or no warm-up",
            )

    def share(self, connection: int) -> int:
        """How many messages this connection may start (5)."""
        if self.messages is None:
            return UNLIMITED
        return self.messages // self.connections + (connection < self.messages % self.connections)


def source_address(number: int) -> str:
    """One of the loopback addresses that a load to 127/8 connects from."""
    return f"127.8.62.{1 + number}"


def within(what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ConfigError(f"{value} {what} are out of range", f"Give 1 to {most}")


@dataclass
class Tally:
    """What one exchange counts; both twins fill it in."""

    messages: int = 0
    bytes: int = 0
    window_ns: int = 0
    cpu_ns: int = 0
    mismatches: int = 0
    lost: int = 0
    stalled: int = 0
    refused: int = 0
    latency_ns: Histogram = field(default_factory=Histogram)


class Exchange(Protocol):
    """`exchange` of a load module: everything after the connections are open."""

    def __call__(
        self,
        connections: Sequence[socket],
        plan: LoadPlan,
        pattern: bytes,
        on_edge: Callable[[], None],
    ) -> Tally:
        """Run warm-up, window and drain over connected, non-blocking sockets, which remain the
        caller's to close.

        A row of LOADS that dials by itself is given one of them, as a model (9).

        on_edge: called as the window opens and as it closes; the time it takes belongs to neither
        side.
        """


@dataclass(frozen=True)
class LoadReport:
    """What came back. Times of messages in nanoseconds, of the run in seconds."""

    messages: int
    bytes: int
    seconds: float
    mean_ns: float
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    mismatches: int
    errors: dict[str, int]
    connect_seconds: float
    cpu_seconds: float
    histogram: Histogram = field(repr=False, compare=False)

    @property
    def requests_per_s(self) -> float:
        """Messages that came back in one second of the window."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def ok(self) -> bool:
        """Everything that was sent came back, and nothing else."""
        return not self.mismatches and not self.errors
