"""`fastnet recv`: receive files and folders, or one file raw."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from typing import Any

import click

from fastnet.apps.transfer.session.listen import dial_endpoint, is_open_to_others, listen_endpoint
from fastnet.apps.transfer.target.placement import OVERWRITE
from fastnet.cli.signals import ShouldStop, interrupted_by, run_until_signal
from fastnet.cli.transfer_options import (
    SIDE_OPTIONS,
    as_options,
    bytes_of,
    check_sides,
    common_fields,
    proven_options,
    refuse_in_raw_mode,
    warn_if_open,
)
from fastnet.cli.transfer_output import (
    Show,
    ask_person,
    common_options,
    warn_of_unauthenticated_peers,
)
from fastnet.limits import FINAL_MESSAGE_BYTES, MANIFEST_FILES_MAX

HELP = """Receive files and folders from a sender: connect to it, or with --listen wait for it.

Everything is created below the folder --into, or one file becomes --output FILE. Data has a
temporary name in the same folder until the file is complete and verified. Interrupted on either
side, the same command receives only what is missing. --output - is standard output; events then go
to standard error.

With --raw it receives one file's bytes from nc, socat, ncat or a textbook program. Raw mode has no
digest: "complete" means that the sender sent FIN. A fastnet sender that fails or is killed
resets the connection instead; nc that is stopped with Ctrl-C does not.

\b
Examples:
  fastnet recv --listen 9000 --into inbox
  fastnet recv --listen 9000 --output disk.img --fsync
  fastnet recv host:9000 --output disk.img --retry 30
  fastnet recv host:9000 --output - | tar x
  fastnet recv host:9000 --raw --output disk.img --thanks 'Thank you'
  fastnet recv --listen 9000 --raw --output disk.img --wait 60
  fastnet recv host:9000 --raw --output - | tar x

Exit codes: 0 complete, 2 usage, 3 bad endpoint or option, 4 network (no peer, cannot listen), 5
failed or refused (a file exists and differs), 7 not supported here, 130 interrupted.
"""

ONLY_PROVEN = (*SIDE_OPTIONS, "into", "keep_open", "max_bytes", "fsync", "ask")


@click.command(help=HELP)
@click.argument("endpoint", required=False)
@click.option(
    "--into", metavar="FOLDER", help="Where everything goes [default: the current folder]."
)
@click.option(
    "--output", metavar="FILE", help="The file to make of the one that comes; - is standard output."
)
@click.option(
    "--overwrite",
    type=click.Choice(OVERWRITE),
    default="never",
    help="What exists and differs: refuse, replace, replace if older, or take another name.",
)
@click.option("--thanks", metavar="TEXT", default="", help="Raw: final message to the sender.")
@click.option(
    "--keep-open", is_flag=True, help="Listening: take any number of transfers, at the same time."
)
@click.option("--max-bytes", metavar="BYTES", help="Refuse more than that: 500M, 2Ti.")
@click.option(
    "--max-files", type=click.IntRange(1), default=MANIFEST_FILES_MAX, help="Refuse more than that."
)
@click.option(
    "--fsync", is_flag=True, help="Sync everything to the disk before saying that it is there."
)
@click.option("--ask", is_flag=True, help="Show what would come, and ask.")
@proven_options
@common_options
def recv(
    endpoint: str | None,
    output: str | None,
    overwrite: str,
    thanks: str,
    listen: str | None,
    raw: bool,
    **given: Any,
) -> None:
    if (endpoint is None) == (listen is None):
        raise click.UsageError("Where from? Give either an ENDPOINT or --listen PORT")
    check_sides(listen, given["keep_open"], given["wait_s"], given["retry_s"])
    out = sys.stderr if output == "-" else sys.stdout
    with closing(Show(given["as_json"], out, "server" if listen is None else "client")) as show:
        if raw:
            refuse_in_raw_mode(given, ONLY_PROVEN)
            receive_raw(endpoint, output, overwrite, os.fsencode(thanks), listen, given, show)
        elif thanks:
            raise click.UsageError(
                "--thanks goes with --raw; without it the sender receives a report"
            )
        else:
            receive_proven(endpoint, output, overwrite, listen, given, show)


def receive_proven(
    endpoint: str | None,
    output: str | None,
    overwrite: str,
    listen: str | None,
    given: dict[str, Any],
    show: Show,
) -> None:
    from fastnet.apps.transfer.api import receive, serve_inbox
    from fastnet.apps.transfer.options import ReceivePolicy

    if given["into"] is not None and output is not None:
        raise click.UsageError(
            "--into or --output: a folder for whatever comes, or a name for one file"
        )
    if given["keep_open"] and output is not None:
        raise click.UsageError("--keep-open goes with --into; --output is one file")
    if given["ask"] and not sys.stdin.isatty():
        raise click.UsageError("--ask needs a terminal to ask on")
    common = common_fields(given)
    options = as_options(given, retry_s=given["retry_s"] or 0.0, wait_s=given["wait_s"], **common)
    most = bytes_of(given["max_bytes"]) if given["max_bytes"] else None
    policy = ReceivePolicy(
        most, given["max_files"], given["fsync"], ask_person if given["ask"] else None
    )
    where = dial_endpoint(endpoint or "") if listen is None else listen_endpoint(listen)
    if listen is not None:
        warn_if_open(
            where,
            is_open_to_others(where),
            options,
            f"put files into {output or given['into'] or '.'}",
        )

    target: dict[str, Any] = {
        "into": given["into"],
        "overwrite": overwrite,
        "policy": policy,
        "on_event": show,
    }

    def run(should_stop: ShouldStop) -> None:
        if given["keep_open"]:
            target["into"] = given["into"] or "."
            serve_inbox(where, should_stop=should_stop, **target, **vars(options))
        else:
            receive(where, output=output, listen=listen is not None, **target, **vars(options))

    run_until_signal(run, given["keep_open"])


def receive_raw(
    endpoint: str | None,
    output: str | None,
    overwrite: str,
    thanks: bytes,
    listen: str | None,
    given: dict[str, Any],
    show: Show,
) -> None:
    from fastnet.apps.transfer.raw.receive import accept_file, receive_file
    from fastnet.apps.transfer.raw.session import RawOptions

    if output is None:
        raise click.UsageError(
            "Raw mode carries no name; give one with --output FILE, or - for standard output"
        )
    if len(thanks) > FINAL_MESSAGE_BYTES:
        raise click.UsageError(f"--thanks is too long; at most {FINAL_MESSAGE_BYTES} bytes")
    if overwrite not in ("never", "always"):
        raise click.UsageError(
            f"--overwrite {overwrite} does not go with --raw, which carries no time and no name"
        )
    options = RawOptions(**common_fields(given), thanks=thanks)
    with interrupted_by(signal.SIGTERM, signal.SIGHUP):
        if endpoint is not None:
            retry_s = given["retry_s"] or 0.0
            receive_file(
                output, dial_endpoint(endpoint), options, show, overwrite=overwrite, retry_s=retry_s
            )
            return
        where = listen_endpoint(listen or "")
        if is_open_to_others(where):
            warn_of_unauthenticated_peers(
                f"the first peer that reaches {where} fills {output}; raw mode has no authentication"
            )
        accept_file(output, where, options, show, overwrite=overwrite, wait_s=given["wait_s"])


def commands() -> dict[str, click.Command]:
    return {"recv": recv}
