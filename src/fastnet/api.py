"""The library's front door."""

from __future__ import annotations

from typing import Any

from fastnet.config import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.plan import make_plan
from fastnet.server import Server


def serve(service: str, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> Server:
    """Serve in the background and return the running server; leaving its context drains and stops it.

    service: "echo", "discard", "chargen" or "daytime".
    endpoint: tcp://HOST:PORT or udp://HOST:PORT (port 0 picks one, no host is every address) or unix:PATH.
    options: any field of fastnet.config.ServerConfig, such as engine="epoll", backend="native", workers=4, drain=2.0
    (seconds), idle_timeout=60.0 (seconds), max_connections=1000.
    Raises ConfigError, NetworkError (address in use, not permitted), UnsupportedError (engine or backend absent).
    """
    where = Endpoint.parse(endpoint)
    if where.transport == "unix":
        place: dict[str, Any] = {"unix": where.path}
    else:
        place = {"host": where.host, "port": where.port, "udp": where.transport == "udp"}
    try:
        config = ServerConfig(service=service, **place, **options)
    except TypeError as error:
        raise ConfigError(str(error).replace("ServerConfig.__init__()", "serve()")) from None
    return Server(make_plan(config)).start()
