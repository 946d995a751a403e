"""Supervisor of a serving process: signals, drain, metrics, pidfile, logs, reload.

    SIGINT, SIGTERM    the units drain: they accept nothing new and finish what runs for up to
                       their drain time; then exit 0
    a second one       the units stop immediately, and the process exits with 130
    a third one        terminates the process, in case a loop hangs
    SIGHUP             log files are reopened, and the units reload what they can; when the
                       controlling terminal was closed it counts as SIGTERM, or a server that the
                       user cannot see would keep the port
    SIGUSR1            each unit's statistics, one line in the log
    SIGPIPE            ignored

Facts. Python runs signal handlers in the main thread only, so the thread that waits for signals
is the one that may not block elsewhere.
Decision: each serving command has one supervisor and one or several units. A unit is a server with
threads or processes of its own (process/run.py), or one that this thread polls (udp/server.py). The
supervisor polls the signal pipe and the descriptors of all units. Everything that can fail is
opened before the first event; what was opened is closed in reverse order. A unit that ends without
a request makes the others drain, and its failure decides the exit code: half of the requested
services is not what was requested.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from fastnet.config.process import ProcessConfig
from fastnet.errors import EXIT_INTERRUPTED, EXIT_OK, FastnetError
from fastnet.process.logs import PRINTED, Logs
from fastnet.process.pidfile import Pidfile
from fastnet.process.signals import RELOAD, REPORT, STOP, Signals

if TYPE_CHECKING:
    from fastnet.metrics.prometheus import Family, MetricsServer, Source

log = logging.getLogger("fastnet")

Event = dict[str, Any]
Events = list[Event]
OnEvents = Callable[[Events], None]
"""Prints or passes on a list of events; the first call has all that listens."""


class Unit(Protocol):
    """One server of the process."""

    drain_s: float
    """How long it may drain."""
    failure: FastnetError | None
    """Why it ended without a request, or None."""

    def is_running(self) -> bool: ...

    def watched(self) -> Mapping[int, Callable[[int], None]]:
        """Descriptors to poll for input, and the function to call when one is readable."""

    def timers(self) -> list[float]:
        """Times of time.monotonic at which `handle_timer` is due though no input came."""

    def handle_timer(self) -> None:
        """Do what is due; called after every poll."""

    def pending(self) -> int:
        """Connections or commands that a drain waits for."""

    def drain(self) -> None:
        """Accept nothing new."""

    def stop_now(self) -> None:
        """End everything that still runs."""

    def reload(self) -> str:
        """Reload what can be reloaded. Returns its description, "" if there is none."""

    def report(self) -> str:
        """The statistics in one line."""

    def stopped(self) -> Event:
        """The last event, with the statistics."""


class Supervisor:
    """Runs units until they have ended; made by `supervise`."""

    def __init__(
        self,
        logs: Logs,
        signals: Signals,
        metrics: MetricsServer | None,
        stack: ExitStack,
        format_event: Callable[[Event], str],
        on_events: OnEvents,
    ) -> None:
        self.logs = logs
        self.signals = signals
        self.metrics = metrics
        self.stack = stack
        """Closes what a command opens, before the log files are closed."""
        self.format_event = format_event
        self.on_events = on_events
        self.units: Sequence[Unit] = ()
        self.stop_requests = 0
        self.drain_deadlines_s: dict[Unit, float] = {}
        """By draining unit: when it is stopped."""

    def emit(self, *events: Event) -> None:
        """Log events in the log files and pass them on."""
        for event in events:
            log.info("%s", self.format_event(event), extra=PRINTED)
        self.on_events(list(events))

    def start_metrics(
        self, sources: Sequence[Source], families: Sequence[Family] | None = None
    ) -> str:
        """Serve these counters from now on. Returns the URL, "" if no metrics were requested."""
        if self.metrics is None:
            return ""
        if families is None:
            self.metrics.start(sources)
        else:
            self.metrics.start(sources, families)
        return self.metrics.url

    def run(self, units: Sequence[Unit]) -> int:
        """Serve until all units have ended.

        Returns:
            The exit code: 0, or 130 after a second stop signal.
        Raises:
            FastnetError: A unit failed; the others were drained.
        """
        self.units = units
        failure: FastnetError | None = None
        running = [unit for unit in units if unit.is_running()]
        while running:
            self._poll(running)
            for unit in running[:]:
                if unit.is_running():
                    continue
                running.remove(unit)
                self.drain_deadlines_s.pop(unit, None)
                failure = failure or unit.failure
                if not self.stop_requests:
                    failure = failure or FastnetError(f"{unit} ended without a request")
                    self._drain(running)
            self._enforce_drain_deadlines()
        self.emit(*(unit.stopped() for unit in units))
        if failure is not None:
            raise failure
        return EXIT_INTERRUPTED if self.stop_requests > 1 else EXIT_OK

    def _poll(self, running: list[Unit]) -> None:
        """Wait once; handle signals, input and timers."""
        handlers: dict[int, Callable[[int], None]] = {}
        for unit in running:
            handlers.update(unit.watched())
        poll = select.poll()
        for fd in (self.signals.fd, *handlers):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(self._poll_timeout_ms(running)):
            if fd == self.signals.fd:
                for number in self.signals.read():
                    self._on_signal(number, running)
            else:
                handlers[fd](fd)
        for unit in running:
            unit.handle_timer()

    def _poll_timeout_ms(self, running: list[Unit]) -> int | None:
        timers = [*self.drain_deadlines_s.values(), *(t for unit in running for t in unit.timers())]
        return max(0, int((min(timers) - time.monotonic()) * 1000) + 1) if timers else None

    def _on_signal(self, number: int, running: list[Unit]) -> None:
        if number == RELOAD and self.signals.hung_up():
            log.info("SIGHUP: the terminal is gone")
            number = STOP[0]
        if number in STOP:
            self.stop_requests += 1
            if self.stop_requests == 1:
                self._drain(running)
            else:
                self.signals.let_kill()
                for unit in self.units:
                    unit.stop_now()
        elif number == RELOAD:
            self.logs.reopen()
            reloaded = [text for unit in self.units if (text := unit.reload())]
            rest = ", ".join(reloaded) or "the services have nothing else to reload"
            log.info("SIGHUP: log files opened again; %s", rest)
        elif number == REPORT:
            for unit in self.units:
                log.info("%s", unit.report())

    def _drain(self, running: Sequence[Unit]) -> None:
        """Start the drain; report it if there is anything to wait for."""
        now_s = time.monotonic()
        for unit in running:
            unit.drain()
            self.drain_deadlines_s.setdefault(unit, now_s + unit.drain_s)
        pending = sum(unit.pending() for unit in self.units)
        if pending:
            seconds = max(unit.drain_s for unit in self.units)
            self.emit({"event": "draining", "open": pending, "seconds": seconds})

    def _enforce_drain_deadlines(self) -> None:
        """Stop the units whose drain time is over."""
        now_s = time.monotonic()
        for unit, deadline_s in list(self.drain_deadlines_s.items()):
            if deadline_s <= now_s:
                del self.drain_deadlines_s[unit]
                unit.stop_now()


@contextmanager
def supervise(
    process: ProcessConfig, format_event: Callable[[Event], str], on_events: OnEvents
) -> Iterator[Supervisor]:
    """Open what a serving process has, and log the failure that ends it.

    Args:
        process: Paths of log files and pidfile, address of the metrics.
        format_event: Returns an event as one line of text.
        on_events: Called with each list of events.
    Raises:
        ConfigError: A file cannot be written, or another process holds the pidfile.
        NetworkError: The address of the metrics cannot be bound.
    """
    with ExitStack() as stack:
        logs = stack.enter_context(Logs(process))
        try:
            signals = stack.enter_context(Signals())
            if process.pidfile is not None:
                stack.enter_context(Pidfile(process.pidfile))
            metrics = None
            if process.metrics_endpoint is not None:
                # imported here, because an HTTP server is a large module
                from fastnet.metrics.prometheus import MetricsServer

                metrics = stack.enter_context(MetricsServer(process.metrics_endpoint))
            yield Supervisor(logs, signals, metrics, stack, format_event, on_events)
        except FastnetError as error:
            log.error("%s", error, exc_info=True, extra=PRINTED)
            raise
        except Exception:
            log.exception("unexpected", extra=PRINTED)
            raise
