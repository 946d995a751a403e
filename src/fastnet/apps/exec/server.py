"""The server of remote commands: a desk (apps/exec/server_protocol.py) on a socket (udp/server.py),
and the commands that run.

SIGTERM takes no new commands; those that run may end, and their results be fetched. SIGHUP reads
keys and allow file anew; after a mistake, which the log names, the old keys and commands stay.
Commands do not outlive the server, unless that is killed by SIGKILL.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastnet.apps.exec.nonces import NONCES_FILE, Nonces
from fastnet.apps.exec.policy import Policy, read_policy
from fastnet.apps.exec.server_protocol import Desk, Statistics
from fastnet.config.server import ProcessConfig, option
from fastnet.errors import ConfigError
from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX
from fastnet.process.supervisor import Event, OnEvents
from fastnet.security.keys import KEYS_FILE, read_keys
from fastnet.udp.contract import Outgoing, Peer
from fastnet.udp.server import DatagramServer, DatagramServerConfig, run_datagram_server

log = logging.getLogger("fastnet")

PORT = 7512
"""rexec's 512, out of the reach of root."""


@dataclass(frozen=True)
class ExecConfig(DatagramServerConfig):
    """A server of remote commands. Raises ConfigError."""

    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    allow_file: str | None = option(
        None, "The TOML file with the commands that may run. Needed.", "FILE"
    )
    keys: str = option(
        KEYS_FILE, "The secrets of those who may ask, readable for this user only.", "FILE"
    )
    nonces: str = option(NONCES_FILE, "Where requests are remembered across restarts.", "FILE")
    allow_root: bool = option(False, "Run as root all the same; give each command a user then.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.allow_file is None:
            raise ConfigError(
                "without --allow-file nothing may run", "Write one; docs/exec.md shows how"
            )

    def read(self) -> tuple[dict[str, bytes], Policy]:
        """The keys and the policy as they are on the disk now. Raises ConfigError."""
        keys = read_keys(self.keys)
        return keys, read_policy(self.allow_file or "", list(keys))


def run(config: ExecConfig, process: ProcessConfig, on_events: OnEvents) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon. Returns the exit code; raises
    FastnetError.
    """
    if os.geteuid() == 0 and not config.allow_root:
        hint = (
            "Run it as a user of its own, or with --allow-root and a user in each command's table"
        )
        raise ConfigError("a server of remote commands does not run as root", hint)
    config = replace(
        config, keys=os.path.expanduser(config.keys), nonces=os.path.expanduser(config.nonces)
    )
    if process.daemon and process.log_file is None:
        raise ConfigError(
            "a daemon without --log-file would run commands on no record", "Add --log-file PATH"
        )
    paths = ("allow_file", "keys", "nonces")
    return run_datagram_server(ExecServer, config, process, on_events, paths)


class ExecServer(DatagramServer):
    """One socket, one desk, and the commands that run."""

    config: ExecConfig
    service = "exec"
    desk: Desk
    datagram_bytes_max = EXEC_DATAGRAM_BYTES_MAX

    def __init__(self, config: ExecConfig, on_events: OnEvents) -> None:
        super().__init__(config, Statistics(), on_events)

    def open(self, stack: ExitStack) -> None:
        keys, policy = self.config.read()
        nonces = Nonces(self.config.nonces, time.time_ns() // 1000)
        stack.callback(nonces.close)
        self.desk = Desk(keys, policy, nonces)
        self.desk.is_recorded = self.supervisor.logs.are_whole
        self.statistics = self.desk.statistics
        self.adopt_orphans(stack)
        if os.geteuid() == 0 and (
            as_root := [name for name, command in policy.items() if not command.user]
        ):
            log.warning("these commands run as root: %s", ", ".join(as_root))

    def adopt_orphans(self, stack: ExitStack) -> None:
        """SIGCHLD wakes the poll, so that none of them waits long to be seen out."""
        try:
            self.desk.orphans.adopt()
        except OSError as error:
            log.warning(
                "processes that make sessions of their own will outlive their commands: %s", error
            )
            return
        stack.callback(
            signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda number, frame: None)
        )

    def close(self) -> None:
        """Kill what still runs, and log it."""
        for execution in self.desk.executions():
            execution.kill()
        self.send_all(self.desk.handle_timer())

    def describe(self) -> dict[str, Any]:
        return {"keys": sorted(self.desk.keys), "commands": sorted(self.desk.policy)}

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Outgoing:
        return [(reply, peer) for reply in self.desk.receive_datagram(datagram, peer)]

    def handle_timer(self) -> Outgoing:
        self.desk.orphans.turn(time.monotonic())
        return self.desk.handle_timer()

    def timers(self) -> list[float]:
        due = [self.desk.orphans.again_s, *(each.deadline_s for each in self.desk.executions())]
        return [each for each in due if each is not None]

    def watched(self) -> dict[int, Callable[[int], None]]:
        return {fd: each.ready for each in self.desk.executions() for fd in each.descriptors()}

    def stop(self) -> None:
        self.desk.is_stopping = True

    def has_pending_work(self) -> bool:
        return self.desk.has_pending_work()

    def pending(self) -> int:
        return len(self.desk.executions())

    def reload(self) -> str:
        try:
            self.desk.keys, self.desk.policy = self.config.read()
        except ConfigError as error:
            log.error("SIGHUP: keys and commands stay as they were: %s", error)
            return "keys and commands stay as they were"
        return f"read {len(self.desk.keys)} keys and {len(self.desk.policy)} commands"

    def format_event(self, event: Event) -> str:
        return format_event(event)


def format_event(event: Event) -> str:
    """An event as a line to read."""
    match event["event"]:
        case "listening":
            keys, commands = ", ".join(event["keys"]), ", ".join(event["commands"])
            metrics = f"; metrics: {event['metrics']}" if event["metrics"] else ""
            return f"listening on {event['endpoint']} (commands: {commands}; keys: {keys}{metrics})"
        case "draining":
            many = "1 command" if event["open"] == 1 else f"{event['open']} commands"
            return f"waiting for {many} for up to {event['seconds']:g} s; interrupt again to stop at once"
    state = "stopped exec" if event["event"] == "stopped" else "exec"
    return f"{state} on {event['endpoint']}: {numbers(event['statistics'])}"


def numbers(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{ran} ran, {refused} refused; {datagrams} datagrams in, {replies} out".format(
        **statistics
    )
    rest = ("junk", "strangers", "challenged", "repeated", "ignored", "unsent")
    more = ", ".join(f"{statistics[name]} {name}" for name in rest if statistics[name])
    return f"{first}; {more}" if more else first
