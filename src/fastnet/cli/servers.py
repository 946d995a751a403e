"""`fastnet echo | discard | chargen | daytime`: one command a service, all with the same options.

Standard output: the lines "listening on ...", "metrics on ..." and at the end "stopped ...", or
with --json the same as one JSON object a line. Everything else is on standard error.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any, TextIO

import click

from fastnet.cli.options import collect, parameters
from fastnet.config.server import ProcessConfig, ServerConfig
from fastnet.errors import printable
from fastnet.process.run import Tell, run, words
from fastnet.service import SERVICES, ServiceRow

SIGNALS = """\b
Signals: INT and TERM stop accepting and let connections finish for up to
--drain seconds; a second one stops at once. HUP opens log files anew.
USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration, 4 network (address in use,
not permitted), 7 not supported here, 130 interrupted while draining."""


def commands() -> dict[str, click.Command]:
    return {name: command(name, row) for name, row in SERVICES.items() if row.rfc}


def command(name: str, row: ServiceRow) -> click.Command:
    leave_out = tuple(name for name in ("suffix", "file", "format") if name not in row.options)

    def callback(**typed: Any) -> int:
        process = collect(ProcessConfig, typed, {})
        return run([collect(ServerConfig, typed, {"service": name})], process, teller(process.json))

    return click.Command(
        name,
        callback=callback,
        params=[*parameters(ServerConfig, leave_out), *parameters(ProcessConfig)],
        help=f"{name.capitalize()} server (RFC {row.rfc}): {row.about}.\n\n{SIGNALS}",
        epilog=f"Example: fastnet {name} --port {8000 + row.port} --idle-timeout 60",
    )


def teller(as_json: bool) -> Tell:
    """How events reach whoever started the command."""

    def tell(events: list[dict[str, Any]]) -> None:
        for event in events:
            if as_json:
                say(sys.stdout, json.dumps(event))
            elif event["event"] == "draining":
                say(sys.stderr, f"fastnet: {words(event)}")
            else:
                say(sys.stdout, words(event))

    return tell


def say(stream: TextIO, text: str) -> None:
    """Write a line. If whoever read it is gone, or there is no output (`>&-`), peers are not:
    serving goes on unheard.
    """
    try:
        print(printable(text), file=stream, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
