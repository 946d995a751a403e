"""Server of exec/1: the exec protocol on a socket, and the processes of its commands.

SIGTERM refuses new commands; running ones may end, and their results be fetched. SIGHUP reads the
keys and the allow file; after a mistake, which the log names, the old ones stay. No command
outlives the server, unless that is killed by SIGKILL.
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
from fastnet.apps.exec.server_protocol import ExecServerProtocol, ExecStatistics
from fastnet.config.fields import option
from fastnet.config.process import ProcessConfig
from fastnet.errors import ConfigError
from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX
from fastnet.process.supervisor import Event, OnEvents
from fastnet.security.keys import KEYS_FILE, read_keys
from fastnet.udp.server import DatagramServer, DatagramServerConfig, run_datagram_server

log = logging.getLogger("fastnet")

PORT = 7512
"""The port of rexec, 512, moved out of the privileged range."""


@dataclass(frozen=True)
class ExecConfig(DatagramServerConfig):
    """Configuration of an exec server. Raises ConfigError."""

    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    allow_file: str | None = option(
        None, "TOML file with the commands that may run. Required.", "FILE"
    )
    keys: str = option(
        KEYS_FILE, "File with the secrets of the clients, readable for this user only.", "FILE"
    )
    nonces: str = option(NONCES_FILE, "File that keeps used nonces across restarts.", "FILE")
    allow_root: bool = option(False, "Allow running as root; then give each command a user.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.allow_file is None:
            raise ConfigError(
                "without --allow-file nothing may run", "Write one; docs/exec.md shows how"
            )

    def read(self) -> tuple[dict[str, bytes], Policy]:
        """Read the keys and the allow file. Raises ConfigError."""
        keys = read_keys(self.keys)
        return keys, read_policy(self.allow_file or "", list(keys))


def run(config: ExecConfig, process: ProcessConfig, on_events: OnEvents) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon.

    Returns the exit code; raises FastnetError.
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
    """A datagram server with the exec protocol and the processes of its commands."""

    config: ExecConfig
    service = "exec"
    protocol: ExecServerProtocol
    datagram_bytes_max = EXEC_DATAGRAM_BYTES_MAX

    def __init__(self, config: ExecConfig, on_events: OnEvents) -> None:
        super().__init__(config, ExecStatistics(), on_events)

    def open(self, stack: ExitStack) -> None:
        keys, policy = self.config.read()
        nonces = Nonces(self.config.nonces, time.time_ns() // 1000)
        stack.callback(nonces.close)
        self.protocol = ExecServerProtocol(keys, policy, nonces)
        self.protocol.admission.is_log_written = self.supervisor.logs.are_whole
        self.statistics = self.protocol.statistics
        self.adopt_orphans(stack)
        if os.geteuid() == 0 and (
            as_root := [name for name, command in policy.items() if not command.user]
        ):
            log.warning("these commands run as root: %s", ", ".join(as_root))

    def adopt_orphans(self, stack: ExitStack) -> None:
        """Become a child subreaper; SIGCHLD wakes the poll, so that orphans are reaped soon."""
        try:
            self.protocol.orphans.become_subreaper()
        except OSError as error:
            log.warning(
                "processes that make sessions of their own will outlive their commands: %s", error
            )
            return
        stack.callback(
            signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda number, frame: None)
        )

    def close(self) -> None:
        """Kill the commands that still run, and log their end."""
        for execution in self.protocol.executions():
            execution.kill()
        self.send_all(self.handle_timer())

    def describe(self) -> dict[str, Any]:
        policy = self.protocol.admission.policy
        return {"keys": sorted(self.protocol.keys), "commands": sorted(policy)}

    def watched(self) -> dict[int, Callable[[int], None]]:
        return {
            fd: execution.handle_readable
            for execution in self.protocol.executions()
            for fd in execution.descriptors()
        }

    def pending(self) -> int:
        return len(self.protocol.executions())

    def reload(self) -> str:
        try:
            keys, policy = self.config.read()
        except ConfigError as error:
            log.error("SIGHUP: keys and commands stay as they were: %s", error)
            return "keys and commands stay as they were"
        self.protocol.replace_keys_and_policy(keys, policy)
        return f"read {len(keys)} keys and {len(policy)} commands"

    def format_event(self, event: Event) -> str:
        return format_event(event)


def format_event(event: Event) -> str:
    """An event as one line of text."""
    match event["event"]:
        case "listening":
            keys, commands = ", ".join(event["keys"]), ", ".join(event["commands"])
            metrics = f"; metrics: {event['metrics']}" if event["metrics"] else ""
            return f"listening on {event['endpoint']} (commands: {commands}; keys: {keys}{metrics})"
        case "draining":
            count = "1 command" if event["open"] == 1 else f"{event['open']} commands"
            limit = f"for up to {event['seconds']:g} s"
            return f"waiting for {count} {limit}; interrupt again to kill them"
    state = "stopped exec" if event["event"] == "stopped" else "exec"
    return f"{state} on {event['endpoint']}: {format_statistics(event['statistics'])}"


def format_statistics(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{ran} ran, {refused} refused; {datagrams} datagrams in, {replies} out".format(
        **statistics
    )
    rest = ("junk", "unauthenticated", "challenged", "repeated", "ignored", "unsent")
    more = ", ".join(f"{statistics[name]} {name}" for name in rest if statistics[name])
    return f"{first}; {more}" if more else first
