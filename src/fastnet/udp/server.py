"""A datagram service in one thread: a socket, signals and whatever else the service waits for, in
one
poll.

The engines of datagram/ are for services that answer whoever asked, as fast as the host can. A
service that also has processes, deadlines or something to say unasked is a desk
(apps/exec/server_protocol.py, apps/chat/server_protocol.py): it judges datagrams and knows no
socket. This is the socket around it.

    SIGINT, SIGTERM    the desk ends its business, for up to `drain` seconds; exit 0
    a second one       the process exits at once, with 130
    SIGHUP             what the desk can reload is reloaded, log files are opened anew
    SIGUSR1            the statistics so far, one line in the log
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fastnet.config.server import ProcessConfig, check, option
from fastnet.endpoint import PORT_MAX, Endpoint
from fastnet.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, FastnetError
from fastnet.limits import ANSWERED_PORT_MIN, DATAGRAMS_PER_TURN, DRAIN_S, TICK_S
from fastnet.process.logs import TOLD, Logs
from fastnet.process.pidfile import Pidfile
from fastnet.process.signals import RELOAD, REPORT, STOP, Signals
from fastnet.process.supervisor import OnEvents
from fastnet.transport import udp
from fastnet.transport.access import AccessList
from fastnet.transport.contract import SocketOptions
from fastnet.udp.contract import DatagramProtocol, Outgoing, Peer

if TYPE_CHECKING:
    from fastnet.metrics.prometheus import Family, MetricsServer

log = logging.getLogger("fastnet")


def counted(about: str, kind: str = "counter") -> Any:
    """A field of statistics, with what it counts."""
    return field(default=0, metadata={"about": about, "kind": kind})


@dataclass
class DatagramServerStatistics:
    """What came and what became of it."""

    datagrams: int = counted("Datagrams received.")
    replies: int = counted("Datagrams sent.")
    bytes_in: int = counted("Bytes received.")
    bytes_out: int = counted("Bytes sent.")
    ignored: int = counted("Datagrams of peers that are not to be answered.")
    unsent: int = counted("Datagrams that the kernel did not take.")

    def as_dict(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def families(self, service: str) -> list[Family]:
        """The same for Prometheus."""
        return [family(service, each.name, each.metadata) for each in fields(self)]


def family(service: str, name: str, metadata: Mapping[str, str]) -> Family:
    kind = metadata["kind"]
    full = f"{service}_{name}_total" if kind == "counter" else f"{service}_{name}"
    return full, kind, metadata["about"], attrgetter(name)


@dataclass(frozen=True)
class DatagramServerConfig:
    """Where a desk is, and who may come to it. Raises ConfigError."""

    host: str = option(
        "127.0.0.1", "Address or name to bind; an empty one is every address of this host.", "HOST"
    )
    port: int = option(0, "Port to bind; 0 picks a free one.", "PORT", least=0)
    drain: float = option(DRAIN_S, "Time to end business after SIGTERM.", "SECONDS", least=0)
    allow: tuple[str, ...] = option((), "Let in this network only; may be given again.", "CIDR")
    deny: tuple[str, ...] = option((), "Turn this network away; may be given again.", "CIDR")
    answer_any_port: bool = option(False, "Answer ports below 1024 and its own number too.")
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
        return Endpoint("udp", self.host.removeprefix("[").removesuffix("]"), self.port)


def listen_for_metrics(endpoint: Endpoint) -> MetricsServer:
    """Loaded only when wanted: an HTTP server is large. Raises NetworkError."""
    from fastnet.metrics.prometheus import MetricsServer

    return MetricsServer(endpoint)


class DatagramServer:
    """One socket and one desk, polled until a signal ends it. A service overrides what is below the
    line.
    """

    service: str
    """Its name."""

    protocol: DatagramProtocol
    """Set by `open`."""

    datagram_bytes_max: int
    """What is longer arrives one byte longer than this, for the desk to refuse."""

    def __init__(
        self, config: DatagramServerConfig, statistics: DatagramServerStatistics, tell: OnEvents
    ) -> None:
        self.config = config
        self.statistics = statistics
        self.tell = tell
        self.access = AccessList.parse(config.allow, config.deny)
        self.stop_asked = 0
        self.drain_until_s = float("inf")
        self.metrics: MetricsServer | None = None

    def run(self, process: ProcessConfig) -> int:
        """Open what a process has, serve, close everything. Returns the exit code; raises
        FastnetError.
        """
        with ExitStack() as stack:
            self.logs = stack.enter_context(Logs(process))
            try:
                self.signals = stack.enter_context(Signals())
                if process.pidfile is not None:
                    stack.enter_context(Pidfile(process.pidfile))
                if process.metrics_endpoint is not None:
                    self.metrics = stack.enter_context(listen_for_metrics(process.metrics_endpoint))
                self.open(stack)
                options = SocketOptions(rcvbuf=self.config.rcvbuf)
                self.sock = stack.enter_context(udp.listen(self.config.endpoint, options))
                self.endpoint = udp.name(self.sock, self.config.endpoint)
                stack.callback(self.close)
                self.opened()
                self.say(
                    self.event(
                        "listening",
                        pid=os.getpid(),
                        service=self.service,
                        **self.about(),
                        **self.show(),
                    )
                )
                return self.serve()
            except FastnetError as error:
                log.error("%s", error, extra=TOLD)
                raise
            except Exception:
                log.exception("unexpected", extra=TOLD)
                raise

    def show(self) -> dict[str, str]:
        """The counters to Prometheus. Returns where, for the first event."""
        if self.metrics is None:
            return {"metrics": ""}
        labels = {"service": self.service, "endpoint": str(self.endpoint)}
        self.metrics.start(
            [(labels, lambda: self.statistics)], self.statistics.families(self.service)
        )
        return {"metrics": self.metrics.url}

    def event(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"event": kind, "endpoint": str(self.endpoint), **more}

    def say(self, *events: dict[str, Any]) -> None:
        for event in events:
            log.info("%s", self.words(event), extra=TOLD)
        self.tell(list(events))

    def serve(self) -> int:
        """Until stopped and drained. Returns the exit code."""
        while not self.is_done():
            watched = self.watched()
            poll = select.poll()
            for fd in (self.sock.fileno(), self.signals.fd, *watched):
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(self.poll_timeout_ms()):
                if fd in watched:
                    watched[fd](fd)
                elif fd == self.sock.fileno():
                    self.take_some()
                else:
                    self.on_signals()
            self.send_all(self.handle_timer())
        self.close()
        self.say(self.event("stopped", statistics=self.statistics.as_dict()))
        return EXIT_INTERRUPTED if self.stop_asked > 1 else EXIT_OK

    def is_done(self) -> bool:
        if not self.stop_asked:
            return False
        is_late = time.monotonic() >= self.drain_until_s or self.stop_asked > 1
        return is_late or not self.has_pending_work()

    def poll_timeout_ms(self) -> float | None:
        """Until the next deadline; while stopping, short enough to see a peer fall silent."""
        timers = self.timers()
        if self.stop_asked:
            timers += [self.drain_until_s, time.monotonic() + TICK_S]
        return max(0.0, (min(timers) - time.monotonic()) * 1000 + 1) if timers else None

    def take_some(self) -> None:
        """Hear up to a turn's worth of datagrams."""
        statistics = self.statistics
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                datagram, peer = self.sock.recvfrom(self.datagram_bytes_max + 1)
            except BlockingIOError:
                return
            except OSError:
                self.refused()
                continue
            statistics.datagrams += 1
            statistics.bytes_in += len(datagram)
            if self.ignores(peer):
                statistics.ignored += 1
                continue
            self.send_all(self.receive_datagram(datagram, peer))

    def ignores(self, peer: Peer) -> bool:
        """Whether a peer is not to be answered: it is not let in, or its port answers by itself (D4
        of datagram/).
        """
        host, port = peer[:2]
        if not self.config.answer_any_port and (
            port == self.endpoint.port or port < ANSWERED_PORT_MIN
        ):
            return True
        return not self.access.allows(host)

    def send_all(self, outgoing: Outgoing) -> None:
        """What the kernel does not take is lost, as on the way; peers that care ask again."""
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
        """Raises OSError."""
        try:
            self.sock.sendto(datagram, peer)
        except BlockingIOError:
            udp.await_room(self.sock)
            self.sock.sendto(datagram, peer)

    def on_signals(self) -> None:
        for number in self.signals.read():
            if number == RELOAD and self.signals.hung_up():
                log.info("SIGHUP: the terminal is gone")
                number = STOP[0]
            if number in STOP:
                self.on_stop()
            elif number == RELOAD:
                self.logs.reopen()
                self.reload()
            elif number == REPORT:
                log.info(
                    "%s", self.words(self.event("statistics", statistics=self.statistics.as_dict()))
                )

    def on_stop(self) -> None:
        self.stop_asked += 1
        if self.stop_asked > 1:
            self.signals.let_kill()
            return
        self.drain_until_s = time.monotonic() + self.config.drain
        self.stop()

    # What a service says about itself

    def open(self, stack: ExitStack) -> None:
        """Get what the desk needs; closed with the stack. Raises FastnetError."""

    def opened(self) -> None:
        """The socket is there."""

    def close(self) -> None:
        """End what runs. May be called twice."""

    def about(self) -> dict[str, Any]:
        """More about what listens, for the first event."""
        return {}

    def words(self, event: dict[str, Any]) -> str:
        """An event as a line to read."""
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
        """Other descriptors, and what to call when one is readable."""
        return {}

    def refused(self) -> None:
        """An earlier reply met nobody."""

    def stop(self) -> None:
        """Accept no new work."""
        self.protocol.stop()

    def has_pending_work(self) -> bool:
        """Whether a stopping server has started work to finish."""
        return self.protocol.has_pending_work()

    def reload(self) -> None:
        """Read anew what can be."""
        log.info("SIGHUP: log files opened again; there is nothing else to reload")
