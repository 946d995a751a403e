"""A config and what works here become a plan: everything decided, nothing opened yet; printable and testable."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from fastnet.access import AccessList
from fastnet.catalog import Choice, choose
from fastnet.config import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.engine import ENGINES, EngineRow
from fastnet.limits import SPARE_DESCRIPTORS, Limits
from fastnet.service import SERVICES


@dataclass(frozen=True)
class Plan:
    """One server, decided. choice.reason says why it is not faster."""

    config: ServerConfig
    endpoint: Endpoint
    choice: Choice
    limits: Limits
    access: AccessList

    @property
    def engine(self) -> EngineRow:
        return ENGINES[self.choice.engine]

    @property
    def rows(self) -> int:
        """Counter rows of one loop: its own and one for each thread or child it keeps."""
        return 1 + self.engine.parts(self.limits)

    def service(self) -> object:
        """A new service object, for one server."""
        row = SERVICES[self.config.service]
        values = {"suffix": self.config.suffix.encode("utf-8", "surrogateescape")}
        module = SERVICES.load(self.config.service, self.choice.backend)
        return module.create(**{name: values[name] for name in row.options})


def make_plan(config: ServerConfig) -> Plan:
    """Decide everything. Raises UnsupportedError."""
    choice = choose(config.engine, config.backend, config.service)
    limits = Limits(
        max_connections=config.max_connections or default_connections(ENGINES[choice.engine], config.workers),
        idle_timeout_s=config.idle_timeout,
        parked_bytes_max=config.max_parked,
        pool_size=config.pool_size,
        busy_poll_us=config.busy_poll,
    )
    return Plan(config, config.endpoint, choice, limits, config.access)


def default_connections(row: EngineRow, workers: int) -> int:
    """The engine's own limit, or what the descriptor limit leaves to each worker of one process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    descriptors = max(1, (soft - SPARE_DESCRIPTORS) // workers)
    return min(row.connections, descriptors) if row.connections else descriptors
