"""Settings of one server: name, type, default and help text of each, once.

The settings of a service stand in its row (service/__init__.py); here they are options like the
others, and values in `settings`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastnet import limits
from fastnet.config.fields import Choice, FilePath, Function, Kind, Text, check, option
from fastnet.endpoint import PORT_MAX, Endpoint
from fastnet.engine import affinity
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.errors import ConfigError
from fastnet.registry import BACKENDS
from fastnet.service import SERVICES, Setting
from fastnet.transport.access import AccessList
from fastnet.transport.contract import SocketOptions


def setting_kind(setting: Setting) -> Kind:
    """The kind of a service's setting."""
    if setting.called_with:
        return Function(called_with=setting.called_with)
    if setting.choices:
        return Choice(setting.unit, setting.choices)
    if setting.is_path:
        return FilePath(setting.unit)
    return Text(setting.unit, setting.bytes_max)


def setting_option(setting: Setting) -> dataclasses.Field[Any]:
    """A service's setting as an option."""
    made: dataclasses.Field[Any] = option(
        setting.default,
        setting.help,
        setting.unit,
        choices=setting.choices,
        kind=setting_kind(setting),
    )
    made.name = setting.name
    made.type = "str | None" if setting.default is None else "str"
    return made


SETTINGS = {each.name: each for row in SERVICES.values() for each in row.settings}
"""The settings of all services by name."""

KINDS = {name: setting_kind(each) for name, each in SETTINGS.items()}


@dataclass(frozen=True)
class ServerConfig:
    """One server. Raises ConfigError when a value, or two of them together, are not valid."""

    service: str = "echo"
    settings: Mapping[str, Any] = field(default_factory=dict, metadata={"is_internal": True})
    """Values of the service's own settings; those that are missing have their defaults."""
    host: str = option(
        "127.0.0.1", "Address or name to bind; an empty one is every address of this host.", "HOST"
    )
    port: int = option(0, "Port to bind; 0 picks a free one.", "PORT", least=0)
    udp: bool = option(False, "Serve datagrams: UDP, or with --unix a Unix datagram socket.")
    unix: str | None = option(
        None, "Listen on a Unix socket instead; @NAME is an abstract address.", "PATH"
    )
    engine: str = option(
        "auto",
        "Concurrency model; auto picks the fastest supported one.",
        choices=("auto", *ENGINES, *DATAGRAMS),
    )
    backend: str = option(
        "auto",
        "Compiled or pure-Python loops; auto prefers compiled ones.",
        choices=("auto", *BACKENDS),
    )
    workers: int | str = option(
        1,
        "Event loops that share the port; auto is one for each CPU.",
        "N|auto",
        least=1,
        word=affinity.AUTO,
    )
    worker_processes: bool = option(
        False, "Run each worker in a process; pure-Python workers always are processes."
    )
    cpu_affinity: str | None = option(
        None,
        "Bind loops to these CPUs in turn, such as 0-3,6; auto is every usable one.",
        "CPUS",
    )
    pool_size: int = option(limits.POOL_SIZE, "Threads of the pool engine.", "N", least=1)
    max_connections: int | None = option(None, "Most open connections of one loop.", "N", least=1)
    idle_timeout: float = option(
        limits.IDLE_TIMEOUT_S,
        "Close connections idle for SECONDS; 0 disables the timeout.",
        "SECONDS",
        least=0,
    )
    drain: float = option(
        limits.DRAIN_S, "Time for open connections to finish after SIGTERM.", "SECONDS", least=0
    )
    max_write_buffer: int = option(
        limits.WRITE_BUFFER_BYTES_MAX,
        "Most bytes that one loop buffers for slow readers.",
        "BYTES",
        least=limits.READ_BYTES,
    )
    busy_poll: int = option(
        0, "Busy-poll up to USEC before blocking; trades a CPU for latency.", "USEC", least=0
    )
    allow: tuple[str, ...] = option((), "Accept only peers in this network (repeatable).", "CIDR")
    deny: tuple[str, ...] = option((), "Reject peers in this network (repeatable).", "CIDR")
    answer_any_port: bool = option(
        False,
        "UDP: also reply to source ports below 1024 and to the server's own port number,"
        " which risks reply loops.",
    )
    answer_any_size: bool = option(
        False,
        f"UDP: also send replies over {limits.UNVALIDATED_REPLY_BYTES_MAX} bytes to shorter"
        " requests of unvalidated addresses.",
    )
    backlog: int = option(
        limits.BACKLOG, "Connections that the kernel queues until they are accepted.", "N", least=1
    )
    reuse_port: bool = option(
        False, "Share the port with other servers (SO_REUSEPORT); implied by --workers."
    )
    nodelay: bool = option(True, "Send small segments immediately (TCP_NODELAY).")
    keepalive: bool = option(False, "Probe idle peers (SO_KEEPALIVE).")
    rcvbuf: int | None = option(None, "Receive buffer (SO_RCVBUF).", "BYTES", least=1)
    sndbuf: int | None = option(None, "Send buffer (SO_SNDBUF).", "BYTES", least=1)
    ttl: int | None = option(None, "Time to live or hop limit of packets.", "HOPS", least=1)
    congestion: str | None = option(None, "TCP congestion control (TCP_CONGESTION).", "NAME")

    def __post_init__(self) -> None:
        check_service(self.service, self.settings)
        row = SERVICES[self.service]
        defaults = {each.name: each.default for each in row.settings}
        object.__setattr__(self, "settings", defaults | dict(self.settings))
        check(self)
        if self.port > PORT_MAX:
            raise ConfigError(
                f"port {self.port} is out of range", f"Ports go from 0 (pick one) to {PORT_MAX}"
            )
        if self.ttl is not None and self.ttl > 255:
            raise ConfigError(f"ttl {self.ttl} is out of range", "It goes from 1 to 255")
        if self.busy_poll > limits.BUSY_POLL_US_MAX:
            raise ConfigError(
                f"busy_poll {self.busy_poll} is too long",
                f"At most {limits.BUSY_POLL_US_MAX} microseconds",
            )
        if isinstance(self.workers, int) and self.workers > limits.WORKERS_MAX:
            raise ConfigError(
                f"{self.workers} workers are too many",
                f"At most {limits.WORKERS_MAX}; one for each CPU is enough",
            )
        if not row.connections and not self.udp:
            raise ConfigError(
                f"{self.service} serves datagrams only",
                "Listen on udp://HOST:PORT or unixgram:PATH",
            )
        self._check_engine()
        if self.unix is not None and (self.allow or self.deny):
            raise ConfigError(
                "allow and deny mean nothing on a Unix socket",
                "Guard it with the permissions of its folder",
            )
        if self.cpu_affinity is not None:
            affinity.parse(self.cpu_affinity)
        listening_endpoint(self)

    def _check_engine(self) -> None:
        if self.engine != "auto" and self.engine not in (DATAGRAMS if self.udp else ENGINES):
            kind, table = ("datagrams", DATAGRAMS) if self.udp else ("connections", ENGINES)
            raise ConfigError(
                f"the {self.engine} engine does not serve {kind}", f"These do: {', '.join(table)}"
            )
        bound = ENGINES[self.engine].bound if self.engine in ENGINES else 0
        if bound and self.max_connections is not None and self.max_connections > bound:
            hint = f"At most {bound}; --engine epoll has no such bound"
            raise ConfigError(
                f"the {self.engine} engine cannot hold {self.max_connections} connections", hint
            )

    @classmethod
    def more_options(cls) -> list[dataclasses.Field[Any]]:
        """The settings of all services, as options."""
        return [setting_option(each) for each in SETTINGS.values() if not each.called_with]

    @classmethod
    def from_values(cls, **values: Any) -> ServerConfig:
        """A config from options and settings alike.

        Raises ConfigError, and TypeError for a name that is neither.
        """
        settings = {name: values.pop(name) for name in list(values) if name in SETTINGS}
        return cls(**values, settings=settings)

    def with_absolute_paths(self) -> ServerConfig:
        """The same for a daemon, whose working directory is /."""
        paths = {
            name: os.path.abspath(value)
            for name, value in self.settings.items()
            if value is not None and SETTINGS[name].is_path
        }
        is_path = self.unix is not None and not self.unix.startswith("@")
        unix = os.path.abspath(self.unix or "") if is_path else self.unix
        return dataclasses.replace(self, unix=unix, settings={**self.settings, **paths})

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return listening_endpoint(self)

    @property
    def socket_options(self) -> SocketOptions:
        names = {each.name for each in dataclasses.fields(SocketOptions)} & set(vars(self))
        values = {name: getattr(self, name) for name in names}
        shared = self.workers != 1
        return SocketOptions(
            **(
                values
                | {"reuse_port": self.reuse_port or shared, "claim": shared and not self.reuse_port}
            )
        )

    @property
    def access(self) -> AccessList:
        return AccessList.parse(self.allow, self.deny)


def check_service(service: Any, settings: Mapping[str, Any]) -> None:
    """Check the name of a service and the settings given for it. Raises ConfigError."""
    if not isinstance(service, str) or service not in SERVICES:
        known = ", ".join(name for name, row in SERVICES.items() if row.is_configurable)
        own = "; `fastnet chat serve` and `fastnet exec serve` are commands of their own"
        raise ConfigError(f"there is no service {service!r}", f"There are: {known}{own}")
    own_settings = {each.name: each for each in SERVICES[service].settings}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigError(f"there is no setting {name!r}")
        if value is None or value == SETTINGS[name].default:
            continue
        KINDS[name].check(name, value)
        if name not in own_settings:
            raise ConfigError(
                f"{service} takes no {name}", "Leave it out, or choose another service"
            )
    for name, setting in own_settings.items():
        if setting.required and settings.get(name) is None:
            raise ConfigError(f"{service} needs a {name}", setting.required)


def listening_endpoint(config: ServerConfig) -> Endpoint:
    """Where a server listens. Raises ConfigError for a path that cannot be one."""
    if config.unix is not None:
        return Endpoint("unixgram" if config.udp else "unix", path=config.unix)
    host = config.host.removeprefix("[").removesuffix("]")
    return Endpoint("udp" if config.udp else "tcp", host, config.port)
