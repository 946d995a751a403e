"""fastnet: socket servers and tools at native speed.

    import fastnet

    with fastnet.serve("echo", "tcp://127.0.0.1:0") as server:
        with fastnet.connect(server.endpoint) as sock:
            sock.sendall(b"hello")

Decision: the names below are imported on first use, so that `import fastnet` (and
`fastnet --version`) costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastnet._version import __version__

__all__ = [
    "ConfigError",
    "ConnectOptions",
    "Endpoint",
    "FastnetError",
    "Filter",
    "NetworkError",
    "ReceiveOptions",
    "ReceivePolicy",
    "SendOptions",
    "ServeOptions",
    "Server",
    "Statistics",
    "TransferError",
    "TransferEvent",
    "TransferRefused",
    "TransferReport",
    "TransferUnconfirmed",
    "UnsupportedError",
    "__version__",
    "connect",
    "receive",
    "send",
    "serve",
    "serve_files",
    "serve_inbox",
]

_HOME = {
    "ConfigError": "errors",
    "ConnectOptions": "api",
    "Endpoint": "endpoint",
    "FastnetError": "errors",
    "Filter": "apps.transfer.source.walk",
    "NetworkError": "errors",
    "ReceiveOptions": "apps.transfer.options",
    "ReceivePolicy": "apps.transfer.options",
    "SendOptions": "apps.transfer.options",
    "ServeOptions": "config.serve_options",
    "Server": "server.server",
    "Statistics": "metrics.counters",
    "TransferError": "errors",
    "TransferEvent": "apps.transfer.events",
    "TransferRefused": "errors",
    "TransferReport": "apps.transfer.report",
    "TransferUnconfirmed": "errors",
    "UnsupportedError": "errors",
    "connect": "api",
    "receive": "apps.transfer.api",
    "send": "apps.transfer.api",
    "serve": "api",
    "serve_files": "apps.transfer.api",
    "serve_inbox": "apps.transfer.api",
}

if TYPE_CHECKING:
    from fastnet.api import ConnectOptions, connect, serve
    from fastnet.apps.transfer.api import receive, send, serve_files, serve_inbox
    from fastnet.apps.transfer.events import TransferEvent
    from fastnet.apps.transfer.options import ReceiveOptions, ReceivePolicy, SendOptions
    from fastnet.apps.transfer.report import TransferReport
    from fastnet.apps.transfer.source.walk import Filter
    from fastnet.config.serve_options import ServeOptions
    from fastnet.endpoint import Endpoint
    from fastnet.errors import (
        ConfigError,
        FastnetError,
        NetworkError,
        TransferError,
        TransferRefused,
        TransferUnconfirmed,
        UnsupportedError,
    )
    from fastnet.metrics.counters import Statistics
    from fastnet.server.server import Server


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'fastnet' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"fastnet.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
