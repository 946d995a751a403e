"""One engine loop in a thread, without a Server: own listeners, bounds and service."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastnet.endpoint import Endpoint
from fastnet.engine.context import LoopContext
from fastnet.engine.stop import StopSignal
from fastnet.engine.stream import ENGINES
from fastnet.limits import Limits
from fastnet.metrics.counters import CounterTable, Statistics, statistics
from fastnet.service import SERVICES
from fastnet.transport import tcp
from fastnet.transport.access import AccessList
from fastnet.transport.contract import SocketOptions

LOOPBACK = Endpoint("tcp", "127.0.0.1", 0)
JOIN_S = 10.0
"""Seconds that a stopped loop may take to return."""

Run = Callable[[LoopContext], None]
"""What an engine's module has: serves until context.stop is set."""


@dataclass
class RunningLoop:
    """A loop in a thread, with the parts of a Server that a test needs."""

    context: LoopContext
    """What the loop was given."""
    endpoints: list[Endpoint]
    """Where its listeners are."""
    run: Run
    """The loop."""
    failures: list[BaseException] = field(default_factory=list)
    """What the loop raised."""
    thread: threading.Thread | None = None
    """The thread, once it was started."""

    @property
    def endpoint(self) -> Endpoint:
        """The first listener's endpoint."""
        return self.endpoints[0]

    def statistics(self) -> Statistics:
        """Counters of the loop so far."""
        return statistics([self.context.counters])

    def start(self) -> None:
        """Run the loop in a thread."""

        def body() -> None:
            try:
                self.run(self.context)
            except BaseException as error:
                self.failures.append(error)

        self.thread = threading.Thread(target=body)
        self.thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether the loop has returned within the time. Raises what it raised."""
        assert self.thread is not None
        self.thread.join(timeout_s)
        if self.failures:
            raise self.failures.pop()
        return not self.thread.is_alive()


@contextlib.contextmanager
def prepared_loop(
    engine: str | Run,
    backend: str,
    service: Any = "echo",
    listeners: int = 1,
    **limits: Any,
) -> Iterator[RunningLoop]:
    """Make everything for a loop, which the caller starts.

    Args:
        engine: A row of the table of engines, or the `run` of another engine.
        backend: "native" or "python"; with a name as service, which form of it is loaded.
        service: A name, or a service object for a pure engine.
        listeners: Number of TCP listeners on the loopback address.
        limits: Fields of :class:`fastnet.limits.Limits`.
    """
    made = SERVICES.load(service, backend).create() if isinstance(service, str) else service
    row = ENGINES[engine] if isinstance(engine, str) else None
    connections = row.connections if row is not None else None
    bounds = Limits(
        **({"max_connections": connections or 100, "pool_size": 4, "tick_s": 0.05} | limits)
    )
    bound = [tcp.listen(LOOPBACK, SocketOptions()) for _ in range(listeners)]
    stop = StopSignal()
    counters = CounterTable(1 + (row.parts(bounds) if row is not None else 0))
    loop = RunningLoop(
        LoopContext([each.sock for each in bound], made, bounds, stop, counters, AccessList()),
        [each.endpoint for each in bound],
        ENGINES.load(engine, backend).run if isinstance(engine, str) else engine,
    )
    try:
        yield loop
    finally:
        stop.now()
        if loop.thread is not None:
            loop.thread.join(JOIN_S)
        for each in bound:
            each.sock.close()
        stop.close()
    for failure in loop.failures:
        raise failure


@contextlib.contextmanager
def running_loop(
    engine: str | Run, backend: str, service: Any = "echo", **options: Any
) -> Iterator[RunningLoop]:
    """A loop that serves until the block ends; arguments as for `prepared_loop`."""
    with prepared_loop(engine, backend, service, **options) as loop:
        loop.start()
        yield loop
