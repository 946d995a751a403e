"""Exec in tests.

Keys and allow files, a server protocol with fake clocks, both sides in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastnet.apps.exec import wire
from fastnet.apps.exec.client_protocol import ExecClientProtocol
from fastnet.apps.exec.nonces import Nonces
from fastnet.apps.exec.policy import read_policy
from fastnet.apps.exec.server_protocol import ExecServerProtocol
from fastnet.udp.contract import Peer
from tests.support.cli_process import Running, finish, running
from tests.support.clients import DEADLINE_S

SECRETS = {"alice": bytes(range(32)), "bob": bytes(range(1, 33))}
CLIENT: Peer = ("192.0.2.7", 40000)
OTHER: Peer = ("192.0.2.8", 40000)

AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []


def shell(script: str, **more: object) -> dict[str, object]:
    """The table of a command that runs a shell script."""
    return {"argv": ["/bin/sh", "-c", script, "sh"], **more}


def write_keys(folder: Path) -> Path:
    path = folder / "keys"
    path.write_text("".join(f"{name} {secret.hex()}\n" for name, secret in SECRETS.items()))
    path.chmod(0o600)
    return path


def write_policy(folder: Path, **commands: dict[str, object]) -> Path:
    path = folder / "commands.toml"
    lines = []
    for name, table in commands.items():
        lines.append(f"[command.{name}]")
        lines += [f"{key} = {toml(value)}" for key, value in table.items()]
    path.write_text("\n".join(lines))
    path.chmod(0o644)
    return path


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(text)}" for key, text in value.items()) + "}"
    return json.dumps(value)


def serving(folder: Path, *options: object, **commands: dict[str, object]) -> list[object]:
    """The arguments of a server of these commands."""
    files = ["--allow-file", write_policy(folder, **commands), "--keys", write_keys(folder)]
    return ["exec", "serve", "--port", 0, *files, "--nonces", folder / "nonces", *AS_ROOT, *options]


class Remote:
    """A server process and the arguments of its client."""

    def __init__(self, server: Running, keys: Path) -> None:
        self.server, self.keys = server, keys
        self.endpoint = server.endpoint()

    def run_argv(self, *words: object) -> list[object]:
        """The arguments of `exec run`."""
        return ["exec", "run", "--server", self.endpoint, "--keys", self.keys, *words]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return finish(*self.run_argv(*words))

    def json(self, *words: object) -> tuple[int, dict[str, Any]]:
        done = self.run("--json", *words)
        return done.returncode, json.loads(done.stdout)


Offer = Callable[..., Remote]


@contextlib.contextmanager
def offering(folder: Path) -> Iterator[Offer]:
    """Yields a function that starts a server of these commands; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options: object, **commands: dict[str, object]) -> Remote:
            server = stack.enter_context(running(*serving(folder, *options, **commands)))
            return Remote(server, folder / "keys")

        yield start


class Clocks:
    """Time of day and monotonic time, in seconds; a test advances them."""

    def __init__(self) -> None:
        self.day_s = 1_781_872_345.0
        self.steady_s = 1000.0

    def advance(self, seconds: float) -> None:
        self.day_s += seconds
        self.steady_s += seconds


class ExecNetwork:
    """A server protocol and its clocks, and a network that is a method call."""

    def __init__(self, folder: Path, **commands: dict[str, object]) -> None:
        self.folder = folder
        self.clocks = Clocks()
        self.policy = read_policy(str(write_policy(folder, **commands)), list(SECRETS))
        self.start()

    def start(self) -> None:
        self.nonces = Nonces(str(self.folder / "nonces"), int(self.clocks.day_s * 1e6))
        clocks = self.clocks
        self.protocol = ExecServerProtocol(
            SECRETS, self.policy, self.nonces, lambda: clocks.day_s, lambda: clocks.steady_s
        )

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        for execution in self.protocol.executions():
            execution.kill()
        self.nonces.close()

    def request(
        self,
        *argv: str,
        key: str = "alice",
        nonce: bytes | None = None,
        timestamp_s: float | None = None,
    ) -> ExecClientProtocol:
        at_s = self.clocks.day_s if timestamp_s is None else timestamp_s
        return ExecClientProtocol(
            [*argv], key, SECRETS[key], nonce or os.urandom(16), int(at_s * 1e6)
        )

    def receive(self, datagram: bytes, peer: Peer = CLIENT) -> list[bytes]:
        """A datagram to the server. Returns its replies."""
        outgoing = self.protocol.receive_datagram(datagram, peer)
        assert all(to == peer for _, to in outgoing)
        return [reply for reply, _ in outgoing]

    def exchange(self, client: ExecClientProtocol, peer: Peer = CLIENT) -> list[bytes]:
        """One datagram of the client and the replies to it. Returns all of them."""
        datagram = client.next_datagram()
        replies = self.receive(datagram, peer)
        for reply in replies:
            client.receive_datagram(reply)
        return [datagram, *replies]

    def end_commands(self) -> list[tuple[bytes, Peer]]:
        """Run all commands to their end. Returns what the server sends unasked."""
        end_s = time.monotonic() + DEADLINE_S
        while running := self.protocol.executions():
            by_fd = {fd: execution for execution in running for fd in execution.descriptors()}
            for fd in select.select(list(by_fd), [], [], end_s - time.monotonic())[0]:
                by_fd[fd].handle_readable(fd)
            assert time.monotonic() < end_s, "a command of the test does not end"
        return self.protocol.handle_timer()

    def complete(self, client: ExecClientProtocol, peer: Peer = CLIENT) -> ExecClientProtocol:
        """Exchange datagrams until the client has a result or a refusal."""
        for _ in range(1000):
            if client.is_over:
                return client
            self.exchange(client, peer)
            self.end_commands()
        raise AssertionError(f"not over: {vars(client)}")


def kinds(datagrams: list[bytes]) -> list[int]:
    """Kinds of replies."""
    return [datagram[4] for datagram in datagrams]


CHALLENGED = [wire.CHALLENGE]
