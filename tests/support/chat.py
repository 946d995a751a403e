"""Chats in tests: servers and members as real processes, textbook programs, and a network in memory
that behaves badly.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from fastnet.apps.chat.authentication import Gate, Seal
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.apps.chat.server_protocol import Hall
from fastnet.endpoint import Endpoint
from fastnet.transport.access import AccessList
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, Running, fastnet, running


class Clock:
    """Stands still until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextlib.contextmanager
def serving(*options: object, port: int = 0, **more: Any) -> Iterator[tuple[Running, Endpoint]]:
    with running("chat", "serve", "--port", port, *options, **more) as server:
        yield server, server.endpoint()


@contextlib.contextmanager
def textbook(endpoint: Endpoint, *words: bytes) -> Iterator[socket.socket]:
    """A program that says these words."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((endpoint.host, endpoint.port))
        for word in words:
            sock.send(word)
        yield sock


class Joined:
    """A member whose input stays open."""

    def __init__(self, endpoint: Endpoint, name: str, *options: object) -> None:
        self.process = subprocess.Popen(
            fastnet("chat", "join", "--server", endpoint, "--name", name, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            bufsize=0,
        )
        self.text = {"out": b"", "err": b""}

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def line(self, stream: str = "out") -> str:
        file = self.process.stdout if stream == "out" else self.process.stderr
        assert file is not None
        while b"\n" not in self.text[stream]:
            assert select.select([file], [], [], DEADLINE_S)[0], f"nothing more than {self.text}"
            data = os.read(file.fileno(), 65536)
            assert data, f"it ended after {self.text}"
            self.text[stream] += data
        line, _, self.text[stream] = self.text[stream].partition(b"\n")
        return line.decode()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return (
            self.process.returncode,
            (self.text["out"] + out).decode(),
            (self.text["err"] + err).decode(),
        )


@contextlib.contextmanager
def joined(endpoint: Endpoint, name: str, *options: object) -> Iterator[Joined]:
    member = Joined(endpoint, name, *options)
    try:
        assert member.line("err").startswith(f"* you are {name}, ")
        yield member
    finally:
        member.process.kill()
        member.process.communicate()


class Network:
    """A hall and members, and datagrams that arrive when chance will have it."""

    def __init__(self, seed: int, loss: float, names: list[str], secret: bytes = b"") -> None:
        self.chance = random.Random(seed)
        self.loss = loss
        self.secret = secret
        self.now_s = 0.0
        self.restart()
        self.members = {("127.0.0.1", 4000 + i): Talking(name) for i, name in enumerate(names)}
        self.seals = {peer: Seal("us", secret) for peer in self.members} if secret else {}
        self.seen: dict[str, list[Event]] = {name: [] for name in names}
        self.flying: list[tuple[bytes, tuple[str, int], bool]] = []
        self.recorded: list[tuple[bytes, tuple[str, int], bool]] = []
        """With a secret: all there was."""

    def restart(self) -> None:
        self.hall = Hall(AccessList.parse(["127.0.0.0/8"]), 1e9, lambda: self.now_s)
        self.gate = (
            Gate(self.hall, {"us": self.secret}, lambda: self.now_s) if self.secret else None
        )

    def handle_timer(self) -> None:
        """A little time goes by, everybody sends, and some of what flies arrives."""
        self.now_s += 0.05
        for peer, talking in self.members.items():
            if not talking.has_left and (talking.is_due or self.chance.random() < 0.3):
                talking.wait_s = 0.0
                self.send(talking.next(), peer)
        due = self.hall.handle_timer()
        for data, to in self.gate.seal(due) if self.gate else due:
            self.fly(data, to, False)
        self.chance.shuffle(self.flying)
        for _ in range(self.chance.randrange(len(self.flying) + 1)):
            data, peer, is_request = self.flying.pop()
            if is_request:
                for reply, to in (self.gate or self.hall).receive_datagram(data, peer):
                    self.fly(reply, to, False)
            elif peer in self.members:
                self.arrive(self.members[peer], data, peer)

    def send(self, data: bytes, peer: tuple[str, int]) -> None:
        self.fly(self.seals[peer].close(data) if self.seals else data, peer, True)

    def arrive(self, talking: Talking, data: bytes, peer: tuple[str, int]) -> None:
        got = talking.got
        if self.seals:
            opened = self.seals[peer].open(data)
            talking.is_due |= opened == b""
            if not opened:
                return
            data = opened
        self.seen[talking.name] += talking.receive_datagram(data) or []
        if talking.got != got or talking.saw_repetition:
            talking.saw_repetition = False
            self.send(talking.acknowledgement(), peer)

    def fly(self, data: bytes, peer: object, is_request: bool) -> None:
        if self.secret:
            self.recorded.append((data, peer, is_request))  # type: ignore[arg-type]
        for _ in range(self.chance.choice((1, 1, 2))):
            if self.chance.random() >= self.loss:
                self.flying.append((data, peer, is_request))  # type: ignore[arg-type]

    def said(self, name: str) -> list[str]:
        return [event.text for event in self.seen[name] if event.kind == "said"]


def until(network: Network, holds: object) -> None:
    for _ in range(20_000):
        if holds():  # type: ignore[operator]
            return
        network.handle_timer()
    raise AssertionError(f"not within 20000 turns: {network.seen}")
