"""`fastnet echo | discard | chargen | daytime`: one command for each service with an RFC.

Standard output: the lines "listening on ...", "metrics on ..." and at the end "stopped ...", or
with --json one JSON object a line. Everything else is on standard error.
"""

from __future__ import annotations

from typing import Any

import click

from fastnet.cli.options import SIGNALS, collect, other_settings, parameters
from fastnet.cli.output import event_printer
from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig
from fastnet.process.run import format_event, run_process
from fastnet.service import SERVICES, ServiceRow


def commands() -> dict[str, click.Command]:
    return {name: command(name, row) for name, row in SERVICES.items() if row.rfc}


def command(name: str, row: ServiceRow) -> click.Command:
    def callback(**typed: Any) -> int:
        process = collect(ProcessConfig, typed, {})
        return run_process(
            [collect(ServerConfig, typed, {"service": name})],
            process,
            event_printer(process.json, format_event),
        )

    return click.Command(
        name,
        callback=callback,
        params=[*parameters(ServerConfig, other_settings(name)), *parameters(ProcessConfig)],
        help=f"{name.capitalize()} server (RFC {row.rfc}): {row.about}.\n\n{SIGNALS}",
        epilog=f"Example: fastnet {name} --port {8000 + row.port} --idle-timeout 60",
    )
