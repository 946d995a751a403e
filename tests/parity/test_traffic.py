"""The same traffic gives the same bytes, counters and ends on every engine and backend.

The reference is the pure epoll engine: it is the one to read, so it is the one to be right.
`messages` is compared only where peer and server go in lock-step, for the number of reads is
otherwise the kernel's choice; after a reset in full flight the byte counts are its choice too, and
only how it ended is compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastnet.limits import KIB, MIB
from fastnet.server.server import Server
from tests.conftest import STREAMS, Dial, Serve
from tests.support.clients import Peer, pattern, statistics_reach

REFERENCE = ("epoll", "python")
SUFFIX = " [suffix]"

EXAMPLES, EXAMPLES_SOAK = 12, 400


@dataclass(frozen=True)
class Traffic:
    """What one peer does: `lock_step` messages each way, `bulk` bytes in chunks, then its end.

    slow: it reads a few bytes at a time through a small buffer.
    end: half-close, or reset after reading `read` bytes of the bulk.
    """

    service: str = "echo"
    transport: str = "tcp"
    lock_step: tuple[int, ...] = ()
    bulk: int = 0
    chunk: int = MIB
    slow: bool = False
    end: str = "half-close"
    read: int = 0


@dataclass(frozen=True)
class Outcome:
    received: bytes
    error: str
    counters: dict[str, Any]


sizes = st.one_of(
    st.integers(1, 200),
    st.integers(1, 70_000),
    st.sampled_from([64 * KIB, 64 * KIB + 1, MIB, 10 * MIB]),
)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    service = draw(
        st.sampled_from(["echo", "echo", "echo", "suffix", "discard", "chargen", "daytime"])
    )
    echoes = service in ("echo", "suffix")
    chunk = draw(st.sampled_from([1, 7, 1000, 64 * KIB, MIB]))
    slow = draw(st.booleans())
    bulk = draw(st.one_of(st.just(0), sizes)) if service != "suffix" else 0
    return Traffic(
        service,
        draw(st.sampled_from(STREAMS)),
        tuple(draw(st.lists(st.integers(1, 1000), max_size=5))) if echoes else (),
        min(bulk, chunk * 2000, 300 * KIB if slow else bulk),
        chunk,
        slow,
        draw(st.sampled_from(["half-close", "half-close", "reset"]))
        if service != "chargen"
        else "reset",
        draw(st.integers(0, 50_000)),
    )


def speak(peer: Peer, traffic: Traffic) -> bytes:
    """Play one peer's part. Returns all it received."""
    received = bytearray()
    tail = len(SUFFIX) if traffic.service == "suffix" else 0
    for n in traffic.lock_step:
        peer.send(pattern(n))
        received += peer.read(n + tail)
    if traffic.end == "half-close":
        with peer.sending(pattern(traffic.bulk), traffic.chunk) as sending:
            received += peer.read_to_end(1999 if traffic.slow else 1 << 18)
            sending.finish()
    elif traffic.service in ("chargen", "daytime"):
        received += peer.read(traffic.read)
    elif traffic.bulk and traffic.service == "echo":
        with peer.sending(pattern(traffic.bulk), traffic.chunk, half_close=False):
            received += peer.read(min(traffic.read, traffic.bulk))
    return bytes(received)


def replay(server: Server, dial: Dial, traffic: Traffic) -> Outcome:
    """Play it against one server and see what that changed there."""
    before = server.statistics()
    peer = dial(server, rcvbuf=4 * KIB if traffic.slow else 0)
    received, error = b"", ""
    try:
        received = speak(peer, traffic)
    except ConnectionError as caught:
        error = type(caught).__name__
    if traffic.end == "reset":
        peer.reset()
    peer.close()
    statistics_reach(server, accepted=before.accepted + 1, open=0)
    after = server.statistics()
    exact = ["accepted", "write_buffer_bytes"]
    unasked = traffic.service in ("chargen", "daytime")
    if traffic.end == "half-close" or not (traffic.bulk or unasked):
        exact += ["bytes_in", "bytes_out"]
    # A message is what one receive brought: one send may be two, where it crosses the end of a
    # buffer or of a segment.
    assert after.messages - before.messages >= len(traffic.lock_step)
    counters: dict[str, Any] = {
        name: getattr(after, name) - getattr(before, name) for name in exact
    }
    ends = {why: after.closed[why] - before.closed[why] for why in after.closed}
    if traffic.transport == "unix" and traffic.end == "reset" and traffic.bulk:
        # There is no RST: whether a close in full flight looks like one depends on what was unread
        # at that instant.
        ends["finished"] += ends.pop("reset")
    counters["ends"] = ends
    if traffic.service == "daytime":
        received = re.sub(rb"\d", b"0", received)
    return Outcome(received, error, counters)


def compare(
    serve: Serve, dial: Dial, endpoint: Callable[[str], str], row: tuple[str, str], traffic: Traffic
) -> None:
    """Replay on the row and on the reference, whose servers live as long as the test."""
    outcomes = []
    for engine, backend in (row, REFERENCE):
        key = (engine, backend, traffic.service, traffic.transport)
        if key not in compare_servers:
            options: dict[str, Any] = {"suffix": SUFFIX} if traffic.service == "suffix" else {}
            service = "echo" if traffic.service == "suffix" else traffic.service
            place = endpoint(traffic.transport)
            compare_servers[key] = serve(
                service, place, engine=engine, backend=backend, sndbuf=64 * KIB, **options
            )
        outcomes.append(replay(compare_servers[key], dial, traffic))
    ours, reference = outcomes
    assert ours.received == reference.received
    assert ours == reference


compare_servers: dict[tuple[str, str, str, str], Server] = {}
"""By engine, backend, service and transport; emptied by each test."""


@pytest.fixture
def check(engine, backend, serve: Serve, dial: Dial, tmp_path):
    """A function that fails for traffic on which this row and the reference differ."""
    names = iter(range(1000))

    def endpoint(transport: str) -> str:
        return f"unix:{tmp_path}/{next(names)}" if transport == "unix" else "tcp://127.0.0.1:0"

    yield lambda traffic: compare(serve, dial, endpoint, (engine, backend), traffic)
    compare_servers.clear()


QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=EXAMPLES, **QUIETLY)
@given(traffic=traffics())
@example(Traffic(bulk=10 * MIB))
@example(Traffic(bulk=2000, chunk=1))
@example(Traffic(bulk=200 * KIB, slow=True, transport="unix"))
@example(Traffic(bulk=8 * MIB, end="reset", read=100_000))
@example(Traffic("suffix", lock_step=(1, 1000, 7)))
@example(Traffic("chargen", end="reset", read=50_000, slow=True))
@example(Traffic("daytime", end="reset", read=0))
@example(Traffic("daytime", end="reset", read=0, transport="unix"))
@example(Traffic("discard", bulk=10 * MIB))
def test_every_row_does_what_the_reference_does(check, traffic) -> None:
    """E5, E9, S2."""
    check(traffic)


@pytest.mark.soak
@settings(max_examples=EXAMPLES_SOAK, **QUIETLY)
@given(traffic=traffics())
def test_every_row_does_what_the_reference_does_for_long(check, traffic) -> None:
    """E5, E9, S2."""
    check(traffic)
