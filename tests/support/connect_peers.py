"""Servers that behave in one way each, and the client as a real process.

What the tests of `fastnet connect` share.

A peer is a function of the accepted socket; it runs in a thread and is joined at the end of the
test, so what it leaves open or raises fails the test.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

DEADLINE_S = 30.0
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close(2) sends RST."""


class Peer:
    """A listener on `endpoint` whose connections are served by `serve`, one after the other."""

    def __init__(
        self, serve: Callable[[socket.socket], object], listener: socket.socket, endpoint: str
    ) -> None:
        self.endpoint = endpoint
        self.errors: list[BaseException] = []
        self.result: object = None
        self.done = threading.Event()
        self.accepted = threading.Event()
        self._serve = serve
        self._listener = listener
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _run(self) -> None:
        try:
            with self._listener:
                sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(DEADLINE_S)
                self.accepted.set()
                self.result = self._serve(sock)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.done.set()

    def join(self) -> None:
        """Wait for the peer; connect to one that accepted nothing, so that it ends."""
        if not self.accepted.is_set():
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the peer did not end"
        if self.accepted.is_set():
            assert not self.errors, self.errors


@contextmanager
def peer(
    serve: Callable[[socket.socket], object], transport: str = "tcp", path: Path | None = None
) -> Iterator[Peer]:
    """A peer for one connection. transport: tcp, tcp6, unix (at `path`) or abstract."""
    one = Peer(serve, *listen(transport, path))
    try:
        yield one
    finally:
        one.join()


def listen(transport: str, path: Path | None = None) -> tuple[socket.socket, str]:
    if transport in ("tcp", "tcp6"):
        host = "127.0.0.1" if transport == "tcp" else "::1"
        listener = socket.create_server(
            (host, 0), family=socket.AF_INET if transport == "tcp" else socket.AF_INET6
        )
        written = host if transport == "tcp" else f"[{host}]"
        return listener, f"tcp://{written}:{listener.getsockname()[1]}"
    listener = socket.socket(socket.AF_UNIX)
    if transport == "abstract":
        listener.bind("")  # the kernel picks a name (unix(7), autobind)
        name = "@" + os.fsdecode(listener.getsockname()[1:])
    else:
        name = str(path)
        listener.bind(name)
    listener.listen()
    return listener, f"unix:{name}"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port without a listener at the moment."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Behaviours


def echo(sock: socket.socket) -> int:
    """Send back what comes, then end. Returns the bytes echoed."""
    total = 0
    while data := sock.recv(65536):
        sock.sendall(data)
        total += len(data)
    return total


def echo_byte_by_byte(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := sock.recv(1):
        sock.sendall(data)


def swallow(sock: socket.socket) -> bytes:
    """Everything the client sends, nothing back."""
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


def say(text: bytes) -> Callable[[socket.socket], None]:
    """A server that speaks and closes, as daytime does."""
    return lambda sock: sock.sendall(text)


def talk_until_enough(sock: socket.socket) -> bytes:
    """Send without pause until the client sends "enough". Returns what it received."""
    sock.setblocking(False)
    received = b""
    while not received.endswith(b"enough\n"):
        with suppress(BlockingIOError):
            sock.send(b"x" * 65536)
        try:
            received += sock.recv(100)
        except BlockingIOError:
            os.sched_yield()
    return received


def abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


# The client


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastnet", "connect", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the client to its end. Without `input` or `stdin`, its input is empty."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command(*arguments),
        env=environment(),
        stderr=subprocess.PIPE,
        timeout=DEADLINE_S,
        **options,
    )


@contextmanager
def client(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """The client as a process with pipes, killed at the end of the block if it is still there."""
    for name in ("stdin", "stdout", "stderr"):
        options.setdefault(name, subprocess.PIPE)
    with subprocess.Popen(  # type: ignore[call-overload]
        command(*arguments), env=environment(), bufsize=0, **options
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_until(fd: int, text: bytes, seen: bytes = b"") -> bytes:
    """Read until `text` has come, and return all of it.

    Fails at the deadline or at the end of the stream.
    """
    deadline = monotonic() + DEADLINE_S
    while text not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - monotonic()))
        assert ready, f"{text!r} did not come, only {seen!r}"
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: the other side of a terminal is closed
            data = b""
        assert data, f"{text!r} did not come before the end, only {seen!r}"
        seen += data
    return seen
