"""A config and what works here become a plan: everything decided, nothing opened yet; printable and
testable.
"""

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
class Plan:
    """One server, decided. choice.reason says why nothing faster runs.

    workers: how many loops. processes: whether each is a process of its own. cpus: a processor for
    each, None for any.
    """

    config: ServerConfig
    endpoint: Endpoint
    choice: EngineChoice
    limits: Limits
    access: AccessList
    workers: int
    processes: bool
    cpus: tuple[int | None, ...]

    @property
    def engines(self) -> Registry[EngineRow]:
        return engines_for(self.endpoint.transport)

    @property
    def engine(self) -> EngineRow:
        return self.engines[self.choice.engine]

    @property
    def how(self) -> str:
        """The decision in words, as the ready line has it."""
        return how(
            self.choice.engine,
            self.choice.backend,
            self.workers,
            self.processes,
            self.choice.reason,
        )

    @property
    def rows(self) -> int:
        """Counter rows of one loop: its own and one for each thread or child it keeps."""
        return 1 + self.engine.parts(self.limits)

    def service(self) -> Any:
        """A new service object, for one server."""
        row = SERVICES[self.config.service]
        module = SERVICES.load(self.config.service, self.choice.backend)
        return module.create(**row.arguments(self.config.settings))


def how(engine: str, backend: str, workers: int, worker_processes: bool, reason: str) -> str:
    """What runs, in words, and why nothing faster."""
    kind = "worker processes" if worker_processes else "workers"
    words = f"engine {engine}, backend {backend}, {kind} {workers}"
    return f"{words}; {reason}" if reason else words


def make_plan(config: ServerConfig) -> Plan:
    """Decide everything. Raises UnsupportedError."""
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
    return Plan(
        config, config.endpoint, choice, limits, config.access, workers, processes, tuple(cpus)
    )


def default_connections(row: EngineRow, limits: Limits, loops: int) -> int:
    """The engine's own limit, but never fewer than it has threads for; or what the descriptor limit
    leaves to each of the loops of one process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    descriptors = max(1, (soft - SPARE_DESCRIPTORS) // loops)
    own = max(row.connections, row.parts(limits))
    return min(own, descriptors) if own else descriptors
