"""The server of remote commands: a socket, the commands that run, and signals, in one poll.

    SIGINT, SIGTERM    no new commands; those that run may end, and results be fetched, for up to `drain` seconds; exit 0
    a second one       every command is killed and the process exits at once, with 130
    SIGHUP             keys and allow file are read anew, log files opened anew; after a mistake, which the log names, the old
                       keys and commands stay
    SIGUSR1            the statistics so far, one line in the log

Commands do not outlive the server, unless that is killed by SIGKILL.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastnet.access import AccessList
from fastnet.command.desk import Desk, Peer
from fastnet.command.keys import KEYS_FILE, read_keys
from fastnet.command.policy import Policy, read_policy
from fastnet.command.replay import NONCES_FILE, Nonces
from fastnet.command.runner import Execution
from fastnet.config import ProcessConfig, check, option
from fastnet.daemon import Events, launch
from fastnet.endpoint import PORT_MAX, Endpoint
from fastnet.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, FastnetError
from fastnet.limits import (
    ANSWERED_PORTS_FROM,
    DATAGRAMS_PER_TURN,
    DRAIN_S,
    EXEC_DATAGRAM_BYTES_MAX,
    SEND_PATIENCE_S,
    TICK_S,
)
from fastnet.logs import TOLD, Logs
from fastnet.pidfile import Pidfile
from fastnet.process import Tell, from_root
from fastnet.signals import RELOAD, REPORT, STOP, Signals
from fastnet.transport import udp
from fastnet.transport.contract import SocketOptions

log = logging.getLogger("fastnet")

PORT = 7512
"""rexec's 512 (RFC 6335 lists it), out of the reach of root."""


@dataclass(frozen=True)
class CommandConfig:
    """A server of remote commands. Raises ConfigError."""

    host: str = option("127.0.0.1", "Address or name to bind; an empty one is every address of this host.", "HOST")
    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    allow_file: str | None = option(None, "The TOML file with the commands that may run. Needed.", "FILE")
    keys: str = option(KEYS_FILE, "The secrets of those who may ask, readable for this user only.", "FILE")
    nonces: str = option(NONCES_FILE, "Where requests are remembered across restarts.", "FILE")
    allow_root: bool = option(False, "Run as root all the same; give each command a user then.")
    drain: float = option(DRAIN_S, "Time for commands to end after SIGTERM.", "SECONDS", least=0)
    allow: tuple[str, ...] = option((), "Let in this network only; may be given again.", "CIDR")
    deny: tuple[str, ...] = option((), "Turn this network away; may be given again.", "CIDR")
    answer_any_port: bool = option(False, "Answer ports below 1024 and its own number too.")
    rcvbuf: int | None = option(None, "Receive buffer (SO_RCVBUF).", "BYTES", least=1)

    def __post_init__(self) -> None:
        check(self)
        if self.port > PORT_MAX:
            raise ConfigError(f"port {self.port} is out of range", f"Ports go from 0 (pick one) to {PORT_MAX}")
        if self.allow_file is None:
            raise ConfigError("without --allow-file nothing may run", "Write one; docs/exec.md shows how")
        AccessList.parse(self.allow, self.deny)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("udp", self.host.removeprefix("[").removesuffix("]"), self.port)

    def read(self) -> tuple[dict[str, bytes], Policy]:
        """The keys and the policy as they are on the disk now. Raises ConfigError."""
        keys = read_keys(self.keys)
        return keys, read_policy(self.allow_file or "", list(keys))


def run(config: CommandConfig, process: ProcessConfig, tell: Tell) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon. Returns the exit code; raises FastnetError."""
    if os.geteuid() == 0 and not config.allow_root:
        cure = "Run it as a user of its own, or with --allow-root and a user in each command's table"
        raise ConfigError("a server of remote commands does not run as root", cure)
    config = replace(config, keys=os.path.expanduser(config.keys), nonces=os.path.expanduser(config.nonces))
    if process.daemon:
        if process.log_file is None:
            raise ConfigError("a daemon without --log-file would run commands on no record", "Add --log-file PATH")
        config = from_root(config, "allow_file", "keys", "nonces")
        process = from_root(process, "pidfile", "log_file", "error_log")
        tell(launch(lambda to_launcher: serve(config, process, to_launcher)))
        return EXIT_OK
    return serve(config, process, tell)


def serve(config: CommandConfig, process: ProcessConfig, tell: Tell) -> int:
    """Open everything, serve, close everything. Returns the exit code."""
    with ExitStack() as stack:
        logs = stack.enter_context(Logs(process))
        try:
            signals = stack.enter_context(Signals())
            if process.pidfile is not None:
                stack.enter_context(Pidfile(process.pidfile))
            keys, policy = config.read()
            nonces = Nonces(config.nonces, time.time_ns() // 1000)
            stack.callback(nonces.close)
            sock = stack.enter_context(udp.listen(config.endpoint, SocketOptions(rcvbuf=config.rcvbuf)))
            desk = Desk(keys, policy, nonces)
            if os.geteuid() == 0 and (as_root := [name for name, command in policy.items() if not command.user]):
                log.warning("these commands run as root: %s", ", ".join(as_root))
            server = CommandServer(config, desk, sock, signals, logs, tell)
            stack.callback(server.kill_all)
            server.say([server.listening()])
            return server.serve()
        except FastnetError as error:
            log.error("%s", error, extra=TOLD)
            raise
        except Exception:
            log.exception("unexpected", extra=TOLD)
            raise


class CommandServer:
    """One socket and one desk, polled until a signal ends it."""

    def __init__(
        self, config: CommandConfig, desk: Desk, sock: socket.socket, signals: Signals, logs: Logs, tell: Tell
    ) -> None:
        self.config = config
        self.desk = desk
        self.sock = sock
        self.signals = signals
        self.logs = logs
        self.tell = tell
        self.access = AccessList.parse(config.allow, config.deny)
        self.endpoint = udp.name(sock, config.endpoint)
        self.stop_asked = 0
        self.drain_until_s = float("inf")

    def listening(self) -> dict[str, Any]:
        keys, commands = sorted(self.desk.keys), sorted(self.desk.policy)
        about = {"service": "exec", "endpoint": str(self.endpoint), "keys": keys, "commands": commands}
        return {"event": "listening", **about, "pid": os.getpid()}

    def say(self, events: Events) -> None:
        for event in events:
            log.info("%s", words(event), extra=TOLD)
        self.tell(events)

    def serve(self) -> int:
        """Until stopped and drained. Returns the exit code."""
        while not self.is_done():
            executions: dict[int, Execution] = {}
            poll = select.poll()
            for fd in (self.sock.fileno(), self.signals.fd):
                poll.register(fd, select.POLLIN)
            for execution in self.desk.executions():
                for fd in execution.descriptors():
                    executions[fd] = execution
                    poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(self.patience_ms()):
                if fd in executions:
                    executions[fd].ready(fd)
                elif fd == self.sock.fileno():
                    self.take_some()
                else:
                    self.on_signals()
            for datagram, peer in self.desk.turn():
                self.send(datagram, peer)
        code = EXIT_INTERRUPTED if self.stop_asked > 1 else EXIT_OK
        self.kill_all()
        self.say([{"event": "stopped", "endpoint": str(self.endpoint), "statistics": self.desk.statistics.as_dict()}])
        return code

    def is_done(self) -> bool:
        if not self.stop_asked:
            return False
        is_late = time.monotonic() >= self.drain_until_s or self.stop_asked > 1
        return is_late or not self.desk.is_owing()

    def patience_ms(self) -> float | None:
        """Until the next time limit; while stopping, short enough to see a client fall silent."""
        deadlines = [each.deadline_s for each in self.desk.executions() if each.deadline_s is not None]
        if self.stop_asked:
            deadlines += [self.drain_until_s, time.monotonic() + TICK_S]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000 + 1) if deadlines else None

    def kill_all(self) -> None:
        """End what still runs, and log it."""
        for execution in self.desk.executions():
            execution.kill()
        for datagram, peer in self.desk.turn():
            self.send(datagram, peer)

    def take_some(self) -> None:
        """Hear up to a turn's worth of datagrams."""
        statistics = self.desk.statistics
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                datagram, peer = self.sock.recvfrom(EXEC_DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # of an earlier reply: nobody is there any more
            statistics.datagrams += 1
            statistics.bytes_in += len(datagram)
            if self.ignores(peer):
                statistics.ignored += 1
                continue
            for reply in self.desk.hear(datagram, peer):
                self.send(reply, peer)

    def ignores(self, peer: Peer) -> bool:
        """Whether a peer is not to be answered: it is not let in, or its port answers by itself (D4 of datagram/)."""
        host, port = peer[:2]
        if not self.config.answer_any_port and (port == self.endpoint.port or port < ANSWERED_PORTS_FROM):
            return True
        return not self.access.allows(host)

    def send(self, datagram: bytes, peer: Peer) -> None:
        """One datagram; what the kernel does not take is lost, as on the way, and the client asks again."""
        statistics = self.desk.statistics
        try:
            try:
                self.sock.sendto(datagram, peer)
            except BlockingIOError:
                select.select([], [self.sock], [], SEND_PATIENCE_S)
                self.sock.sendto(datagram, peer)
        except OSError:
            statistics.unsent += 1
            return
        statistics.replies += 1
        statistics.bytes_out += len(datagram)

    def on_signals(self) -> None:
        for number in self.signals.read():
            if number == RELOAD and self.signals.hung_up():
                log.info("SIGHUP: the terminal is gone")
                number = STOP[0]
            if number in STOP:
                self.stop()
            elif number == RELOAD:
                self.reload()
            elif number == REPORT:
                log.info("exec on %s: %s", self.endpoint, numbers(self.desk.statistics.as_dict()))

    def stop(self) -> None:
        self.stop_asked += 1
        if self.stop_asked > 1:
            self.signals.let_kill()
            return
        self.desk.is_stopping = True
        self.drain_until_s = time.monotonic() + self.config.drain
        if running := len(self.desk.executions()):
            self.say([{"event": "draining", "open": running, "seconds": self.config.drain}])

    def reload(self) -> None:
        self.logs.reopen()
        try:
            self.desk.keys, self.desk.policy = self.config.read()
        except ConfigError as error:
            log.error("SIGHUP: everything stays as it was: %s", error)
        else:
            keys, commands = len(self.desk.keys), len(self.desk.policy)
            log.info("SIGHUP: read anew: %d keys, %d commands; log files opened again", keys, commands)


def words(event: dict[str, Any]) -> str:
    """An event as a line to read."""
    match event["event"]:
        case "listening":
            keys, commands = ", ".join(event["keys"]), ", ".join(event["commands"])
            return f"listening on {event['endpoint']} (commands: {commands}; keys: {keys})"
        case "draining":
            many = "1 command" if event["open"] == 1 else f"{event['open']} commands"
            return f"waiting for {many} for up to {event['seconds']:g} s; interrupt again to stop at once"
    return f"stopped exec on {event['endpoint']}: {numbers(event['statistics'])}"


def numbers(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{ran} ran, {refused} refused; {datagrams} datagrams in, {replies} out".format(**statistics)
    rest = ("junk", "strangers", "challenged", "repeated", "ignored", "unsent")
    more = ", ".join(f"{statistics[name]} {name}" for name in rest if statistics[name])
    return f"{first}; {more}" if more else first
