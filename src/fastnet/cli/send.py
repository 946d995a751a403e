"""`fastnet send`: arguments in, one transfer or an offer of many, what came of it on standard output."""

from __future__ import annotations

import signal
import sys
from contextlib import closing

import click

from fastnet.cli.transfer import Show, common_options, interrupted_by, two_signals, warn_of_strangers
from fastnet.transfer.meet import dial_endpoint, is_open_to_others, listen_endpoint
from fastnet.transfer.raw import RawOptions
from fastnet.transfer.raw_send import offer, push

HELP = """Send a file: to a receiver that listens at ENDPOINT, or with --listen to the one that connects.

ENDPOINT is HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT, unix:PATH or unix:@NAME. PATH - is standard input.

Raw mode sends the bytes, says that this was all (half-close) and then reads what the receiver has to say to its end. With
--keep-open any number of clients get the file, at the same time; the first signal lets those that run finish.

\b
Examples:
  fastnet send disk.img --listen 9000 --raw
  fastnet send disk.img --listen 0.0.0.0:9000 --raw --keep-open
  fastnet send disk.img host:9000 --raw --retry 30
  tar c folder | fastnet send - host:9000 --raw

Exit codes: 0 the receiver has read to the end, 2 usage, 3 bad endpoint, 4 network (nobody there, cannot listen), 5 failed
or refused, 6 all was sent and the receiver did not end well, 7 not supported here, 130 interrupted.
"""


@click.command(help=HELP)
@click.argument("paths", metavar="PATH [ENDPOINT]", nargs=-1, required=True)
@click.option("--keep-open", is_flag=True, help="Listening: serve any number of clients, at the same time.")
@common_options
def send(
    paths: tuple[str, ...],
    keep_open: bool,
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
    if listen is None and len(paths) < 2:
        raise click.UsageError("Where to? Give an ENDPOINT after the file, or --listen PORT")
    check_sides(listen, keep_open, wait_s, retry_s)
    files, to = (paths, "") if listen is not None else (paths[:-1], paths[-1])
    if len(files) != 1:
        raise click.UsageError(f"Raw mode sends one file, not {len(files)}")
    if keep_open and files[0] == "-":
        raise click.UsageError("Standard input can be sent only once; leave --keep-open out")
    options = RawOptions(stall_s, congestion, mover, backend)
    with closing(Show(as_json, sys.stdout, "server" if listen is None else "client")) as show:
        if listen is None:
            with interrupted_by(signal.SIGTERM, signal.SIGHUP):
                push(files[0], dial_endpoint(to), options, show, retry_s or 0.0)
        else:
            offer_raw(files[0], listen, options, show, keep_open, wait_s)


def offer_raw(path: str, listen: str, options: RawOptions, show: Show, keep_open: bool, wait_s: float | None) -> None:
    where = listen_endpoint(listen)
    if is_open_to_others(where):
        warn_of_strangers(
            f"whoever reaches {where} can read {path}; raw mode asks for no password and encrypts nothing"
        )
    if not keep_open:
        with interrupted_by(signal.SIGTERM, signal.SIGHUP):
            offer(path, where, options, show, wait_s=wait_s)
        return
    with interrupted_by(signal.SIGHUP), two_signals() as stopped:
        offer(path, where, options, show, keep_open=True, wait_s=wait_s, stopped=stopped)


def check_sides(listen: str | None, keep_open: bool, wait_s: float | None, retry_s: float | None) -> None:
    """Options of the other side are a mistake worth telling. Raises click.UsageError."""
    if listen is None and (keep_open or wait_s is not None):
        raise click.UsageError("--keep-open and --wait go with --listen")
    if listen is not None and retry_s is not None:
        raise click.UsageError("--retry goes with an ENDPOINT to connect to, not with --listen")


def commands() -> dict[str, click.Command]:
    return {"send": send}
