"""Plan of a server: the decisions from its config and this host; nothing is open yet."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from typing import Any

from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.engine import affinity
from fastnet.engine.stream import EngineRow
from fastnet.limits import SPARE_DESCRIPTORS, UNVALIDATED_REPLY_BYTES_MAX, Limits
from fastnet.registry import Registry
from fastnet.server.selection import EngineChoice, choose, engines_for
from fastnet.service import SERVICES
from fastnet.transport import TRANSPORTS
from fastnet.transport.access import AccessList


@dataclass(frozen=True)
class ServerPlan:
    """The decisions about one server."""

    config: ServerConfig
    endpoint: Endpoint
    """Where it will listen; port 0 is not resolved yet."""
    choice: EngineChoice
    limits: Limits
    access: AccessList
    workers: int
    """Number of event loops."""
    processes: bool
    """Whether each loop runs in a process of its own."""
    cpus: tuple[int | None, ...]
    """A CPU for each loop; None for any."""

    @property
    def engines(self) -> Registry[EngineRow]:
        return engines_for(self.endpoint.transport)

    @property
    def engine(self) -> EngineRow:
        return self.engines[self.choice.engine]

    @property
    def description(self) -> str:
        """The decision as text, as the ready line shows it."""
        return describe(
            self.choice.engine,
            self.choice.backend,
            self.workers,
            self.processes,
            self.choice.reason,
        )

    @property
    def rows(self) -> int:
        """Counter rows of one loop: its own, and one for each thread or child that it keeps."""
        return 1 + self.engine.parts(self.limits)

    def service(self) -> Any:
        """A new service object, for one server."""
        row = SERVICES[self.config.service]
        module = SERVICES.load(self.config.service, self.choice.backend)
        return module.create(**row.arguments(self.config.settings))


def describe(engine: str, backend: str, workers: int, worker_processes: bool, reason: str) -> str:
    """Engine, backend and workers as text, with the reason why nothing faster runs."""
    kind = "worker processes" if worker_processes else "workers"
    text = f"engine {engine}, backend {backend}, {kind} {workers}"
    return f"{text}; {reason}" if reason else text


def make_plan(config: ServerConfig) -> ServerPlan:
    """Make the plan of a config. Raises UnsupportedError."""
    transport = config.endpoint.transport
    way = TRANSPORTS[transport]
    choice = choose(config.engine, config.backend, config.service, transport)
    workers = config.workers if isinstance(config.workers, int) else len(affinity.usable())
    processes = config.worker_processes or (workers > 1 and choice.backend == "python")
    cpus = (
        affinity.assign(config.cpu_affinity, workers)
        if config.cpu_affinity is not None
        else [None] * workers
    )
    row = engines_for(transport)[choice.engine]
    trusted = config.answer_any_size or not way.forgeable
    limits = Limits(
        max_connections=row.connections,
        idle_timeout_s=config.idle_timeout,
        write_buffer_bytes_max=config.max_write_buffer,
        pool_size=config.pool_size,
        busy_poll_us=config.busy_poll,
        answer_any_port=config.answer_any_port,
        unvalidated_reply_bytes_max=way.datagram_bytes_max
        if trusted
        else UNVALIDATED_REPLY_BYTES_MAX,
        datagram_bytes_max=way.datagram_bytes_max,
    )
    most = config.max_connections or default_connections(row, limits, 1 if processes else workers)
    limits = replace(limits, max_connections=most)
    return ServerPlan(
        config, config.endpoint, choice, limits, config.access, workers, processes, tuple(cpus)
    )


def default_connections(row: EngineRow, limits: Limits, loops: int) -> int:
    """The default of --max-connections.

    The engine's limit, at least its number of threads or children, and at most each loop's share of
    the descriptor limit.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    descriptors = max(1, (soft - SPARE_DESCRIPTORS) // loops)
    own = max(row.connections, row.parts(limits))
    return min(own, descriptors) if own else descriptors
