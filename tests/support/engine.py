"""One engine run by hand, without a Server: for what only a Work can say (several listeners, small
bounds, own services).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
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


@dataclass
class Running:
    """A loop in a thread. It has the parts of a Server that the helpers in peers.py need."""

    context: LoopContext
    endpoints: list[Endpoint]
    failures: list[BaseException] = field(default_factory=list)
    thread: threading.Thread | None = None

    @property
    def endpoint(self) -> Endpoint:
        return self.endpoints[0]

    def statistics(self) -> Statistics:
        return statistics([self.context.counters])

    def start(self, engine: str, backend: str) -> None:
        run = ENGINES.load(engine, backend).run

        def body() -> None:
            try:
                run(self.context)
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
def prepared(
    engine: str, backend: str, service: Any = "echo", listeners: int = 1, **limits: Any
) -> Iterator[Running]:
    """Everything for a loop but its start. service: a name, or a Service object for the pure
    engines.
    """
    made = SERVICES.load(service, backend).create() if isinstance(service, str) else service
    row = ENGINES[engine]
    bounds = Limits(
        **({"max_connections": row.connections or 100, "pool_size": 4, "tick_s": 0.05} | limits)
    )
    bound = [tcp.listen(LOOPBACK, SocketOptions()) for _ in range(listeners)]
    socks = [listener.sock for listener in bound]
    stop = StopSignal()
    counters = CounterTable(1 + row.parts(bounds))
    running = Running(
        LoopContext(socks, made, bounds, stop, counters, AccessList()),
        [listener.endpoint for listener in bound],
    )
    try:
        yield running
    finally:
        stop.now()
        if running.thread is not None:
            running.thread.join(10)
        for sock in socks:
            sock.close()
        stop.close()
    for failure in running.failures:
        raise failure


@contextlib.contextmanager
def running(engine: str, backend: str, service: Any = "echo", **options: Any) -> Iterator[Running]:
    """A loop that serves until the block ends."""
    with prepared(engine, backend, service, **options) as loop:
        loop.start(engine, backend)
        yield loop
