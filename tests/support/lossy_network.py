"""Lossy UDP network: a proxy that loses, duplicates, delays and reorders datagrams.

It prints its seed, which pytest shows for a test that fails; the same seed makes the same choices.
"""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from types import TracebackType

from fastnet.endpoint import Endpoint


class Lossy:
    """A proxy on a port of its own, in a thread until it is closed.

    Args:
        server: Where datagrams are forwarded.
        seed: Of the random choices.
        loss: Probability that a datagram is lost.
        doubled: Probability that it is duplicated.
        late: Probability that it is delayed.
    """

    def __init__(
        self,
        server: Endpoint,
        seed: int,
        loss: float = 0.2,
        doubled: float = 0.1,
        late: float = 0.2,
    ) -> None:
        print(f"lossy network: seed {seed}")
        self.chance = random.Random(seed)
        self.loss, self.doubled, self.late = loss, doubled, late
        self.server = (server.host, server.port)
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.backs: dict[tuple[str, int], socket.socket] = {}
        self.waiting: list[tuple[float, socket.socket, bytes, tuple[str, int] | None]] = []
        self.lost = self.passed = 0
        self.stop, self._stop = socket.socketpair()
        self.thread = threading.Thread(target=self._run, name="lossy")
        self.thread.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("udp", *self.front.getsockname())

    def _run(self) -> None:
        while True:
            now_s = time.monotonic()
            for item in [item for item in self.waiting if item[0] <= now_s]:
                self.waiting.remove(item)
                self._deliver(*item[1:])
            timeout_s = min((item[0] for item in self.waiting), default=now_s + 1) - now_s
            for sock in select.select(
                [self.front, self.stop, *self.backs.values()], [], [], timeout_s
            )[0]:
                if sock is self.stop:
                    return
                self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        try:
            datagram, peer = sock.recvfrom(65536)
        except ConnectionRefusedError:
            return
        if sock is self.front:
            if peer not in self.backs:
                self.backs[peer] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.backs[peer].connect(self.server)
            target, to = self.backs[peer], None
        else:
            target, to = self.front, next(peer for peer, back in self.backs.items() if back is sock)
        for _ in range(2 if self.chance.random() < self.doubled else 1):
            if self.chance.random() < self.loss:
                self.lost += 1
                continue
            delay_s = self.chance.uniform(0.001, 0.15) if self.chance.random() < self.late else 0.0
            self.waiting.append((time.monotonic() + delay_s, target, datagram, to))

    def _deliver(self, target: socket.socket, datagram: bytes, to: tuple[str, int] | None) -> None:
        try:
            if to is None:
                target.send(datagram)
            else:
                target.sendto(datagram, to)
        except ConnectionRefusedError:
            return
        self.passed += 1

    def __enter__(self) -> Lossy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.send(b"x")
        self.thread.join()
        for sock in (self.front, self.stop, self._stop, *self.backs.values()):
            sock.close()
