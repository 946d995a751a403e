"""Settings of the process around one or several servers: daemon, pidfile, logs, metrics."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.config.fields import FilePath, check, option
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class ProcessConfig:
    """The process around one or several servers. Raises ConfigError."""

    daemon: bool = option(
        False,
        "Detach from the terminal once everything listens. Without --log-file its log is lost.",
    )
    pidfile: str | None = option(
        None, "Write the process id here, and refuse to run twice.", kind=FilePath("PATH")
    )
    log_file: str | None = option(
        None, "Log here, not on standard error; SIGHUP reopens it.", kind=FilePath("PATH")
    )
    error_log: str | None = option(
        None, "Log errors here as well; SIGHUP reopens it.", kind=FilePath("PATH")
    )
    log_level: str = option(
        "info",
        "Least level that is logged; debug adds a line for each connection.",
        choices=LOG_LEVELS,
    )
    log_format: str = option(
        "text", "Lines of text, or one JSON object a line.", choices=("text", "json")
    )
    metrics: str | None = option(
        None, "Counters for Prometheus at http://HOST:PORT/metrics.", "[HOST:]PORT"
    )
    json: bool = option(False, "Events and errors on standard output, one JSON object a line.")

    def __post_init__(self) -> None:
        check(self)
        if self.metrics is not None:
            parse_metrics_endpoint(self.metrics)

    @property
    def metrics_endpoint(self) -> Endpoint | None:
        """Where counters are served, or None."""
        return None if self.metrics is None else parse_metrics_endpoint(self.metrics)


def parse_metrics_endpoint(text: str) -> Endpoint:
    """HOST:PORT, or a PORT of the loopback address. Raises ConfigError."""
    is_port = text.isascii() and text.isdigit()
    endpoint = Endpoint.parse(f"127.0.0.1:{text}" if is_port else text)
    if endpoint.transport != "tcp":
        raise ConfigError(f"metrics cannot be served on {endpoint}", "Write HOST:PORT")
    return endpoint
