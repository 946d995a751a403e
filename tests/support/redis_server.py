"""A Redis, or Valkey, of a test's own: on a free port, with its files in a temporary folder, ended
with the test.
"""

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
    """One that can be ended and started again at its port. keeps: whether it remembers its streams
    then.
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
        words = [
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
        words += ["--appendonly", "yes", "--appendfsync", "no"] if self.keeps else []
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
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

    def go_on(self) -> None:
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
