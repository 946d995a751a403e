"""Process of one or several planned servers: from the first check to the exit code.

Everything that can fail does so before the first "listening": files, addresses, engines. Several
servers start all or none. The main thread runs the supervisor (process/supervisor.py), which has
the meaning of each signal; the loops of the servers run in threads or processes of their own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig
from fastnet.errors import EXIT_OK, FastnetError, NetworkError, reason
from fastnet.limits import DESCRIPTORS_WANTED
from fastnet.process.daemon import launch
from fastnet.process.supervisor import Event, OnEvents, supervise
from fastnet.server.plan import ServerPlan, describe, make_plan
from fastnet.server.server import Server
from fastnet.transport import TRANSPORTS

log = logging.getLogger("fastnet")


def run_process(
    configs: Sequence[ServerConfig], process: ProcessConfig, on_events: OnEvents
) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon.

    Args:
        configs: One for each server.
        process: Daemon, pidfile, logs, metrics.
        on_events: Called with each list of events: first all that listens.
    Returns:
        The exit code.
    Raises:
        FastnetError: A server could not start, or failed.
    """
    raise_descriptor_limit()
    if process.daemon:
        configs = [config.with_absolute_paths() for config in configs]
        process = from_root(process, "pidfile", "log_file", "error_log")
    plans = [make_plan(config) for config in configs]
    if process.daemon:
        on_events(launch(lambda to_launcher: serve_plans(plans, process, to_launcher)))
        return EXIT_OK
    return serve_plans(plans, process, on_events)


def raise_descriptor_limit() -> None:
    """Raise RLIMIT_NOFILE to the hard limit; the soft one is low because of select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def from_root(config: Any, *names: str) -> Any:
    """The config with these paths absolute, for a daemon, whose working directory is /."""
    paths = {name: getattr(config, name) for name in names}
    absolute = {
        name: os.path.abspath(path)
        for name, path in paths.items()
        if path and not path.startswith("@")
    }
    return dataclasses.replace(config, **absolute)


def serve_plans(plans: Sequence[ServerPlan], process: ProcessConfig, on_events: OnEvents) -> int:
    """Open everything, serve, close everything. Returns the exit code."""
    with supervise(process, format_event, on_events) as supervisor:
        trace = trace_fd(supervisor.stack)
        servers = [supervisor.stack.enter_context(server) for server in start_servers(plans, trace)]
        events = [listening(server) for server in servers]
        sources = [(labels(server), server.statistics) for server in servers]
        if url := supervisor.start_metrics(sources):
            events.append({"event": "metrics", "url": url})
        supervisor.emit(*events)
        return supervisor.run([ServerUnit(server) for server in servers])


def trace_fd(stack: ExitStack) -> int:
    """A pipe for records of closed connections, or -1; at level debug only."""
    if not log.isEnabledFor(logging.DEBUG):
        return -1
    from fastnet.metrics.connection_log import ConnectionLog

    trace = ConnectionLog()
    stack.callback(trace.close)
    return trace.fd


def start_servers(plans: Sequence[ServerPlan], trace_fd: int) -> list[Server]:
    """Start all servers; if one fails, close the others and raise its error."""
    started: list[Server] = []
    try:
        for plan in plans:
            started.append(Server(plan, trace_fd).start())
    except BaseException:
        for server in started:
            server.close(0)
        raise
    return started


def labels(server: Server) -> dict[str, str]:
    return {"service": server.plan.config.service, "endpoint": str(server.endpoint)}


def listening(server: Server) -> Event:
    plan = server.plan
    return {
        "event": "listening",
        **labels(server),
        "engine": plan.choice.engine,
        "backend": plan.choice.backend,
        "workers": plan.workers,
        "worker_processes": plan.processes,
        "max_connections": plan.limits.max_connections,
        "reason": plan.choice.reason,
        "pid": os.getpid(),
    }


def stopped(server: Server) -> Event:
    return {"event": "stopped", **labels(server), "statistics": server.statistics().as_dict()}


def format_event(event: Event) -> str:
    """An event as one line of text."""
    match event["event"]:
        case "listening":
            names = ("engine", "backend", "workers", "worker_processes", "reason")
            return (
                f"listening on {event['endpoint']} ({describe(*(event[name] for name in names))})"
            )
        case "metrics":
            return f"metrics on {event['url']}"
        case "draining":
            count = "1 connection" if event["open"] == 1 else f"{event['open']} connections"
            return f"draining {count} for up to {event['seconds']:g} s; interrupt again to stop now"
    transport, _, _ = event["endpoint"].partition(":")
    text = format_statistics(event["statistics"], TRANSPORTS[transport].datagrams)
    return f"stopped {event['service']} on {event['endpoint']}: {text}"


LOST = (
    "unanswered",
    "unsent",
    "truncated",
    "kernel_drops",
    "amplification_blocked",
    "handler_errors",
)
"""Counters of datagrams that were dropped, and of errors."""


def format_statistics(statistics: dict[str, Any], datagrams: bool) -> str:
    """Statistics in one line."""
    if datagrams:
        lost = {name: statistics[name] for name in LOST}
        text = (
            "{messages} datagrams in, {replies} out, {bytes_in} bytes in, {bytes_out} bytes out"
        ).format(**statistics)
        losses = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in lost.items() if count
        )
        return f"{text}; {losses}" if losses else text
    ends = ", ".join(f"{count} {why}" for why, count in statistics["closed"].items() if count)
    text = "{accepted} accepted, {open} open, {bytes_in} bytes in, {bytes_out} bytes out".format(
        **statistics
    )
    return f"{text}; closed: {ends}" if ends else text


def report(server: Server) -> str:
    return format_statistics(
        server.statistics().as_dict(), TRANSPORTS[server.endpoint.transport].datagrams
    )


class ServerUnit:
    """A started server, as the supervisor sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.drain_s = server.plan.config.drain
        self.failure: FastnetError | None = None
        self._has_ended = False

    def is_running(self) -> bool:
        return not self._has_ended

    def watched(self) -> dict[int, Callable[[int], None]]:
        return {self.server.ended_fd: self._on_ended}

    def _on_ended(self, fd: int) -> None:
        """All loops have ended: on request, or because one failed."""
        self._has_ended = True
        try:
            self.server.wait()
        except Exception as error:
            self.failure = failed(self.server, error)

    def timers(self) -> list[float]:
        return []

    def handle_timer(self) -> None:
        """Its loops have timers of their own."""

    def pending(self) -> int:
        return self.server.statistics().open

    def drain(self) -> None:
        self.server.drain()

    def stop_now(self) -> None:
        self.server.stop_now()

    def reload(self) -> str:
        path = self.server.reload()
        return f"reading {path} again" if path else ""

    def report(self) -> str:
        service, endpoint = labels(self.server).values()
        return f"{service} on {endpoint}: {report(self.server)}"

    def stopped(self) -> Event:
        return stopped(self.server)

    def __str__(self) -> str:
        return f"the server on {self.server.endpoint}"


def failed(server: Server, error: Exception) -> FastnetError:
    """A loop's error as a FastnetError, with its exit code."""
    if isinstance(error, FastnetError):
        return error
    message = f"the {server.plan.config.service} server on {server.endpoint} failed"
    found: FastnetError
    if isinstance(error, OSError):
        found = NetworkError(f"{message}: {reason(error)}", errno=error.errno)
    else:
        found = FastnetError(
            f"{message}: {type(error).__name__}: {error}", "--log-level debug shows where"
        )
    found.__cause__ = error
    return found
