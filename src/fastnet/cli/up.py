"""`fastnet up FILE`: run all servers of a TOML file in one process."""

from __future__ import annotations

import os
from typing import Any

import click

from fastnet.cli.options import SIGNALS, parameters
from fastnet.cli.output import event_printer
from fastnet.config.fields import build, from_environment, options
from fastnet.config.file import read
from fastnet.config.process import ProcessConfig
from fastnet.process.run import format_event, run_process

HELP = f"""Run a set of servers from a TOML file.

FILE has a table [[server]] for each server, with its service and any option of `fastnet SERVICE
--help`, dashes written as underscores; and a table [process] with the options below. Options of the
command line take precedence over the file, and the file over FASTNET_* variables. All servers
start, or none.

{SIGNALS}"""


def commands() -> dict[str, click.Command]:
    return {"up": command}


def callback(file: str, **typed: Any) -> int:
    found = read(file)
    given = {
        each.name: typed[each.name]
        for each in options(ProcessConfig)
        if typed[each.name] is not None
    }
    process = build(
        ProcessConfig, from_environment(ProcessConfig, os.environ) | found.process | given, ""
    )
    return run_process(found.servers, process, event_printer(process.json, format_event))


command = click.Command(
    "up",
    callback=callback,
    params=[click.Argument(["file"], metavar="FILE"), *parameters(ProcessConfig)],
    help=HELP,
    epilog="Example: fastnet up docs/example.toml",
)
