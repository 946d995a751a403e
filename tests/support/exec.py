"""Remote commands in tests: keys and allow files, a desk with clocks that can be set, and both
sides without a network.
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
from fastnet.apps.exec.client_protocol import Asking
from fastnet.apps.exec.nonces import Nonces
from fastnet.apps.exec.policy import read_policy
from fastnet.apps.exec.server_protocol import Desk
from fastnet.udp.contract import Peer
from tests.support.cli_process import Running, finish, running
from tests.support.clients import DEADLINE_S

SECRETS = {"alice": bytes(range(32)), "bob": bytes(range(1, 33))}
CLIENT: Peer = ("192.0.2.7", 40000)
OTHER: Peer = ("192.0.2.8", 40000)

AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []


def shell(script: str, **more: object) -> dict[str, object]:
    """A command's table that runs a script of this test."""
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
    """The words of a server of these commands."""
    files = ["--allow-file", write_policy(folder, **commands), "--keys", write_keys(folder)]
    return ["exec", "serve", "--port", 0, *files, "--nonces", folder / "nonces", *AS_ROOT, *options]


class Remote:
    """A server as a process, and its client."""

    def __init__(self, server: Running, keys: Path) -> None:
        self.server, self.keys = server, keys
        self.endpoint = server.endpoint()

    def asking(self, *words: object) -> list[object]:
        """The words of a client."""
        return ["exec", "run", "--server", self.endpoint, "--keys", self.keys, *words]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return finish(*self.asking(*words))

    def json(self, *words: object) -> tuple[int, dict[str, Any]]:
        done = self.run("--json", *words)
        return done.returncode, json.loads(done.stdout)


Offer = Callable[..., Remote]


@contextlib.contextmanager
def offering(folder: Path) -> Iterator[Offer]:
    """What starts a server of these commands; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options: object, **commands: dict[str, object]) -> Remote:
            server = stack.enter_context(running(*serving(folder, *options, **commands)))
            return Remote(server, folder / "keys")

        yield start


class Clocks:
    """The time of day and the steady one, in seconds; both move only when told."""

    def __init__(self) -> None:
        self.day_s = 1_781_872_345.0
        self.steady_s = 1000.0

    def advance(self, seconds: float) -> None:
        self.day_s += seconds
        self.steady_s += seconds


class Bench:
    """A desk and its clocks, and a network that is a method call."""

    def __init__(self, folder: Path, **commands: dict[str, object]) -> None:
        self.folder = folder
        self.clocks = Clocks()
        self.policy = read_policy(str(write_policy(folder, **commands)), list(SECRETS))
        self.start()

    def start(self) -> None:
        self.nonces = Nonces(str(self.folder / "nonces"), int(self.clocks.day_s * 1e6))
        clocks = self.clocks
        self.desk = Desk(
            SECRETS, self.policy, self.nonces, lambda: clocks.day_s, lambda: clocks.steady_s
        )

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        for execution in self.desk.executions():
            execution.kill()
        self.nonces.close()

    def ask(
        self,
        *words: str,
        key: str = "alice",
        nonce: bytes | None = None,
        asked_s: float | None = None,
    ) -> Asking:
        at_s = self.clocks.day_s if asked_s is None else asked_s
        return Asking([*words], key, SECRETS[key], nonce or os.urandom(16), int(at_s * 1e6))

    def exchange(self, asking: Asking, peer: Peer = CLIENT) -> list[bytes]:
        """One datagram there, and what comes back. Both, for tests that record."""
        datagram = asking.next()
        replies = self.desk.receive_datagram(datagram, peer)
        for reply in replies:
            asking.receive_datagram(reply)
        return [datagram, *replies]

    def settle(self) -> list[tuple[bytes, Peer]]:
        """Let everything that runs end. Returns what the desk says by itself."""
        end_s = time.monotonic() + DEADLINE_S
        while running := self.desk.executions():
            by_fd = {fd: execution for execution in running for fd in execution.descriptors()}
            for fd in select.select(list(by_fd), [], [], end_s - time.monotonic())[0]:
                by_fd[fd].ready(fd)
            assert time.monotonic() < end_s, "a command of the test does not end"
        return self.desk.handle_timer()

    def complete(self, asking: Asking, peer: Peer = CLIENT) -> Asking:
        """Ask until it is over."""
        for _ in range(1000):
            if asking.is_over:
                return asking
            self.exchange(asking, peer)
            self.settle()
        raise AssertionError(f"not over: {vars(asking)}")


def kinds(datagrams: list[bytes]) -> list[int]:
    """Of replies."""
    return [datagram[4] for datagram in datagrams]


CHALLENGED = [wire.CHALLENGE]
