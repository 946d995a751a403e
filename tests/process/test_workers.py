"""Several loops of one server: number, placement, spread of connections, a dead worker."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

import pytest

import fastnet
from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.limits import SPARE_DESCRIPTORS
from fastnet.registry import BACKENDS
from fastnet.server.plan import make_plan
from tests.support.cli_process import children, connect, echoes, eventually, finish, running

USABLE = sorted(os.sched_getaffinity(0))


@pytest.mark.native
@pytest.mark.parametrize("engine", ["epoll", "uring"])
def test_connections_spread_over_all_workers(engine: str) -> None:
    """400 connections hashed to 4 loops: under 40 on one of them is one run in 10^19."""
    with fastnet.serve("echo", engine=engine, workers=4) as server:
        socks = [connect(server.endpoint) for _ in range(400)]
        for sock in socks:
            assert echoes(sock, b"x")
        shares = [each.accepted for each in server.worker_statistics()]
        assert sum(shares) == server.statistics().accepted == 400
        for sock in socks:
            sock.close()
    assert min(shares) >= 40, shares


@pytest.mark.parametrize("backend", BACKENDS)
def test_auto_is_a_loop_for_each_processor_it_may_use(backend: str) -> None:
    with running("echo", "--backend", backend, "--workers", "auto", "--json") as server:
        assert server.event()["workers"] == len(USABLE)
        assert server.end()[0] == 0


def test_auto_counts_the_processors_of_this_process_and_not_of_the_machine() -> None:
    with running(
        "echo",
        "--workers",
        "auto",
        "--json",
        preexec_fn=lambda: os.sched_setaffinity(0, {USABLE[0]}),
    ) as server:
        assert server.event()["workers"] == 1
        assert server.end()[0] == 0


def affinity_of(task: int) -> set[int]:
    return os.sched_getaffinity(task)


@pytest.mark.native
@pytest.mark.skipif(len(USABLE) < 2, reason="one processor")
def test_loops_are_kept_on_their_processors_in_turn() -> None:
    with running(
        "echo", "--workers", 3, "--cpu-affinity", f"{USABLE[1]},{USABLE[0]}", "--backend", "native"
    ) as server:
        server.endpoint()
        bound = [affinity_of(int(task.name)) for task in Path(f"/proc/{server.pid}/task").iterdir()]
        loops = sorted(bound, key=len)[:3]
        assert sorted(loops, key=min) == [{USABLE[0]}, {USABLE[1]}, {USABLE[1]}]
        assert affinity_of(server.pid) == set(USABLE), "the main thread is bound to nothing"
        assert server.end()[0] == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(len(USABLE) < 2, reason="one processor")
def test_worker_processes_are_kept_on_their_processors_in_turn(backend: str) -> None:
    options = ("--workers", 2, "--worker-processes", "--cpu-affinity", "auto", "--backend", backend)
    with running("echo", *options) as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"x")
        eventually(
            lambda: (
                [affinity_of(pid) for pid in children(server.pid)] == [{USABLE[0]}, {USABLE[1]}]
            ),
            "binding",
        )
        assert server.end()[0] == 0


def test_a_processor_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    ended = finish("echo", "--cpu-affinity", 9999)
    assert ended.returncode == ConfigError.exit_code
    assert "cannot run on processor 9999. Usable here: " in ended.stderr


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "3-1", "0,,1", "²", "0-1-2"])
def test_a_list_of_processors_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="processor"):
        ServerConfig(cpu_affinity=text)


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5", "AUTO", ""])
def test_a_number_of_workers_that_is_none_is_an_error(text: str) -> None:
    ended = finish("echo", "--workers", text)
    assert ended.returncode in (2, ConfigError.exit_code)
    assert "workers" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_each_worker_process_has_the_descriptor_limit_for_itself() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shared = make_plan(ServerConfig(workers=4, engine="epoll")).limits.max_connections
    alone = make_plan(
        ServerConfig(workers=4, engine="epoll", worker_processes=True)
    ).limits.max_connections
    assert alone == soft - SPARE_DESCRIPTORS
    if make_plan(ServerConfig(workers=4, engine="epoll")).processes:
        assert shared == alone
    else:
        assert shared == alone // 4


@pytest.mark.native
@pytest.mark.parametrize(
    "engine", ["epoll", "uring", "thread", "pool", "fork", "iterative", "select"]
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_killed_native_worker_process_is_reported_and_replaced(
    engine: str, transport: str, tmp_path: Path
) -> None:
    where = ("--unix", tmp_path / "socket") if transport == "unix" else ("--port", 0)
    options = (
        "--engine",
        engine,
        "--backend",
        "native",
        "--workers",
        2,
        "--worker-processes",
        "--json",
        *where,
    )
    with running("echo", *options) as server:
        endpoint = Endpoint.parse(server.event()["endpoint"])
        with connect(endpoint) as victim:
            assert echoes(victim, b"a")
            before = children(server.pid)
            assert len(before) == 2
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            if engine != "fork":  # whose children finish their connections, parent or not
                assert is_gone(victim)
        eventually(lambda: len(set(children(server.pid)) - set(before)) == 2, "two new workers")
        with connect(endpoint) as after:
            assert echoes(after, b"b")
        assert "died; starting another" in server.line("err")
        server.send(signal.SIGTERM)
        stopped = server.event()
        while stopped["event"] != "stopped":
            stopped = server.event()
        assert server.end(None)[0] == 0
    assert stopped["statistics"]["open"] == 0
    assert stopped["statistics"]["accepted"] == 2


def is_gone(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
