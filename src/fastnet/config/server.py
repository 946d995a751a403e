"""Every setting of a server, once: its name, type, default and help.

The command line, the TOML file and the environment are three ways to write the same fields:
`--idle-timeout 5`, `idle_timeout = 5` and FASTNET_IDLE_TIMEOUT=5. Each of them ends in `build`, so
each is checked by the same code and complains in the same words. Nothing here does I/O; what only
the host can tell (a port in use) is found later.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastnet import limits
from fastnet.apps.dictionary import file as dictionary_file
from fastnet.endpoint import PORT_MAX, Endpoint
from fastnet.engine import affinity
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.errors import ConfigError
from fastnet.registry import BACKENDS
from fastnet.service import SERVICES
from fastnet.transport.access import AccessList
from fastnet.transport.contract import SocketOptions

ENVIRONMENT_PREFIX = "FASTNET_"


def option(
    default: Any,
    help: str,
    unit: str = "",
    choices: Iterable[str] = (),
    least: float | None = None,
    word: str = "",
) -> Any:
    """A field that is also an option. unit: what its value is called in --help. least: the smallest
    value allowed.

    word: a text that it takes in place of a number.
    """
    metadata = {"help": help, "unit": unit, "choices": tuple(choices), "least": least, "word": word}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ServerConfig:
    """One server. Raises ConfigError when a value, or two of them together, make no sense."""

    service: str = "echo"
    handler: Callable[[memoryview, Any], Any] | None = None
    host: str = option(
        "127.0.0.1", "Address or name to bind; an empty one is every address of this host.", "HOST"
    )
    port: int = option(0, "Port to bind; 0 picks a free one.", "PORT", least=0)
    udp: bool = option(
        False, "Datagrams instead of connections: UDP, or with a path those of a Unix socket."
    )
    unix: str | None = option(
        None, "Listen on a Unix socket instead; @NAME is an abstract one.", "PATH"
    )
    engine: str = option(
        "auto",
        "Who waits; auto takes the best that works here.",
        choices=("auto", *ENGINES, *DATAGRAMS),
    )
    backend: str = option("auto", "Native or pure-Python loops.", choices=("auto", *BACKENDS))
    workers: int | str = option(
        1,
        "Loops that share the port; auto is one a processor.",
        "N|auto",
        least=1,
        word=affinity.AUTO,
    )
    worker_processes: bool = option(
        False, "Make workers processes, with a descriptor limit each; pure-Python ones always are."
    )
    cpu_affinity: str | None = option(
        None,
        "Keep each loop on one of these processors, in turn, as 0-3,6; auto is every usable one.",
        "CPUS",
    )
    pool_size: int = option(limits.POOL_SIZE, "Threads of the pool engine.", "N", least=1)
    file: str | None = option(
        None, "File of the dictionary; it is read again when it changes.", "FILE"
    )
    format: str = option(
        dictionary_file.AUTO,
        "How entries are written there; auto looks.",
        choices=(dictionary_file.AUTO, *dictionary_file.FORMATS),
    )
    suffix: str = option("", "Text appended to each reply (echo only).", "TEXT")
    max_connections: int | None = option(
        None, "Most connections of one loop at once.", "N", least=1
    )
    idle_timeout: float = option(
        limits.IDLE_TIMEOUT_S,
        "Close a connection silent for so long; 0 never does.",
        "SECONDS",
        least=0,
    )
    drain: float = option(
        limits.DRAIN_S, "Time for connections to finish after SIGTERM.", "SECONDS", least=0
    )
    max_write_buffer: int = option(
        limits.WRITE_BUFFER_BYTES_MAX,
        "Most bytes of one loop that wait for slow readers.",
        "BYTES",
        least=limits.READ_BYTES,
    )
    busy_poll: int = option(
        0, "Look so long for input before sleeping: latency for a core.", "USEC", least=0
    )
    allow: tuple[str, ...] = option((), "Let in this network only; may be given again.", "CIDR")
    deny: tuple[str, ...] = option((), "Turn this network away; may be given again.", "CIDR")
    answer_any_port: bool = option(
        False,
        "UDP: answer ports below 1024 and its own number too, though these may answer back for ever.",
    )
    answer_any_size: bool = option(
        False,
        f"UDP: send replies over {limits.UNVALIDATED_REPLY_BYTES_MAX} bytes to shorter requests too, whoever forged these.",
    )
    backlog: int = option(
        limits.BACKLOG, "Connections the kernel holds until they are accepted.", "N", least=1
    )
    reuse_port: bool = option(
        False, "Share the port with other servers (SO_REUSEPORT); implied by --workers."
    )
    nodelay: bool = option(True, "Send small replies at once (TCP_NODELAY).")
    keepalive: bool = option(False, "Probe silent peers (SO_KEEPALIVE).")
    rcvbuf: int | None = option(None, "Receive buffer (SO_RCVBUF).", "BYTES", least=1)
    sndbuf: int | None = option(None, "Send buffer (SO_SNDBUF).", "BYTES", least=1)
    ttl: int | None = option(None, "Time to live or hop limit of packets.", "HOPS", least=1)
    congestion: str | None = option(None, "TCP congestion control (TCP_CONGESTION).", "NAME")

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.service, str) or self.service not in SERVICES:
            known = ", ".join(name for name in SERVICES if name != "handler")
            own = "; `fastnet chat serve` and `fastnet exec serve` are commands of their own"
            raise ConfigError(f"there is no service {self.service!r}", f"There are: {known}{own}")
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
                f"At most {limits.WORKERS_MAX}; one a core is enough",
            )
        self._check_service()
        self._check_engine()
        if self.unix is not None and (self.allow or self.deny):
            raise ConfigError(
                "allow and deny mean nothing on a Unix socket",
                "Guard it with the permissions of its folder",
            )
        if self.cpu_affinity is not None:
            affinity.parse(self.cpu_affinity)
        AccessList.parse(self.allow, self.deny)
        self.endpoint  # noqa: B018 - raises ConfigError for a bad path

    def _check_service(self) -> None:
        row = SERVICES[self.service]
        if self.handler is not None and not callable(self.handler):
            raise ConfigError(
                f"handler = {self.handler!r} is no function",
                "It is called with a memoryview and an address",
            )
        if self.file is not None and (not self.file or "\0" in self.file):
            raise ConfigError(f"file = {self.file!r} is not a path", "Write the name of a file")
        for name in row.required:
            if getattr(self, name) is None:
                raise ConfigError(f"{self.service} needs a {name}", REQUIRED[name])
        for name, default in SPECIAL.items():
            if getattr(self, name) != default and name not in row.options:
                raise ConfigError(
                    f"{self.service} takes no {name}", "Leave it out, or choose another service"
                )
        if not row.connections and not self.udp:
            raise ConfigError(
                f"{self.service} serves datagrams only",
                "Listen on udp://HOST:PORT or unixgram:PATH",
            )
        if self.suffix and "suffix" not in SERVICES[self.service].options:
            raise ConfigError(f"{self.service} has no suffix", "Only echo appends one")
        if len(self.suffix.encode("utf-8", "surrogateescape")) > limits.SUFFIX_BYTES_MAX:
            raise ConfigError("the suffix is too long", f"At most {limits.SUFFIX_BYTES_MAX} bytes")

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

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        if self.unix is not None:
            return Endpoint("unixgram" if self.udp else "unix", path=self.unix)
        return Endpoint(
            "udp" if self.udp else "tcp", self.host.removeprefix("[").removesuffix("]"), self.port
        )

    @property
    def socket_options(self) -> SocketOptions:
        names = {each.name for each in dataclasses.fields(SocketOptions)} & {
            each.name for each in options(ServerConfig)
        }
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


REQUIRED = {
    "handler": "It is a Python function: fastnet.serve(function, 'udp://127.0.0.1:7000')",
    "file": "Name it: --file dict.txt, with word:translation in each line",
}
"""Settings that a service cannot do without, and how they are written."""

SPECIAL = {"handler": None, "file": None, "format": dictionary_file.AUTO}
"""Settings that only some services take, and their defaults."""

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class ProcessConfig:
    """The process around one or several servers. Raises ConfigError."""

    daemon: bool = option(
        False,
        "Detach from the terminal once everything listens. Without --log-file its log is lost.",
    )
    pidfile: str | None = option(
        None, "Write the process id here, and refuse to run twice.", "PATH"
    )
    log_file: str | None = option(
        None, "Log here, not on standard error; SIGHUP reopens it.", "PATH"
    )
    error_log: str | None = option(None, "Log errors here as well; SIGHUP reopens it.", "PATH")
    log_level: str = option(
        "info", "Least weight of what is logged; debug has a line a connection.", choices=LOG_LEVELS
    )
    log_format: str = option(
        "text", "Lines to read, or one JSON object a line.", choices=("text", "json")
    )
    metrics: str | None = option(
        None, "Counters for Prometheus at http://HOST:PORT/metrics.", "[HOST:]PORT"
    )
    json: bool = option(False, "Events and errors on standard output, one JSON object a line.")

    def __post_init__(self) -> None:
        check(self)
        for name in ("pidfile", "log_file", "error_log"):
            path = getattr(self, name)
            if path is not None and (not path or "\0" in path):
                raise ConfigError(f"{name} = {path!r} is not a path", "Write the name of a file")
        self.metrics_endpoint  # noqa: B018 - raises ConfigError for a bad address

    @property
    def metrics_endpoint(self) -> Endpoint | None:
        """Where counters are served; a bare port is one of the loopback address."""
        if self.metrics is None:
            return None
        bare = self.metrics.isascii() and self.metrics.isdigit()
        where = Endpoint.parse(f"127.0.0.1:{self.metrics}" if bare else self.metrics)
        if where.transport != "tcp":
            raise ConfigError(f"metrics cannot be served on {where}", "Write HOST:PORT")
        return where


C = TypeVar("C")


def options(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a config class that are options."""
    return [each for each in dataclasses.fields(config) if "help" in each.metadata]


def value_type(config: type[Any], name: str) -> type[Any]:
    """The type of an option's value: str, int, float, bool, or tuple for one that may be given
    again.
    """
    hint = typing.get_type_hints(config)[name]
    if isinstance(hint, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    kind: type[Any] = typing.get_origin(hint) or hint
    return kind


def check(config: Any) -> None:
    """Type, choice and lower bound of every option of a config object."""
    for each in options(type(config)):
        value = getattr(config, each.name)
        if (value is None and each.default is None) or (value and value == each.metadata["word"]):
            continue
        expected = value_type(type(config), each.name)
        fits = isinstance(value, (int, float) if expected is float else expected)
        if expected is tuple and fits:
            fits = all(isinstance(item, str) for item in value)
        if not fits or (isinstance(value, bool) and expected is not bool):
            or_word = f" or {each.metadata['word']!r}" if each.metadata["word"] else ""
            raise ConfigError(f"{each.name} = {value!r} is not {ARTICLE[expected]}{or_word}")
        choices, least = each.metadata["choices"], each.metadata["least"]
        if choices and value not in choices:
            raise ConfigError(
                f"{each.name} cannot be {value!r}", f"It is one of: {', '.join(choices)}"
            )
        if least is not None and not value >= least:
            raise ConfigError(f"{each.name} = {value} is too small", f"At least {least:g}")
        most = {int: limits.NUMBER_MAX, float: limits.SECONDS_MAX}.get(expected)
        if most is not None and value > most:
            raise ConfigError(f"{each.name} = {value} is too large", f"At most {most:.0f}")


ARTICLE = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}


def build(config: type[C], values: Mapping[str, Any], source: str) -> C:
    """A config object from names and typed values, as a TOML file or the command line gives them.

    source: where they come from, for the message. Raises ConfigError.
    """
    known = [each.name for each in dataclasses.fields(typing.cast("type[Any]", config))]
    for name in values:
        if name not in known:
            raise ConfigError(f"{source}: unknown option {name!r}", suggestion(name, known))
    lists = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        return config(**lists)
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error.message}" if source else error.message, error.hint
        ) from None


def suggestion(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}"


def from_environment(config: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The options that FASTNET_NAME variables set, as typed values. Lists are separated by commas.
    Raises ConfigError.
    """
    found = {}
    for each in options(config):
        variable = ENVIRONMENT_PREFIX + each.name.upper()
        if variable in environment:
            found[each.name] = from_text(
                environment[variable], value_type(config, each.name), variable, each
            )
    return found


def from_text(text: str, kind: type[Any], variable: str, each: dataclasses.Field[Any]) -> Any:
    if text and text == each.metadata["word"]:
        return text
    if kind is bool:
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.lower() not in words:
            raise ConfigError(f"{variable}={text!r} is not true or false", "Write 1 or 0")
        return words[text.lower()]
    if kind is tuple:
        return tuple(each.strip() for each in text.split(",") if each.strip())
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable}={text!r} is not {ARTICLE[kind]}") from None
