"""Keyword options of `fastnet.serve`, as type checkers and editors see them.

Written by tools/write_serve_options.py from `fastnet.config.server.ServerConfig`, which checks
them; a test keeps the two equal.
"""

from __future__ import annotations

from typing import TypedDict


class ServeOptions(TypedDict, total=False):
    """Keyword options of :func:`fastnet.serve`; each is also an option of the command line."""

    engine: str
    """Who waits; auto takes the best that works here. One of auto, uring, epoll, select,
    thread, pool, fork, iterative, mmsg, single. Default: 'auto'.
    """

    backend: str
    """Native or pure-Python loops. One of auto, native, python. Default: 'auto'."""

    workers: int | str
    """Loops that share the port; auto is one a processor. Default: 1."""

    worker_processes: bool
    """Make workers processes, with a descriptor limit each; pure-Python ones always are.
    Default: False.
    """

    cpu_affinity: str | None
    """Keep each loop on one of these processors, in turn, as 0-3,6; auto is every usable one.
    Value: CPUS. Default: None.
    """

    pool_size: int
    """Threads of the pool engine. Value: N. Default: 16."""

    file: str | None
    """File of the dictionary; it is read again when it changes. Value: FILE. Default: None."""

    format: str
    """How entries are written there; auto looks. One of auto, cedict, tab, csv, colon.
    Default: 'auto'.
    """

    suffix: str
    """Text appended to each reply (echo only). Value: TEXT. Default: ''."""

    max_connections: int | None
    """Most connections of one loop at once. Value: N. Default: None."""

    idle_timeout: float
    """Close a connection silent for so long; 0 never does. Value: SECONDS. Default: 300.0."""

    drain: float
    """Time for connections to finish after SIGTERM. Value: SECONDS. Default: 5.0."""

    max_write_buffer: int
    """Most bytes of one loop that wait for slow readers. Value: BYTES. Default: 268435456."""

    busy_poll: int
    """Look so long for input before sleeping: latency for a core. Value: USEC. Default: 0."""

    allow: tuple[str, ...]
    """Let in this network only; may be given again. Value: CIDR. Default: ()."""

    deny: tuple[str, ...]
    """Turn this network away; may be given again. Value: CIDR. Default: ()."""

    answer_any_port: bool
    """UDP: answer ports below 1024 and its own number too, though these may answer back for
    ever. Default: False.
    """

    answer_any_size: bool
    """UDP: send replies over 512 bytes to shorter requests too, whoever forged these. Default:
    False.
    """

    backlog: int
    """Connections the kernel holds until they are accepted. Value: N. Default: 4096."""

    reuse_port: bool
    """Share the port with other servers (SO_REUSEPORT); implied by --workers. Default: False."""

    nodelay: bool
    """Send small replies at once (TCP_NODELAY). Default: True."""

    keepalive: bool
    """Probe silent peers (SO_KEEPALIVE). Default: False."""

    rcvbuf: int | None
    """Receive buffer (SO_RCVBUF). Value: BYTES. Default: None."""

    sndbuf: int | None
    """Send buffer (SO_SNDBUF). Value: BYTES. Default: None."""

    ttl: int | None
    """Time to live or hop limit of packets. Value: HOPS. Default: None."""

    congestion: str | None
    """TCP congestion control (TCP_CONGESTION). Value: NAME. Default: None."""
