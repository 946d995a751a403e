"""`fastnet recv`: arguments in, one transfer, what came of it on standard output, or on standard error with `--output -`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing

import click

from fastnet.cli.send import check_sides
from fastnet.cli.transfer import Show, common_options, interrupted_by, warn_of_strangers
from fastnet.limits import LAST_WORDS_BYTES
from fastnet.transfer.meet import dial_endpoint, is_open_to_others, listen_endpoint
from fastnet.transfer.raw import RawOptions
from fastnet.transfer.raw_recv import await_push, pull
from fastnet.transfer.target import OVERWRITE

HELP = """Receive a file: from a sender that listens at ENDPOINT, or with --listen from the first one that sends.

The data goes to a temporary name in the same folder and gets its own when the sender has ended. --output - is standard
output; everything else is then said on standard error.

Raw mode has no digest: "whole" means that the sender ended the stream in good order. A fastnet sender that fails or is
killed resets the connection instead; nc that is stopped with Ctrl-C does not.

\b
Examples:
  fastnet recv host:9000 --raw --output disk.img --thanks 'Thank you'
  fastnet recv --listen 9000 --raw --output disk.img --wait 60
  fastnet recv host:9000 --raw --output - | tar x

Exit codes: 0 the file is there, 2 usage, 3 bad endpoint, 4 network (nobody there, cannot listen), 5 failed or refused (the
file exists), 7 not supported here, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("endpoint", required=False)
@click.option("--output", metavar="FILE", help="The file to make; - is standard output.")
@click.option("--overwrite", type=click.Choice(OVERWRITE), default="never", help="Whether to replace FILE.")
@click.option("--thanks", metavar="TEXT", default="", help="Last words to the sender.")
@common_options
def recv(
    endpoint: str | None,
    output: str | None,
    overwrite: str,
    thanks: str,
    listen: str | None,
    raw: bool,
    stall_s: float,
    wait_s: float | None,
    retry_s: float | None,
    congestion: str,
    mover: str,
    backend: str,
    as_json: bool,
) -> None:
    if not raw:
        raise click.UsageError("Files are moved in raw mode only: add --raw")
    if (endpoint is None) == (listen is None):
        raise click.UsageError("Where from? Give either an ENDPOINT or --listen PORT")
    check_sides(listen, False, wait_s, retry_s)
    if output is None:
        raise click.UsageError("Raw mode carries no name; give one with --output FILE, or - for standard output")
    words = os.fsencode(thanks)
    if len(words) > LAST_WORDS_BYTES:
        raise click.UsageError(f"--thanks is too long; at most {LAST_WORDS_BYTES} bytes")
    options = RawOptions(stall_s, congestion, mover, backend, words)
    out = sys.stderr if output == "-" else sys.stdout
    with (
        closing(Show(as_json, out, "server" if listen is None else "client")) as show,
        interrupted_by(signal.SIGTERM, signal.SIGHUP),
    ):
        if endpoint is not None:
            pull(output, dial_endpoint(endpoint), options, show, overwrite=overwrite, retry_s=retry_s or 0.0)
            return
        where = listen_endpoint(listen or "")
        if is_open_to_others(where):
            warn_of_strangers(f"whoever reaches {where} first fills {output}; raw mode asks for no password")
        await_push(output, where, options, show, overwrite=overwrite, wait_s=wait_s)


def commands() -> dict[str, click.Command]:
    return {"recv": recv}
