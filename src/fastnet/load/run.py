"""Runs one load plan: connect, exchange, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastnet.errors import ConfigError, UnsupportedError
from fastnet.limits import DATAGRAM_BYTES_MAX
from fastnet.load import LOADS
from fastnet.load.connect import open_connections
from fastnet.load.contract import (
    NS_PER_S,
    SEQUENCE_BYTES,
    Exchange,
    LoadPlan,
    LoadReport,
    Tally,
)
from fastnet.load.pattern import build_pattern
from fastnet.registry import BACKENDS
from fastnet.transport import TRANSPORTS


def run(
    plan: LoadPlan,
    discipline: str = "closed",
    backend: str = "native",
    on_edge: Callable[[], None] = lambda: None,
) -> LoadReport:
    """Load the plan's endpoint and report what came back.

    Args:
        plan: What to send, and for how long.
        discipline: A row of LOADS.
        backend: "native" or "python".
        on_edge: Called as the measured window opens and as it closes, to read a server's counters
            at those moments.
    Returns:
        The report; faults of the peer are numbers in it.
    Raises:
        NetworkError: no connection could be made.
        ConfigError, UnsupportedError: before anything is sent.
    """
    exchange = exchange_of(discipline, backend)
    check(plan, discipline)
    with bound_to(plan.cpu):
        started = time.monotonic()
        opened = open_connections(
            plan.endpoint,
            1 if LOADS[discipline].connects_itself else plan.connections,
            plan.stall_s,
        )
        connect_seconds = time.monotonic() - started
        try:
            tally = exchange(opened.connections, plan, build_pattern(), on_edge)
        finally:
            for connection in opened.connections:
                connection.close()
    return report(tally, opened.refused, connect_seconds)


def check(plan: LoadPlan, discipline: str) -> None:
    """Raises ConfigError if the load does not fit its endpoint."""
    if LOADS[discipline].connects_itself and (plan.in_flight > 1 or plan.busy_poll_us):
        raise ConfigError(
            f"a {discipline} load has one message per connection and does not busy-poll",
            "Leave in_flight and busy_poll_us out",
        )
    is_datagrams = LOADS[discipline].datagrams
    if is_datagrams != TRANSPORTS[plan.endpoint.transport].datagrams:
        fitting = ", ".join(name for name, row in LOADS.items() if row.datagrams != is_datagrams)
        raise ConfigError(
            f"cannot load {plan.endpoint} with {discipline}", f"These loads fit it: {fitting}"
        )
    if is_datagrams and not SEQUENCE_BYTES < plan.message_bytes <= DATAGRAM_BYTES_MAX:
        raise ConfigError(
            f"a datagram of {plan.message_bytes} bytes cannot be loaded with",
            f"Give {SEQUENCE_BYTES + 1} to {DATAGRAM_BYTES_MAX}: it carries a sequence number",
        )


def exchange_of(discipline: str, backend: str) -> Exchange:
    if discipline not in LOADS or backend not in BACKENDS:
        names = f"loads {', '.join(LOADS)} and backends {', '.join(BACKENDS)}"
        raise ConfigError(f"no load {discipline!r} with backend {backend!r}", f"There are {names}")
    if missing := LOADS.why_not(discipline, backend):
        raise UnsupportedError(
            f"cannot load {discipline} with backend {backend}: {missing}", "Try backend python"
        )
    exchange: Exchange = LOADS.load(discipline, backend).exchange
    return exchange


@contextmanager
def bound_to(cpu: int | None) -> Iterator[None]:
    """Pin this thread to one processor."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise ConfigError(
            f"cannot run on processor {cpu}", f"Choose one of {sorted(before)}"
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def report(tally: Tally, refused: int, connect_seconds: float) -> LoadReport:
    latency = tally.latency_ns
    errors = {"refused": refused + tally.refused, "lost": tally.lost, "stalled": tally.stalled}
    return LoadReport(
        messages=tally.messages,
        bytes=tally.bytes,
        seconds=tally.window_ns / NS_PER_S,
        mean_ns=latency.mean,
        p50_ns=latency.percentile(50),
        p90_ns=latency.percentile(90),
        p99_ns=latency.percentile(99),
        max_ns=latency.max,
        mismatches=tally.mismatches,
        errors={kind: count for kind, count in errors.items() if count},
        connect_seconds=connect_seconds,
        cpu_seconds=tally.cpu_ns / NS_PER_S,
        histogram=latency,
    )
