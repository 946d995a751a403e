"""`fastnet echo | discard | chargen | daytime`: one command a service, all with the same options."""

from __future__ import annotations

from typing import Any

import click

from fastnet.cli.options import collect, parameters
from fastnet.config import ServerConfig
from fastnet.plan import make_plan
from fastnet.server import Server
from fastnet.service import SERVICES, ServiceRow


def commands() -> dict[str, click.Command]:
    return {name: command(name, row) for name, row in SERVICES.items()}


def command(name: str, row: ServiceRow) -> click.Command:
    leave_out = () if "suffix" in row.options else ("suffix",)

    def callback(**typed: Any) -> int:
        return serve(collect(ServerConfig, typed, {"service": name}))

    return click.Command(
        name,
        callback=callback,
        params=parameters(ServerConfig, leave_out),
        help=f"{name.capitalize()} server (RFC {row.rfc}): {row.about}.",
        epilog=f"Example: fastnet {name} --host 0.0.0.0 --port {8000 + row.port}",
    )


def serve(config: ServerConfig) -> int:
    import signal

    server = Server(make_plan(config)).start()
    print(f"listening on {server}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.close()
    print(server.statistics())
    return 0
