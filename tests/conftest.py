"""Fixtures every suite shares.

The axes from the tables, servers and peers that are closed, and proof that nothing is left.

Facts. A row of a table is a claim that something works; a row that cannot work here says why
(Table.why_not).
Decision: `engine`, `backend`, `transport` and `service` are parametrised from the tables, so a new
row is tested the day it is added; a service that has to be given something has tests of its own.
A test that parametrises them by hand makes the same claim, so all tests are checked after
collection: a hole in a table is no test, and a row that cannot work here is a test skipped with the
row's own reason. The mark `native` alone is the claim that the native epoll engine works.
FASTNET_BACKEND narrows the run to one backend.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

import fastnet
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from fastnet.service import SERVICES
from fastnet.transport import TRANSPORTS
from tests.support.clients import Peer, connect
from tests.support.leaks import Leftovers

for number in (signal.SIGINT, signal.SIGHUP):
    # A suite started in the background or under nohup inherits these as ignored, and so would every
    # child it tests.
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

settings.register_profile("shared host", deadline=None)
settings.load_profile("shared host")
"""How long one example takes says something about who else has the processor."""

Serve = Callable[..., Server]
Dial = Callable[..., Peer]


@functools.cache
def why_skip(backend: str, engine: str = "", service: str = "") -> str:
    """Why this combination cannot be tested here, or ""."""
    wanted = os.environ.get("FASTNET_BACKEND", "auto")
    if wanted not in ("auto", backend):
        return f"FASTNET_BACKEND={wanted}"
    if engine and (why := TABLES[engine].why_not(engine, backend)):
        return why
    return SERVICES.why_not(service or "echo", backend)


STREAMS = [name for name in TRANSPORTS if not TRANSPORTS[name].datagrams]
TABLES = {name: table for table in (ENGINES, DATAGRAMS) for name in table}


def is_hole(backend: str, engine: str) -> bool:
    return bool(backend) and engine in TABLES and not TABLES[engine][engine].module(backend)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what is a hole, mark what is native, skip what cannot work here."""
    holes = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        axes = {
            axis: callspec.params.get(axis, "") if callspec else ""
            for axis in ("backend", "engine", "service")
        }
        if not axes["backend"] and item.get_closest_marker("native"):
            axes["backend"], axes["engine"] = "native", axes["engine"] or "epoll"
        if is_hole(axes["backend"], axes["engine"]):
            holes.append(item)
        elif axes["backend"] in BACKENDS and axes["engine"] in ("", *TABLES):
            if axes["backend"] == "native":
                item.add_marker(pytest.mark.native)
            if why := why_skip(**axes):
                item.add_marker(pytest.mark.skip(reason=why))
    config.hook.pytest_deselected(items=holes)
    items[:] = [item for item in items if item not in set(holes)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `engine`, `backend`, `transport` and `service` their values.

    Ids read like epoll-native-tcp.
    """
    wants = set(metafunc.fixturenames)
    given = {
        name
        for each in metafunc.definition.iter_markers("parametrize")
        for name in names(each.args[0])
    }
    wants -= given
    services = (
        [name for name in SERVICES if not any(each.required for each in SERVICES[name].settings)]
        if "service" in wants
        else [""]
    )
    engines = list(ENGINES) if "engine" in wants else [""]
    if "backend" in wants:
        axes = [name for name in ("service", "engine", "backend") if name in wants]
        rows = []
        for values in itertools.product(services, engines, BACKENDS):
            row = dict(zip(("service", "engine", "backend"), values, strict=True))
            if not is_hole(row["backend"], row["engine"]):
                rows.append(
                    pytest.param(*(row[axis] for axis in axes), id="-".join(v for v in values if v))
                )
        metafunc.parametrize(axes, rows)
    else:
        for axis, values in (("service", services), ("engine", engines)):
            if axis in wants:
                metafunc.parametrize(axis, values)
    if "transport" in wants:
        metafunc.parametrize("transport", STREAMS)


def names(argnames: str | list[str]) -> list[str]:
    return (
        [each.strip() for each in argnames.split(",")]
        if isinstance(argnames, str)
        else list(argnames)
    )


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No descriptor, child or thread outlives the test that made it."""
    before = Leftovers.now()
    yield
    left = before.what_is_new()
    assert not left, f"left over: {left}"


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Start a server of this test's engine, backend and transport.

    It has a port or path of its own,
    closed at the end.
    """
    callspec = getattr(request.node, "callspec", None)
    params: dict[str, Any] = dict(callspec.params) if callspec else {}
    servers: list[Server] = []

    def start(service: str = "", endpoint: str = "", **options: Any) -> Server:
        if not endpoint and params.get("transport") == "unix":
            endpoint = f"unix:{request.getfixturevalue('tmp_path')}/{len(servers)}"
        for axis in ("engine", "backend"):
            if axis in params:
                options.setdefault(axis, params[axis])
        options.setdefault("pool_size", 4)
        service = service or params.get("service", "echo")
        server = fastnet.serve(service, endpoint or "tcp://127.0.0.1:0", **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close(drain_s=2)


@pytest.fixture
def dial(serve: Serve) -> Iterator[Dial]:
    """Connect to a server.

    It depends on `serve`, so that peers are closed before servers drain.
    """
    peers: list[Peer] = []

    def open_one(server: Server, **options: Any) -> Peer:
        peers.append(connect(server.endpoint, **options))
        return peers[-1]

    yield open_one
    for peer in peers:
        peer.close()


@pytest.fixture
def concurrency(engine: str) -> Callable[[Server], int]:
    """Connections that an engine really serves concurrently, by its row."""

    def count(server: Server) -> int:
        row, limits = ENGINES[engine], server.plan.limits
        return min(row.parts(limits) or limits.max_connections, row.bound or limits.max_connections)

    return count


def pytest_report_header() -> list[str]:
    """Which rows are missing here, once, at the top."""
    missing = [
        f"{name}-{backend}: {why}"
        for backend in BACKENDS
        for name in ENGINES
        if (why := ENGINES.why_not(name, backend))
    ]
    return [
        f"fastnet {fastnet.__version__}, IPv6 {'yes' if socket.has_dualstack_ipv6() else 'no'}",
        *missing,
    ]
