"""Registry of stream engines: one row a concurrency model. A new one is a file and a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastnet import probes
from fastnet.limits import (
    FD_SETSIZE,
    FORK_CONNECTIONS_MAX,
    POOL_QUEUE_MAX,
    SELECT_SPARE_DESCRIPTORS,
    THREAD_CONNECTIONS_MAX,
    Limits,
)
from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class EngineRow(Row):
    """One concurrency model."""

    when: str = ""
    """Which use it is for."""

    connections: int = 0
    """Default connection limit of a loop; 0: the descriptor limit."""

    bound: int = 0
    """Connection limit that no option can raise; 0: none."""

    parts: Callable[[Limits], int] = lambda limits: 0
    """Threads or children that count apart from the loop, each into its own row."""


ENGINES: Registry[EngineRow] = Registry(
    __name__,
    {
        "uring": EngineRow(
            "one loop over io_uring, the fewest system calls",
            native="uring_c",
            needs=lambda: probes.why_not(probes.io_uring),
            when="what `auto` picks; needs Linux 6.0 or newer and permission",
        ),
        "epoll": EngineRow(
            "one loop over epoll(7), any number of connections",
            "epoll_py",
            "epoll_c",
            when="the reference; what `auto` picks where io_uring is not allowed",
        ),
        "select": EngineRow(
            "one loop over select(2), about a thousand connections",
            "select_py",
            "select_c",
            when="to see what epoll is for; hosts without epoll",
            connections=FD_SETSIZE - SELECT_SPARE_DESCRIPTORS,
            bound=FD_SETSIZE - SELECT_SPARE_DESCRIPTORS,
        ),
        "thread": EngineRow(
            "a thread for each connection",
            "thread_py",
            "thread_c",
            when="few busy connections on several cores",
            connections=THREAD_CONNECTIONS_MAX,
            parts=lambda limits: limits.max_connections,
        ),
        "pool": EngineRow(
            "a fixed number of threads and a bounded queue",
            "pool_py",
            "pool_c",
            when="short connections, a fixed share of the host",
            connections=POOL_QUEUE_MAX,
            parts=lambda limits: limits.pool_size,
        ),
        "fork": EngineRow(
            "a process for each connection",
            "fork_py",
            "fork_c",
            needs=lambda: probes.why_not(probes.pidfd),
            when="connections that must be isolated from each other",
            connections=FORK_CONNECTIONS_MAX,
            parts=lambda limits: limits.max_connections,
        ),
        "iterative": EngineRow(
            "one connection after another",
            "iterative_py",
            "iterative_c",
            when="teaching; testing clients against a busy server",
            connections=1,
            bound=1,
        ),
    },
)
