"""Chats in tests: processes, textbook programs, a lossy network in memory."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from fastnet.apps.chat.authentication import ClientAuthenticator, ServerAuthenticator
from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent, MembershipState
from fastnet.apps.chat.server_protocol import ChatServerProtocol, Datagrams
from fastnet.endpoint import Endpoint
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, Running, fastnet, running


class Clock:
    """Returns the same time until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextlib.contextmanager
def serving(*options: object, port: int = 0, **more: Any) -> Iterator[tuple[Running, Endpoint]]:
    with running("chat", "serve", "--port", port, *options, **more) as server:
        yield server, server.endpoint()


@contextlib.contextmanager
def textbook(endpoint: Endpoint, *texts: bytes) -> Iterator[socket.socket]:
    """A textbook program's socket that has sent these texts."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((endpoint.host, endpoint.port))
        for text in texts:
            sock.send(text)
        yield sock


class ClientProcess:
    """`fastnet chat join` with an input that stays open."""

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

    def send_line(self, line: str) -> None:
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
        """Exit code, standard output and standard error, once it has ended."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return (
            self.process.returncode,
            (self.text["out"] + out).decode(),
            (self.text["err"] + err).decode(),
        )


@contextlib.contextmanager
def joined(endpoint: Endpoint, name: str, *options: object) -> Iterator[ClientProcess]:
    client = ClientProcess(endpoint, name, *options)
    try:
        assert client.line("err").startswith(f"* you are {name}, ")
        yield client
    finally:
        client.process.kill()
        client.process.communicate()


class MemoryNetwork:
    """A server, clients, and a network that loses, duplicates and reorders datagrams.

    Args:
        seed: Of the random numbers.
        loss: Part of the datagrams that is lost.
        names: Of the clients.
        secret: Key of server and clients; b"" for none.
    """

    def __init__(self, seed: int, loss: float, names: list[str], secret: bytes = b"") -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.secret = secret
        self.now_s = 0.0
        self.restart_server()
        self.clients: dict[Peer, ChatClientProtocol] = {
            ("127.0.0.1", 4000 + i): ChatClientProtocol(name) for i, name in enumerate(names)
        }
        self.authenticators = (
            {peer: ClientAuthenticator("us", secret) for peer in self.clients} if secret else {}
        )
        self.events: dict[str, list[ChatEvent]] = {name: [] for name in names}
        self.in_flight: list[tuple[bytes, Peer, bool]] = []
        """Bytes, the client's address, and whether it goes to the server."""
        self.recorded: list[tuple[bytes, Peer, bool]] = []
        """With a secret: all datagrams that were sent."""

    def restart_server(self) -> None:
        self.server = ChatServerProtocol(AccessList.parse(["127.0.0.0/8"]), 1e9, lambda: self.now_s)
        self.authenticator = (
            ServerAuthenticator(self.server, {"us": self.secret}, lambda: self.now_s)
            if self.secret
            else None
        )

    def run_once(self) -> None:
        """Advance the clock; clients send, and a part of the datagrams in flight arrives."""
        self.now_s += 0.05
        for peer, client in self.clients.items():
            has_left = client.state is MembershipState.LEFT
            if not has_left and (client.is_request_due or self.random.random() < 0.3):
                client.wait_s = 0.0
                self.send_request(client.next_request(), peer)
        self.send_replies(self.server.handle_timer())
        self.random.shuffle(self.in_flight)
        for _ in range(self.random.randrange(len(self.in_flight) + 1)):
            data, peer, is_request = self.in_flight.pop()
            if is_request:
                layer = self.authenticator or self.server
                self.send_replies(layer.receive_datagram(data, peer))
            elif peer in self.clients:
                self.receive_reply(self.clients[peer], data, peer)

    def send_request(self, data: bytes, peer: Peer) -> None:
        if self.authenticators:
            data = self.authenticators[peer].authenticate(data)
        self.transmit(data, peer, True)

    def send_replies(self, outgoing: Datagrams) -> None:
        if self.authenticator:
            outgoing = self.authenticator.authenticate(outgoing)
        for data, peer in outgoing:
            self.transmit(data, peer, False)

    def receive_reply(self, client: ChatClientProtocol, data: bytes, peer: Peer) -> None:
        acknowledged = client.last_event
        if self.authenticators:
            body = self.authenticators[peer].verify(data)
            client.is_request_due |= body == b""
            if not body:
                return
            data = body
        self.events[client.name] += client.receive_datagram(data) or []
        if client.last_event != acknowledged or client.saw_duplicate:
            client.saw_duplicate = False
            self.send_request(client.acknowledgement(), peer)

    def transmit(self, data: bytes, peer: Peer, is_request: bool) -> None:
        if self.secret:
            self.recorded.append((data, peer, is_request))
        for _ in range(self.random.choice((1, 1, 2))):
            if self.random.random() >= self.loss:
                self.in_flight.append((data, peer, is_request))

    def messages(self, name: str) -> list[str]:
        """Texts of the messages that a client has displayed."""
        return [event.text for event in self.events[name] if event.kind == "message"]

    def run_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(20_000):
            if condition():
                return
            self.run_once()
        raise AssertionError(f"not within 20000 steps: {self.events}")
