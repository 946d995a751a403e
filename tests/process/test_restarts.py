"""Servers of the library that come and go in one process."""

from __future__ import annotations

import os
import socket
import threading

import pytest

import fastnet
from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from tests.support.cli_process import connect, echoes

STARTS = 200


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def held() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("workers", [1, 2], ids="workers={}".format)
@pytest.mark.parametrize("backend", ["native", "python"])
def test_200_starts_on_one_port_leave_nothing_behind(backend: str, workers: int) -> None:
    endpoint = Endpoint("tcp", "127.0.0.1", free_port())
    starts = STARTS if workers == 1 or backend == "native" else STARTS // 4
    before = held()
    for _ in range(starts):
        with fastnet.serve("echo", str(endpoint), backend=backend, workers=workers) as server:
            with connect(endpoint) as sock:
                assert echoes(sock, b"x")
        assert server.statistics().accepted == 1
    assert held() == before


@pytest.mark.parametrize("backend", ["native", "python"])
@pytest.mark.parametrize("workers", [1, 2, 8], ids="workers={}".format)
@pytest.mark.parametrize("engine", ["epoll", "select", "thread", "pool", "fork", "iterative"])
def test_every_loop_receives_the_request_to_stop(engine: str, backend: str, workers: int) -> None:
    server = fastnet.serve("echo", engine=engine, backend=backend, workers=workers)
    try:
        server.drain()
        assert server.wait(20)
    finally:
        server.close(0)


@pytest.mark.parametrize("workers", [1, 2], ids="workers={}".format)
def test_a_port_in_use_is_an_error_even_when_both_servers_have_several_loops(workers: int) -> None:
    before = held()
    with (
        fastnet.serve("echo", workers=2) as first,
        pytest.raises(NetworkError, match="address already in use"),
    ):
        fastnet.serve("echo", str(first.endpoint), workers=workers)
    assert held() == before


def test_a_port_is_shared_by_servers_that_both_ask_for_it() -> None:
    with fastnet.serve("echo", workers=2, reuse_port=True) as first:
        with fastnet.serve("echo", str(first.endpoint), workers=2, reuse_port=True) as second:
            assert second.endpoint == first.endpoint


def test_a_start_that_fails_half_way_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = held()
    forks = iter([os.fork])
    monkeypatch.setattr(os, "fork", lambda: next(forks, out_of_processes)())
    with pytest.raises(BlockingIOError):
        fastnet.serve("echo", backend="python", workers=2)
    assert held() == before


def out_of_processes() -> int:
    raise BlockingIOError(11, "Resource temporarily unavailable")
