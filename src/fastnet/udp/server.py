"""Datagram server: gives a sans-I/O protocol (udp/contract.py) a socket, in one thread.

Facts. The engines of engine/datagram/ serve services that answer each datagram by itself, as fast
as the host can. A protocol with child processes, timers or unsolicited output needs one poll(2)
over its socket, its other descriptors and its timers.
Decision: one class for all such protocols; a subclass opens its protocol and describes its events.
The supervisor (process/supervisor.py) owns that poll, the signals, log files, pidfile and metrics,
and sees the server as a unit: a drain lasts until the protocol has no pending work, or its deadline
has passed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from fastnet.config.fields import check, option
from fastnet.config.process import ProcessConfig
from fastnet.endpoint import PORT_MAX, Endpoint
from fastnet.errors import EXIT_OK, ConfigError, FastnetError
from fastnet.limits import ANSWERED_PORT_MIN, DATAGRAMS_PER_TURN, DRAIN_S, TICK_S
from fastnet.process.daemon import launch
from fastnet.process.run import from_root
from fastnet.process.supervisor import Event, OnEvents, Supervisor, supervise
from fastnet.transport import udp
from fastnet.transport.access import AccessList
from fastnet.transport.contract import SocketOptions
from fastnet.udp.contract import DatagramProtocol, Outgoing, Peer

if TYPE_CHECKING:
    from fastnet.metrics.prometheus import Family

log = logging.getLogger("fastnet")


def counted(about: str, kind: str = "counter") -> Any:
    """A field of statistics.

    Args:
        about: What it counts, as help text of the metric.
        kind: Type of the metric: counter or gauge.
    """
    return field(default=0, metadata={"about": about, "kind": kind})


@dataclass
class DatagramServerStatistics:
    """Counters that every datagram server has; a service adds its own."""

    datagrams: int = counted("Datagrams received.")
    replies: int = counted("Datagrams sent.")
    bytes_in: int = counted("Bytes received.")
    bytes_out: int = counted("Bytes sent.")
    ignored: int = counted("Datagrams dropped by the access list, the port rule or a full table.")
    unsent: int = counted("Datagrams that the kernel refused to send.")

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def families(self, service: str) -> list[Family]:
        """The counters as Prometheus metric families."""
        return [family(service, each.name, each.metadata) for each in fields(self)]


def family(service: str, name: str, metadata: Mapping[str, str]) -> Family:
    """One field of statistics as a Prometheus metric family."""
    kind = metadata["kind"]
    full = f"{service}_{name}_total" if kind == "counter" else f"{service}_{name}"
    return full, kind, metadata["about"], attrgetter(name)


@dataclass(frozen=True)
class DatagramServerConfig:
    """Address and access rules of a datagram server. Raises ConfigError."""

    host: str = option(
        "127.0.0.1", "Address or name to bind; an empty one is every address of this host.", "HOST"
    )
    port: int = option(0, "Port to bind; 0 picks a free one.", "PORT", least=0)
    drain: float = option(DRAIN_S, "Time to finish pending work after SIGTERM.", "SECONDS", least=0)
    allow: tuple[str, ...] = option((), "Accept only peers in this network (repeatable).", "CIDR")
    deny: tuple[str, ...] = option((), "Reject peers in this network (repeatable).", "CIDR")
    answer_any_port: bool = option(False, "Answer source ports below 1024 and the server's own.")
    rcvbuf: int | None = option(None, "Receive buffer (SO_RCVBUF).", "BYTES", least=1)

    def __post_init__(self) -> None:
        check(self)
        if self.port > PORT_MAX:
            raise ConfigError(
                f"port {self.port} is out of range", f"Ports go from 0 (pick one) to {PORT_MAX}"
            )
        AccessList.parse(self.allow, self.deny)

    @property
    def endpoint(self) -> Endpoint:
        """The address to bind."""
        return Endpoint("udp", self.host.removeprefix("[").removesuffix("]"), self.port)


Config = TypeVar("Config", bound=DatagramServerConfig)


def run_datagram_server(
    make_server: Callable[[Config, OnEvents], DatagramServer],
    config: Config,
    process: ProcessConfig,
    on_events: OnEvents,
    paths: tuple[str, ...] = (),
) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon.

    Args:
        make_server: A subclass of DatagramServer.
        config: Its configuration.
        process: Daemon, pidfile, logs, metrics.
        on_events: Called with each list of events.
        paths: Fields of `config` that hold paths; a daemon makes them absolute.
    Returns:
        The exit code.
    Raises:
        FastnetError: The server could not start, or failed.
    """
    if not process.daemon:
        return make_server(config, on_events).run(process)
    config = from_root(config, *paths)
    process = from_root(process, "pidfile", "log_file", "error_log")
    on_events(launch(lambda to_launcher: make_server(config, to_launcher).run(process)))
    return EXIT_OK


class DatagramServer:
    """One socket and one protocol. A subclass overrides the methods below the line."""

    service: str
    """Name of the service."""

    datagram_bytes_max: int
    """A longer datagram is received with one byte more than this, for the protocol to reject."""

    protocol: DatagramProtocol
    """Made by `open`."""

    def __init__(
        self,
        config: DatagramServerConfig,
        statistics: DatagramServerStatistics,
        on_events: OnEvents,
    ) -> None:
        self.config = config
        self.statistics = statistics
        self.on_events = on_events
        self.access = AccessList.parse(config.allow, config.deny)

    def run(self, process: ProcessConfig) -> int:
        """Open everything, serve, close everything. Returns the exit code.

        Raises FastnetError.
        """
        with supervise(process, self.format_event, self.on_events) as supervisor:
            self.supervisor: Supervisor = supervisor
            stack = supervisor.stack
            self.open(stack)
            options = SocketOptions(rcvbuf=self.config.rcvbuf)
            listener = stack.enter_context(udp.listen(self.config.endpoint, options))
            self.sock, self.endpoint = listener.sock, listener.endpoint
            stack.callback(self.close)
            self.on_bound()
            labels = {"service": self.service, "endpoint": str(self.endpoint)}
            families = self.statistics.families(self.service)
            url = supervisor.start_metrics([(labels, lambda: self.statistics)], families)
            more = {"pid": os.getpid(), "service": self.service, **self.describe(), "metrics": url}
            supervisor.emit(self.event("listening", **more))
            return supervisor.run([DatagramServerUnit(self)])

    def event(self, kind: str, **more: Any) -> Event:
        """An event of this server."""
        return {"event": kind, "endpoint": str(self.endpoint), **more}

    def receive_datagrams(self) -> None:
        """Receive and handle up to DATAGRAMS_PER_TURN datagrams."""
        statistics = self.statistics
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                datagram, peer = self.sock.recvfrom(self.datagram_bytes_max + 1)
            except BlockingIOError:
                return
            except OSError:
                self.handle_socket_error()
                continue
            statistics.datagrams += 1
            statistics.bytes_in += len(datagram)
            if self.ignores(peer):
                statistics.ignored += 1
                continue
            self.send_all(self.receive_datagram(datagram, peer))

    def ignores(self, peer: Peer) -> bool:
        """Whether a peer gets no answer: access list, or a port that answers by itself.

        Two servers that answer each other would never stop (D4 of engine/datagram/contract.py).
        """
        host, port = peer[:2]
        if not self.config.answer_any_port and (
            port == self.endpoint.port or port < ANSWERED_PORT_MIN
        ):
            return True
        return not self.access.allows(host)

    def send_all(self, outgoing: Outgoing) -> None:
        """Send datagrams. One that the kernel refuses is lost; the peer retransmits its request."""
        statistics = self.statistics
        for datagram, peer in outgoing:
            try:
                self.send(datagram, peer)
            except OSError:
                statistics.unsent += 1
            else:
                statistics.replies += 1
                statistics.bytes_out += len(datagram)

    def send(self, datagram: bytes, peer: Peer) -> None:
        """Send one datagram; waits once for room in the send buffer. Raises OSError."""
        try:
            self.sock.sendto(datagram, peer)
        except BlockingIOError:
            udp.await_room(self.sock)
            self.sock.sendto(datagram, peer)

    # What a subclass overrides

    def open(self, stack: ExitStack) -> None:
        """Make the protocol and what it needs, closed with the stack. Raises FastnetError."""

    def on_bound(self) -> None:
        """Called once the socket is bound."""

    def close(self) -> None:
        """End what still runs. May be called twice."""

    def describe(self) -> dict[str, Any]:
        """More fields of the listening event."""
        return {}

    def format_event(self, event: Event) -> str:
        """An event as one line of text."""
        raise NotImplementedError

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Outgoing:
        """Handle a datagram of an admitted peer. Returns the datagrams to send."""
        return self.protocol.receive_datagram(datagram, peer)

    def handle_timer(self) -> Outgoing:
        """Do what is due. Returns the datagrams to send."""
        return self.protocol.handle_timer()

    def timers(self) -> list[float]:
        """Times at which handle_timer is due, in seconds of time.monotonic."""
        return self.protocol.timers()

    def watched(self) -> dict[int, Callable[[int], None]]:
        """Other descriptors to poll, and the function to call when one is readable."""
        return {}

    def handle_socket_error(self) -> None:
        """recvfrom(2) reported that an earlier datagram was refused."""

    def stop(self) -> None:
        """Accept no new work."""
        self.protocol.stop()

    def has_pending_work(self) -> bool:
        """Whether started work is unfinished."""
        return self.protocol.has_pending_work()

    def pending(self) -> int:
        """How many pieces of work a drain reports."""
        return 0

    def reload(self) -> str:
        """Reload what can be. Returns its description, "" if there is nothing."""
        return ""


class DatagramServerUnit:
    """A datagram server, as the supervisor sees it."""

    def __init__(self, server: DatagramServer) -> None:
        self.server = server
        self.drain_s = server.config.drain
        self.failure: FastnetError | None = None
        self._is_draining = False
        self._is_stopped = False

    def is_running(self) -> bool:
        if self._is_stopped:
            return False
        return not self._is_draining or self.server.has_pending_work()

    def watched(self) -> dict[int, Callable[[int], None]]:
        return {
            self.server.sock.fileno(): lambda fd: self.server.receive_datagrams(),
            **self.server.watched(),
        }

    def timers(self) -> list[float]:
        """While draining a tick more, for work that ends because its client fell silent."""
        ticks = [time.monotonic() + TICK_S] if self._is_draining else []
        return [*self.server.timers(), *ticks]

    def handle_timer(self) -> None:
        self.server.send_all(self.server.handle_timer())

    def pending(self) -> int:
        return self.server.pending()

    def drain(self) -> None:
        self._is_draining = True
        self.server.stop()

    def stop_now(self) -> None:
        self._is_stopped = True

    def reload(self) -> str:
        return self.server.reload()

    def report(self) -> str:
        server = self.server
        return server.format_event(server.event("statistics", statistics=self._statistics()))

    def stopped(self) -> Event:
        """Closes the server first: what that ends is counted, too."""
        self.server.close()
        return self.server.event("stopped", statistics=self._statistics())

    def _statistics(self) -> dict[str, int]:
        return self.server.statistics.as_dict()

    def __str__(self) -> str:
        return f"the {self.server.service} server on {self.server.endpoint}"
