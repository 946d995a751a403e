"""A Redis or Valkey server of one test: free port, temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_process import DEADLINE_S, eventually

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(
    PROGRAM is None, reason="neither redis-server nor valkey-server is installed"
)


class RedisServer:
    """A server that can be stopped, and started again at its port.

    Args:
        folder: For its files.
        keeps: Whether it keeps its streams when it is stopped.
    """

    def __init__(self, folder: Path, keeps: bool = True) -> None:
        self.folder = folder
        self.keeps = keeps
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
        arguments = [
            PROGRAM,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
            "--save",
            "",
        ]
        arguments += ["--appendonly", "yes", "--appendfsync", "no"] if self.keeps else []
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        eventually(self.answers, "Redis")

    def answers(self) -> bool:
        try:
            return self.ask(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def ask(self, line: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE_S) as sock:
            sock.sendall(line + b"\r\n")
            return sock.recv(65536)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def redis_server(folder: Path, keeps: bool = True) -> Iterator[RedisServer]:
    server = RedisServer(folder, keeps)
    try:
        yield server
    finally:
        server.end()
