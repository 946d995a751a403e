"""Run servers as a process: from the first check to the exit code.

What a signal does:

    SIGINT, SIGTERM    no new connections; established ones may finish for up to `drain` seconds each server; then exit 0
    a second one       every connection is closed and the process exits at once, with 130
    a third one        ends the process on the spot, should a loop hang
    SIGHUP             log files are opened anew, and the file of a dictionary is read again; nothing else of these services
                       can change while they run. When it comes because the terminal was closed, it is a SIGTERM, or a
                       server nobody sees would keep the port
    SIGUSR1            the statistics so far, one line in the log for each server
    SIGPIPE            nothing

Everything that can fail does so before the first "listening": files, addresses, engines. Several
servers start all or none. A server whose loop fails later ends the others too, with a drain, and
the process ends with the exit code of the failure: half of a set of services is not what was asked
for. The main thread waits here and serves nobody; the order of the opening in `serve` is the
reverse of that of the closing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
import select
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from fastnet.config.server import ProcessConfig, ServerConfig
from fastnet.errors import EXIT_INTERRUPTED, EXIT_OK, FastnetError, NetworkError, reason
from fastnet.limits import DESCRIPTORS_WANTED
from fastnet.process.daemon import Events, launch
from fastnet.process.logs import TOLD, Logs
from fastnet.process.pidfile import Pidfile
from fastnet.process.signals import RELOAD, REPORT, STOP, Signals
from fastnet.server.plan import Plan, how, make_plan
from fastnet.server.server import Server
from fastnet.transport import TRANSPORTS

log = logging.getLogger("fastnet")

Tell = Callable[[Events], None]
"""What the command line prints. Called with everything there is to say at once: first all that
listens.
"""


def run(configs: Sequence[ServerConfig], process: ProcessConfig, tell: Tell) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon. Returns the exit code; raises
    FastnetError.
    """
    raise_descriptor_limit()
    if process.daemon:
        configs = [from_root(config, "unix", "file") for config in configs]
        process = from_root(process, "pidfile", "log_file", "error_log")
    plans = [make_plan(config) for config in configs]
    if process.daemon:
        tell(launch(lambda to_launcher: serve(plans, process, to_launcher)))
        return EXIT_OK
    return serve(plans, process, tell)


def raise_descriptor_limit() -> None:
    """Lift the soft limit to the hard one: the soft one is kept low for programs that use select(2)
    (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def from_root(config: Any, *names: str) -> Any:
    """The config with these paths absolute, for a process that is about to change to /."""
    paths = {name: getattr(config, name) for name in names}
    absolute = {
        name: os.path.abspath(path)
        for name, path in paths.items()
        if path and not path.startswith("@")
    }
    return dataclasses.replace(config, **absolute)


def serve(plans: Sequence[Plan], process: ProcessConfig, tell: Tell) -> int:
    """Open everything, serve, close everything. Returns the exit code."""
    with ExitStack() as stack:
        logs = stack.enter_context(Logs(process))
        try:
            signals = stack.enter_context(Signals())
            if process.pidfile is not None:
                stack.enter_context(Pidfile(process.pidfile))
            metrics = None
            if process.metrics_endpoint is not None:
                from fastnet.metrics.prometheus import MetricsServer

                metrics = stack.enter_context(MetricsServer(process.metrics_endpoint))
            servers = [stack.enter_context(server) for server in start(plans, trace_fd(stack))]
            events = [listening(server) for server in servers]
            if metrics is not None:
                metrics.start([(labels(server), server.statistics) for server in servers])
                events.append({"event": "metrics", "url": metrics.url})
            tell(events)
            note(events)
            return Watch(servers, signals, logs, tell).run()
        except FastnetError as error:
            log.error("%s", error, exc_info=True, extra=TOLD)
            raise
        except Exception:
            log.exception("unexpected", extra=TOLD)
            raise


def trace_fd(stack: ExitStack) -> int:
    """Where loops report connections that ended, at level debug only."""
    if not log.isEnabledFor(logging.DEBUG):
        return -1
    from fastnet.metrics.connection_log import ConnectionLog

    trace = ConnectionLog()
    stack.callback(trace.close)
    return trace.fd


def start(plans: Sequence[Plan], trace_fd: int) -> list[Server]:
    """All servers, or none and an error."""
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


def listening(server: Server) -> dict[str, Any]:
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


def stopped(server: Server) -> dict[str, Any]:
    return {"event": "stopped", **labels(server), "statistics": server.statistics().as_dict()}


def words(event: dict[str, Any]) -> str:
    """An event as a line to read."""
    match event["event"]:
        case "listening":
            names = ("engine", "backend", "workers", "worker_processes", "reason")
            return f"listening on {event['endpoint']} ({how(*(event[name] for name in names))})"
        case "metrics":
            return f"metrics on {event['url']}"
        case "draining":
            many = "1 connection" if event["open"] == 1 else f"{event['open']} connections"
            return (
                f"draining {many} for up to {event['seconds']:g} s; interrupt again to stop at once"
            )
    transport, _, _ = event["endpoint"].partition(":")
    text = numbers(event["statistics"], TRANSPORTS[transport].datagrams)
    return f"stopped {event['service']} on {event['endpoint']}: {text}"


LOST = (
    "unanswered",
    "unsent",
    "truncated",
    "kernel_drops",
    "amplification_blocked",
    "handler_errors",
)
"""Counters of what went wrong with datagrams."""


def numbers(statistics: dict[str, Any], datagrams: bool) -> str:
    """Statistics in one line."""
    if datagrams:
        lost = {name: statistics[name] for name in LOST}
        text = "{messages} datagrams in, {replies} out, {bytes_in} bytes in, {bytes_out} bytes out".format(
            **statistics
        )
        words = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in lost.items() if count
        )
        return f"{text}; {words}" if words else text
    ends = ", ".join(f"{count} {why}" for why, count in statistics["closed"].items() if count)
    text = "{accepted} accepted, {open} open, {bytes_in} bytes in, {bytes_out} bytes out".format(
        **statistics
    )
    return f"{text}; closed: {ends}" if ends else text


def report(server: Server) -> str:
    return numbers(server.statistics().as_dict(), TRANSPORTS[server.endpoint.transport].datagrams)


def note(events: Events) -> None:
    """Log events that were told."""
    for event in events:
        log.info("%s", words(event), extra=TOLD)


class Watch:
    """The life of the main thread while the servers serve."""

    def __init__(self, servers: Sequence[Server], signals: Signals, logs: Logs, tell: Tell) -> None:
        self.servers = servers
        self.signals = signals
        self.logs = logs
        self.tell = tell
        self.code = EXIT_OK
        self.stop_asked = 0
        self.failure: BaseException | None = None
        self.running = {server.ended_fd: server for server in servers}
        """By the descriptor that tells of its end."""
        self.deadlines_s: dict[Server, float] = {}
        """When the patience with each draining server ends."""

    def run(self) -> int:
        running = self.running
        while running:
            poll = select.poll()
            for fd in (self.signals.fd, *running):
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(self.patience_ms()):
                if fd in running:
                    self.ended(running.pop(fd))
            for number in self.signals.read():
                self.on_signal(number)
            self.lose_patience()
        events = [stopped(server) for server in self.servers]
        note(events)
        self.tell(events)
        if self.failure is not None:
            raise self.failure
        return self.code

    def on_signal(self, number: int) -> None:
        if number == RELOAD and self.signals.hung_up():
            log.info("SIGHUP: the terminal is gone")
            number = STOP[0]
        if number in STOP:
            self.stop_asked += 1
            if self.stop_asked == 1:
                self.drain()
            else:
                self.stop_at_once()
        elif number == RELOAD:
            self.logs.reopen()
            files = [path for server in self.servers if (path := server.reload())]
            rest = (
                f"reading {', '.join(files)} again"
                if files
                else "the services have nothing else to reload"
            )
            log.info("SIGHUP: log files opened again; %s", rest)
        elif number == REPORT:
            for server in self.servers:
                log.info("%s on %s: %s", *labels(server).values(), report(server))

    def drain(self) -> None:
        """Take no more connections, and say so if somebody is still being served."""
        now_s = time.monotonic()
        for server in self.running.values():
            server.drain()
            self.deadlines_s.setdefault(server, now_s + server.plan.config.drain)
        still_open = sum(server.statistics().open for server in self.servers)
        if still_open:
            seconds = max(server.plan.config.drain for server in self.servers)
            event = {"event": "draining", "open": still_open, "seconds": seconds}
            note([event])
            self.tell([event])

    def stop_at_once(self) -> None:
        self.code = EXIT_INTERRUPTED
        self.signals.let_kill()
        for server in self.servers:
            server.stop_now()

    def patience_ms(self) -> int | None:
        if not self.deadlines_s:
            return None
        return max(0, int((min(self.deadlines_s.values()) - time.monotonic()) * 1000) + 1)

    def lose_patience(self) -> None:
        """Close what is left of the servers that have drained long enough."""
        now_s = time.monotonic()
        for server in [
            server for server, deadline_s in self.deadlines_s.items() if deadline_s <= now_s
        ]:
            del self.deadlines_s[server]
            server.stop_now()

    def ended(self, server: Server) -> None:
        """All loops of a server have ended: because they were told to, or because one failed."""
        self.deadlines_s.pop(server, None)
        try:
            server.wait()
        except Exception as error:
            if self.failure is None:
                self.failure = failed(server, error)
        if not self.stop_asked:
            self.failure = self.failure or FastnetError(
                f"the server on {server.endpoint} ended by itself"
            )
            self.drain()


def failed(server: Server, error: Exception) -> FastnetError:
    """A loop's error as one of ours, with its exit code."""
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
