"""The library's front door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.server.plan import make_plan
from fastnet.server.server import Server
from fastnet.transport import TRANSPORTS

Handler = Callable[[memoryview, Any], bytes | None]
"""Answers one datagram: its bytes and its peer's address, as recvfrom of Python's socket gives
both;
what it returns goes back, None is no reply."""


def serve(service: str | Handler, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> Server:
    """Serve in the background and return the running server; leaving its context drains and stops
    it.

    service: "echo", "discard", "chargen", "daytime" or, with file="dict.txt", "dictionary"; or, for
    datagrams, a function of (data: memoryview, peer) that returns the reply as bytes, or None for
    none. It runs in the loop's thread, or with several pure-Python workers in their processes, so
    one that waits makes everybody wait. What it raises is counted (`handler_errors`) and logged
    once a second. endpoint: tcp://HOST:PORT or udp://HOST:PORT (port 0 picks one, no host is every
    address), unix:PATH, or unixgram:PATH for datagrams. options: any field of
    fastnet.config.server.ServerConfig, such as engine="epoll", backend="native", workers=4,
    drain=2.0 (seconds), idle_timeout=60.0 (seconds), max_connections=1000. Raises ConfigError,
    NetworkError (address in use, not permitted), UnsupportedError (engine or backend absent).
    """
    where = Endpoint.parse(endpoint)
    place: dict[str, Any] = (
        {"unix": where.path} if where.is_local else {"host": where.host, "port": where.port}
    )
    place["udp"] = TRANSPORTS[where.transport].datagrams
    try:
        what = (
            {"service": service}
            if isinstance(service, str)
            else {"service": "handler", "handler": service}
        )
        config = ServerConfig(**what, **place, **options)
    except TypeError as error:
        raise ConfigError(str(error).replace("ServerConfig.__init__()", "serve()")) from None
    return Server(make_plan(config)).start()
