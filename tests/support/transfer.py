"""Two sides of fastnet/1 in one process, with a proxy between them.

The proxy counts bytes and can inject a fault at one of them.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnet.apps.transfer.api import receive, send
from fastnet.apps.transfer.events import TransferEvent
from fastnet.apps.transfer.report import TransferReport
from fastnet.endpoint import Endpoint
from tests.support.cli_process import DEADLINE_S

ANY_PORT = "tcp://127.0.0.1:0"


@dataclass
class Side:
    """One side in a thread of its own.

    It has ended after `join`; then it has a report or an error.
    """

    run: Callable[..., TransferReport | None]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    events: list[TransferEvent] = field(default_factory=list)
    report: TransferReport | None = None
    error: BaseException | None = None
    stopping: bool = False

    def start(self) -> Side:
        self._listening: queue.Queue[str | None] = queue.Queue()
        self.thread = threading.Thread(target=self._live)
        self.thread.start()
        return self

    def _live(self) -> None:
        try:
            self.report = self.run(
                *self.arguments,
                on_event=self._note,
                should_stop=lambda: self.stopping,
                **self.options,
            )
        except BaseException as error:
            self.error = error
        self._listening.put(None)

    def _note(self, event: TransferEvent) -> None:
        self.events.append(event)
        if event.kind == "listening":
            self._listening.put(event.endpoint)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        where = self._listening.get(timeout=DEADLINE_S)
        assert where is not None, self.error
        return where

    def join(self) -> TransferReport:
        """Its report; raises what it raised."""
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report

    def texts(self) -> list[str]:
        return [event.text or "" for event in self.events if event.text]


@contextmanager
def receiving(**options: Any) -> Iterator[Side]:
    """A receiver that listens; stopped when the block ends."""
    side = Side(receive, (ANY_PORT,), {"listen": True} | options).start()
    try:
        yield side
    finally:
        side.stopping = True
        side.thread.join(DEADLINE_S)


def transfer(
    paths: Sequence[Path | str], *, sending: dict[str, Any] | None = None, **options: Any
) -> tuple[TransferReport, TransferReport]:
    """Send it, and return what both sides report: sender's, receiver's.

    Raises what the sender raised, or the receiver.
    """
    with receiving(**options) as receiver:
        sender = Side(send, (paths, receiver.endpoint), {"listen": False} | (sending or {})).start()
        return sender.join(), receiver.join()


def same_tree(one: Path, other: Path) -> bool:
    """Whether two trees have the same names, kinds, contents, modes and times."""
    return listing(one) == listing(other)


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        if path.is_symlink():
            what: object = os.readlink(path)
        else:
            what = path.read_bytes() if path.is_file() else None
        mode = None if path.is_symlink() else status.st_mode
        found[os.fsencode(path.relative_to(folder)).hex()] = (what, mode, status.st_mtime_ns)
    return found


class Proxy:
    """Carries one connection to `target`, or with many any number.

    after: bytes towards the target until `trouble` is called, once; what it says happens to the
    connection that carried them.

    trouble returns "cut" (both ends closed), "reset" (both ends reset), "stall" (nothing more is
    carried) or "go on".
    """

    def __init__(
        self,
        target: str,
        after: int = -1,
        trouble: Callable[[], str] = lambda: "go on",
        many: bool = False,
    ) -> None:
        self._many = many
        self.connections = 0
        self._lock = threading.Lock()
        self._where = Endpoint.parse(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried = 0
        self._after, self._trouble = after, trouble
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE_S)
        self._listener.close()

    def _live(self) -> None:
        carriers: list[threading.Thread] = []
        while not self._over.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                near, _ = self._listener.accept()
                self.connections += 1
                if not self._many:
                    self._carry_one(near)
                    return
                carrier = threading.Thread(target=self._carry_one, args=(near,))
                carriers.append(carrier)
                carrier.start()
        for carrier in carriers:
            carrier.join(DEADLINE_S)

    def _carry_one(self, near: socket.socket) -> None:
        with near, suppress(ConnectionError):
            with socket.create_connection((self._where.host, self._where.port)) as far:
                self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        open_ends = [near, far]
        try:
            while open_ends and not self._over.is_set():
                for sock in select.select(open_ends, [], [], 0.05)[0]:
                    if not self._pass_on(sock, other[sock], sock is near):
                        open_ends.remove(sock)
        except OSError:
            return

    def _pass_on(self, sock: socket.socket, to: socket.socket, is_near: bool) -> bool:
        """Returns False at the end of a stream."""
        room = self._after - self.carried if is_near and self._after >= 0 else 65536
        data = sock.recv(max(1, min(65536, room)))
        if not data:
            to.shutdown(socket.SHUT_WR)
            return False
        to.sendall(data)
        if is_near:
            with self._lock:
                self.carried += len(data)
                its_turn = 0 <= self._after <= self.carried
                if its_turn:
                    self._after = -1
            if its_turn:
                self._obey(self._trouble(), sock, to)
        return True

    def _obey(self, word: str, sock: socket.socket, to: socket.socket) -> None:
        if word == "reset":
            for end in (sock, to):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if word in ("reset", "cut"):
            raise ConnectionError(word)
        if word == "stall":
            self._over.wait(DEADLINE_S)
