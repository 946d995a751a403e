"""Keyword options of `fastnet.serve`, as type checkers and editors see them.

Written by tools/write_serve_options.py from `fastnet.config.server.ServerConfig`, which checks
them; a test keeps the two equal.
"""

from __future__ import annotations

from typing import TypedDict


class ServeOptions(TypedDict, total=False):
    """Keyword options of :func:`fastnet.serve`; each is also an option of the command line."""

    suffix: str
    """Text appended to each reply (echo only). Value: TEXT. Default: ''."""

    file: str | None
    """File of the dictionary; it is read again when it changes. Value: FILE. Default: None."""

    format: str
    """Format of the entries; auto detects it. One of auto, cedict, tab, csv, colon. Default:
    'auto'.
    """

    engine: str
    """Concurrency model; auto picks the fastest supported one. One of auto, uring, epoll,
    select, thread, pool, fork, iterative, mmsg, single. Default: 'auto'.
    """

    backend: str
    """Compiled or pure-Python loops; auto prefers compiled ones. One of auto, native, python.
    Default: 'auto'.
    """

    workers: int | str
    """Event loops that share the port; auto is one for each CPU. Default: 1."""

    worker_processes: bool
    """Run each worker in a process; pure-Python workers always are processes. Default: False."""

    cpu_affinity: str | None
    """Bind loops to these CPUs in turn, such as 0-3,6; auto is every usable one. Value: CPUS.
    Default: None.
    """

    pool_size: int
    """Threads of the pool engine. Value: N. Default: 16."""

    max_connections: int | None
    """Most open connections of one loop. Value: N. Default: None."""

    idle_timeout: float
    """Close connections idle for SECONDS; 0 disables the timeout. Value: SECONDS. Default:
    300.0.
    """

    drain: float
    """Time for open connections to finish after SIGTERM. Value: SECONDS. Default: 5.0."""

    max_write_buffer: int
    """Most bytes that one loop buffers for slow readers. Value: BYTES. Default: 268435456."""

    busy_poll: int
    """Busy-poll up to USEC before blocking; trades a CPU for latency. Value: USEC. Default: 0."""

    allow: tuple[str, ...]
    """Accept only peers in this network (repeatable). Value: CIDR. Default: ()."""

    deny: tuple[str, ...]
    """Reject peers in this network (repeatable). Value: CIDR. Default: ()."""

    answer_any_port: bool
    """UDP: also reply to source ports below 1024 and to the server's own port number, which
    risks reply loops. Default: False.
    """

    answer_any_size: bool
    """UDP: also send replies over 512 bytes to shorter requests of unvalidated addresses.
    Default: False.
    """

    backlog: int
    """Connections that the kernel queues until they are accepted. Value: N. Default: 4096."""

    reuse_port: bool
    """Share the port with other servers (SO_REUSEPORT); implied by --workers. Default: False."""

    nodelay: bool
    """Send small segments immediately (TCP_NODELAY). Default: True."""

    keepalive: bool
    """Probe idle peers (SO_KEEPALIVE). Default: False."""

    rcvbuf: int | None
    """Receive buffer (SO_RCVBUF). Value: BYTES. Default: None."""

    sndbuf: int | None
    """Send buffer (SO_SNDBUF). Value: BYTES. Default: None."""

    ttl: int | None
    """Time to live or hop limit of packets. Value: HOPS. Default: None."""

    congestion: str | None
    """TCP congestion control (TCP_CONGESTION). Value: NAME. Default: None."""
