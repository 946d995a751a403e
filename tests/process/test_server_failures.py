"""A server one of whose loops fails.

The loops are Python functions here, so that they fail on demand.
"""

from __future__ import annotations

import os
import select
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fastnet.config.server import ServerConfig
from fastnet.engine.context import LoopContext
from fastnet.engine.stream import ENGINES
from fastnet.limits import POOL_QUEUE_MAX
from fastnet.server.plan import make_plan
from fastnet.server.server import Server
from tests.support.clients import eventually


def test_the_request_to_stop_outlives_the_last_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One loop fails while the server drains, the other one is slow to end.

    Closing waits for it, whatever the timeout of connections, before it frees the shared stop word.
    """
    may_end, first = threading.Event(), threading.Lock()
    seen: list[int] = []

    def run(context: LoopContext) -> None:
        if first.acquire(blocking=False):
            select.select([context.stop.drain_fd], [], [], 20)
            raise OSError(5, "the disk of this loop is on fire")
        may_end.wait(20)
        os.fstat(context.stop.now_fd)
        seen.append(context.stop.state)

    monkeypatch.setattr(ENGINES, "load", lambda name, backend: SimpleNamespace(run=run))
    server = Server(
        replace(make_plan(ServerConfig(workers=2, engine="epoll")), processes=False)
    ).start()
    raised: list[BaseException] = []

    def close() -> None:
        try:
            server.close(0.05)
        except OSError as error:
            raised.append(error)

    closing = threading.Thread(target=close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive(), "closing must wait for the slow loop, for as long as it takes"
    may_end.set()
    closing.join(20)
    assert not closing.is_alive()
    assert len(seen) == 1
    assert [error.errno for error in raised] == [5]


def test_a_worker_that_fails_at_its_start_is_reported_with_its_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(context: LoopContext) -> None:
        raise OSError(28, "no room for a ring")

    monkeypatch.setattr(ENGINES, "load", lambda name, backend: SimpleNamespace(run=run))
    server = Server(
        make_plan(ServerConfig(workers=2, engine="epoll", worker_processes=True))
    ).start()
    try:
        eventually(lambda: len(caplog.records) >= 2, 20)
    finally:
        server.close(0)
    assert "died of OSError: [Errno 28] no room for a ring; starting another" in caplog.text
    assert "worker 0" in caplog.text
    assert "worker 1" in caplog.text


def test_a_pool_takes_at_least_as_many_connections_as_it_has_threads() -> None:
    assert make_plan(ServerConfig(engine="pool", pool_size=500)).limits.max_connections == 500
    assert (
        make_plan(ServerConfig(engine="pool", pool_size=5)).limits.max_connections == POOL_QUEUE_MAX
    )
