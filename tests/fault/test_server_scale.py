"""The cost of many connections: 1000, where select ends, and 15 000, where epoll pays."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastnet.endpoint import Endpoint
from fastnet.engine.stream import ENGINES
from fastnet.registry import BACKENDS
from tests.support.clients import connect, eventually

ROOT = Path(__file__).parents[2]
BYTES_A_CONNECTION_MAX = {"epoll": 64, "uring": 512}
SLACK_BYTES = 256 * 1024
"""What a process allocates once between two looks, whatever the connections: pages of stacks,
arenas, the reader's own.
"""


class Process:
    """A helper process that answers a line with a line."""

    def __init__(self, module: str, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", f"tests.support.{module}", *arguments]
        self.child = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, bufsize=1, stdin=-1, stdout=-1
        )

    def line(self) -> str:
        assert self.child.stdout
        return self.child.stdout.readline().strip()

    def ask(self) -> dict[str, Any]:
        """What a served process says of itself now."""
        assert self.child.stdin
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        answer: dict[str, Any] = json.loads(self.line() or '{"died": true}')
        return answer

    def finish(self) -> str:
        """End its input and return the last line it printed."""
        out, _ = self.child.communicate(timeout=30)
        assert self.child.returncode == 0, self.child.returncode
        return out.strip()


@contextlib.contextmanager
def helper(module: str, *arguments: str) -> Iterator[Process]:
    process = Process(module, *arguments)
    try:
        yield process
    finally:
        process.child.kill()
        process.child.communicate()


@contextlib.contextmanager
def served(**options: Any) -> Iterator[tuple[Process, Endpoint]]:
    with helper("server_process", json.dumps({"service": "echo", **options})) as process:
        yield process, Endpoint.parse(process.line())


def quiet(process: Process) -> dict[str, Any]:
    """What it says once no connection is open."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(process.ask())
        return found["open"] == 0

    eventually(ended, 20, why=lambda: found)
    return found


def visit(endpoint: Endpoint, idle: int, active: int, server: Process) -> dict[str, Any]:
    """A crowd connects, echoes, and closes.

    Returns what the server reported while all were connected.
    """
    with helper("idle_clients", str(endpoint), str(idle), str(active)) as crowd:
        assert crowd.line() == "connected"
        there = server.ask()
        assert there["open"] == idle + active
        assert crowd.finish() == "gone"
    return there


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ["select"])
def test_a_thousand_connections_fit_select(engine, backend) -> None:
    """E3, E9."""
    with served(engine=engine, backend=backend) as (server, endpoint):
        before = quiet(server)
        there = visit(endpoint, 800, 200, server)
        assert there["closed"]["refused"] == 0
        after = quiet(server)
        assert after["accepted"] == after["closed"]["finished"] == 1000
        assert after["descriptors"] == before["descriptors"]
        server.finish()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ["epoll", "uring"])
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 16_000,
    reason="the descriptor limit is below 16,000",
)
def test_fifteen_thousand_idle_connections_cost_what_was_promised(engine, backend, capsys) -> None:
    """E3. The second crowd is measured, three times as large as the first.

    The first is there for what is allocated only once.
    """
    first, second = 5_000, 15_000
    with served(engine=engine, backend=backend, backlog=4096) as (server, endpoint):
        visit(endpoint, first - 200, 200, server)
        before = quiet(server)
        there = visit(endpoint, second, 200, server)
        grown = there["anonymous_bytes"] - before["anonymous_bytes"]
        after = quiet(server)
        assert after["descriptors"] == before["descriptors"]
        assert after["accepted"] == after["closed"]["finished"] == first + second + 200
        server.finish()
    # The slots of the first crowd stay, so only connections beyond it can have cost anything more.
    each = grown / (second + 200 - first)
    with capsys.disabled():
        print(f"\n{engine}-{backend}: {each:.0f} bytes for each of {second + 200} connections")
    if backend == "native":
        assert grown <= BYTES_A_CONNECTION_MAX[engine] * (second + 200 - first) + SLACK_BYTES


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_server_short_of_descriptors_serves_everybody_in_the_end(engine, backend) -> None:
    """E3. Sixty peers connect together where some twenty descriptors are left.

    No peer closes before it was served.
    """
    with served(engine=engine, backend=backend, descriptors=40, max_connections=None) as (
        server,
        endpoint,
    ):
        peers = [connect(endpoint) for _ in range(60)]
        for peer in peers:
            peer.send(b"me too")
            peer.half_close()
        for peer in peers:
            assert peer.read_to_end() == b"me too"
            peer.close()
        after = quiet(server)
        assert (after["accepted"], after["closed"]["finished"]) == (60, 60)
        server.finish()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", list(ENGINES))
def test_sigpipe_never_kills_even_where_it_would(engine, backend, workers) -> None:
    """E9. A program with the default SIGPIPE serves too: threads, children, worker processes."""
    options = {"service": "chargen", "engine": engine, "backend": backend, "workers": workers}
    with served(**options, sigpipe_kills=True) as (server, endpoint):
        for _ in range(4):
            peer = connect(endpoint)
            peer.half_close()  # an RST after a FIN makes send(2) say EPIPE, and raise SIGPIPE
            peer.read(100_000)
            peer.close()
        after = quiet(server)
        assert (after["closed"]["reset"], after["closed"]["killed"]) == (4, 0)
        server.finish()
