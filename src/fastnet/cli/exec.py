"""`fastnet exec serve | run | key`: arguments and presentation of remote commands.

`run` writes the command's standard output and standard error as they are; with --json one document.
The exit code says how the command ended and is not its exit status. docs/exec.md has the rest.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

import click

from fastnet.apps.exec import wire
from fastnet.apps.exec.client import ExecKey
from fastnet.apps.exec.client import run as run_remote
from fastnet.apps.exec.client_protocol import ExecResult
from fastnet.apps.exec.server import PORT, ExecConfig, format_event
from fastnet.apps.exec.server import run as run_server
from fastnet.apps.exec.server_protocol import format_status, signal_name
from fastnet.cli.endpoints import read_server
from fastnet.cli.options import collect, parameters
from fastnet.cli.output import event_printer
from fastnet.config.process import ProcessConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import (
    EXIT_EXEC_FAILED,
    EXIT_EXEC_KILLED,
    EXIT_EXEC_TIMED_OUT,
    EXIT_EXEC_UNSTARTED,
    EXIT_OK,
    ConfigError,
    printable,
)
from fastnet.limits import EXEC_CLOCK_S, EXEC_TIMEOUT_S
from fastnet.security.keys import KEYS_FILE, new_line, read_keys

HELP = """Remote commands over UDP, only for clients with a key.

Only commands that the server's allow file names run.

\b
Examples:
  fastnet exec key alice >> exec.keys
  fastnet exec serve --allow-file commands.toml --keys exec.keys
  fastnet exec run --keys exec.keys disk /var

docs/exec.md has the allow file, key by key, and the wire format, byte by byte.
"""

SERVE_HELP = """Run commands for authenticated clients.

Nothing runs that the allow file does not name, and nothing runs through a shell.
Every execution is a line of the log.

\b
Signals: INT and TERM refuse new commands and let running ones end for
up to --drain seconds; a second one kills them. HUP reads keys and allow
file again and reopens log files. USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration (no keys, a mistake in a
file, root), 4 network, 130 interrupted while draining."""

RUN_HELP = """Run the command NAME of a server's allow file, with ARGS, and show what it wrote.

Options go before NAME; what follows it is the command's, even if it begins with a dash.

\b
Examples:
  fastnet exec run uptime
  fastnet exec run --server build7:7512 --key alice --json disk /var

\b
Exit codes (the command's own status is printed):
  0    it ended with status 0
  2    usage
  3    configuration (keys)
  4    network: refused, no answer, no such host
  5    denied by the server; nothing ran
  6    the server admitted it, and its outcome is not known
  8    killed at its time limit
  9    killed by a signal
  10   it ended with another status than 0
  11   the server could not start it
  130  interrupted; the command may still run"""

EXIT_CODES = {
    wire.KILLED: EXIT_EXEC_KILLED,
    wire.TIMED_OUT: EXIT_EXEC_TIMED_OUT,
    wire.UNSTARTED: EXIT_EXEC_UNSTARTED,
}

OUTCOMES = {
    wire.EXITED: "exited",
    wire.KILLED: "killed",
    wire.TIMED_OUT: "timed out",
    wire.UNSTARTED: "not started",
}


@click.group("exec", help=HELP)
def group() -> None:
    """Made of serve, run and key."""


def serve(**typed: Any) -> int:
    process = collect(ProcessConfig, typed, {})
    return run_server(
        collect(ExecConfig, typed, {}), process, event_printer(process.json, format_event)
    )


group.add_command(
    click.Command(
        "serve",
        callback=serve,
        params=[*parameters(ExecConfig), *parameters(ProcessConfig)],
        help=SERVE_HELP,
        epilog="Example: fastnet exec serve --allow-file commands.toml --log-file exec.log",
    )
)


@group.command("key", help="Print a line with a new key, for the files of server and client.")
@click.argument("name")
def new_key(name: str) -> None:
    click.echo(new_line(name))


@group.command("run", help=RUN_HELP, context_settings={"allow_interspersed_args": False})
@click.option(
    "--server",
    metavar="HOST[:PORT]",
    envvar="FASTNET_SERVER",
    default="127.0.0.1",
    show_default=True,
)
@click.option("--keys", metavar="FILE", envvar="FASTNET_KEYS", default=KEYS_FILE, show_default=True)
@click.option(
    "--key",
    "key_id",
    metavar="ID",
    help="Id of the key in the file; default: the first one.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, EXEC_CLOCK_S, min_open=True),
    default=EXEC_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Longest time without a reply; the allow file limits the command's own time.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.argument("name")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    server: str,
    keys: str,
    key_id: str | None,
    timeout_s: float,
    as_json: bool,
    name: str,
    args: tuple[str, ...],
) -> int:
    endpoint = read_server(server, PORT)
    key = choose_key(os.path.expanduser(keys), key_id)
    result = run_remote(endpoint, [name, *args], key, timeout_s)
    if as_json:
        print_json_result([name, *args], result)
    else:
        print_result(endpoint, name, result)
    return exit_code(result)


def choose_key(path: str, key_id: str | None) -> ExecKey:
    found = read_keys(path)
    if key_id is not None and key_id not in found:
        raise ConfigError(f"{path} has no key {key_id!r}", f"It has: {', '.join(found)}")
    chosen = key_id if key_id is not None else next(iter(found))
    return ExecKey(chosen, found[chosen])


def print_result(endpoint: Endpoint, name: str, result: ExecResult) -> None:
    """Write the command's output as it is; add a line unless it ended with status 0, uncut."""
    sys.stdout.buffer.write(result.output)
    sys.stdout.flush()
    sys.stderr.buffer.write(result.error)
    sys.stderr.flush()
    if exit_code(result) != EXIT_OK or result.status.flags:
        note = f"fastnet: {name} on {endpoint}: {format_status(result.status)}"
        print(printable(note), file=sys.stderr, flush=True)


def print_json_result(argv: list[str], result: ExecResult) -> None:
    """Write the result as one JSON document."""
    status = result.status
    exit_status = status.number if status.state == wire.EXITED else None
    document = {
        "event": "result",
        "command": argv[0],
        "arguments": argv[1:],
        "outcome": OUTCOMES[status.state],
        "status": exit_status,
        "signal": signal_name(status.number) if status.state == wire.KILLED else None,
        "seconds": status.took_us / 1e6,
        **text_or_base64("output", result.output),
        "output_cut": bool(status.flags & wire.OUTPUT_CUT),
        **text_or_base64("error", result.error),
        "error_cut": bool(status.flags & wire.ERROR_CUT),
    }
    click.echo(json.dumps(document))


def text_or_base64(name: str, data: bytes) -> dict[str, str]:
    """A JSON field with text, or NAME_base64 for bytes that are not UTF-8."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def exit_code(result: ExecResult) -> int:
    """The exit code of `exec run`."""
    if result.status.state == wire.EXITED:
        return EXIT_EXEC_FAILED if result.status.number else EXIT_OK
    return EXIT_CODES[result.status.state]


def commands() -> dict[str, click.Command]:
    return {"exec": group}
