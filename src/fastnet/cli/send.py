"""`fastnet send`: send files and folders, or one file raw."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from typing import Any

import click

from fastnet.apps.transfer.digest import ALGORITHMS
from fastnet.apps.transfer.session.listen import dial_endpoint, is_open_to_others, listen_endpoint
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
    common_options,
    warn_of_unauthenticated_peers,
)
from fastnet.limits import STREAMS_MAX

HELP = """Send files and folders to a receiver that listens, or with --listen to one that connects.

It succeeds only when the receiver has acknowledged that everything, with the same digests, has its
final name. Interrupted on either side, the same command sends only what is missing. PATH - is
standard input.

ENDPOINT is HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT, unix:PATH or unix:@NAME.

With --raw it sends one file's bytes, half-closes, and reads the receiver's final message to its
end: for nc, socat, ncat and textbook programs.

With --keep-open any number of receivers are served at the same time; the first signal lets running
transfers finish.

\b
Examples:
  fastnet send disk.img host:9000
  fastnet send disk.img host:9000 --retry 30 --digest blake2b
  fastnet send disk.img --listen 9000 --keep-open
  tar c folder | fastnet send - host:9000
  fastnet send disk.img --listen 9000 --raw
  fastnet send disk.img --listen 0.0.0.0:9000 --raw --keep-open
  fastnet send disk.img host:9000 --raw --retry 30
  tar c folder | fastnet send - host:9000 --raw

Exit codes: 0 acknowledged (raw: read to the end), 2 usage, 3 bad endpoint or option, 4 network (no
peer, cannot listen), 5 failed or refused, 6 all was sent and not acknowledged,
7 not supported here, 130 interrupted.
"""

ONLY_PROVEN = (*SIDE_OPTIONS, "include", "exclude", "limit_rate", "compress", "streams")


@click.command(help=HELP)
@click.argument("paths", metavar="PATH... [ENDPOINT]", nargs=-1, required=True)
@click.option(
    "--keep-open", is_flag=True, help="Listening: serve any number of receivers, at the same time."
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Below folders: what goes, *.jpg or folder/*.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Below folders: what stays, if not included.",
)
@click.option(
    "--digest",
    type=click.Choice(list(ALGORITHMS)),
    default="xxh3-128",
    help="Digest that verifies each file.",
)
@click.option(
    "--compress",
    type=click.Choice(["zstd"]),
    help="For networks slower than a processor compresses.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, STREAMS_MAX),
    metavar="N",
    help="Connections that share large files: for long ways and for --tls.  [default: 1]",
)
@click.option(
    "--limit-rate", metavar="BYTES", help="Upper bound of bytes a second: 500k, 10M, 1Gi."
)
@proven_options
@common_options
def send(
    paths: tuple[str, ...], listen: str | None, keep_open: bool, raw: bool, **given: Any
) -> None:
    if listen is None and len(paths) < 2:
        raise click.UsageError("Where to? Give an ENDPOINT after the file, or --listen PORT")
    if (
        listen is not None
        and len(paths) > 1
        and ":" in paths[-1]
        and not os.path.lexists(paths[-1])
    ):
        raise click.UsageError(f"Where to? Give either {paths[-1]} or --listen, not both")
    check_sides(listen, keep_open, given["wait_s"], given["retry_s"])
    files, to = (paths, "") if listen is not None else (paths[:-1], paths[-1])
    if keep_open and "-" in files:
        raise click.UsageError("Standard input can be sent only once; leave --keep-open out")
    if raw:
        refuse_in_raw_mode(given, ONLY_PROVEN)
        if len(files) != 1:
            raise click.UsageError(f"Raw mode sends one file, not {len(files)}")
    other = "server" if listen is None else "client"
    with closing(Show(given["as_json"], sys.stdout, other)) as show:
        if raw:
            send_raw(files[0], to, listen, keep_open, given, show)
        else:
            send_proven(files, to, listen, keep_open, given, show)


def send_proven(
    files: tuple[str, ...],
    to: str,
    listen: str | None,
    keep_open: bool,
    given: dict[str, Any],
    show: Show,
) -> None:
    from fastnet.apps.transfer.api import send as send_once
    from fastnet.apps.transfer.api import serve_files
    from fastnet.apps.transfer.source.walk import Filter

    common = common_fields(given)
    choices = {
        "digest": given["digest"],
        "compress": given["compress"] or "",
        "streams": given["streams"] or 1,
    }
    options = as_options(
        given, retry_s=given["retry_s"] or 0.0, wait_s=given["wait_s"], **choices, **common
    )
    where = dial_endpoint(to) if listen is None else listen_endpoint(listen)
    if listen is not None:
        warn_if_open(where, is_open_to_others(where), options, "read the files")
    rate = bytes_of(given["limit_rate"]) if given["limit_rate"] else None
    chosen: dict[str, Any] = {
        "file_filter": Filter(given["include"], given["exclude"]),
        "limit_rate_bytes_s": rate,
        "on_event": show,
    }

    def run(should_stop: ShouldStop) -> None:
        if keep_open:
            serve_files(files, where, should_stop=should_stop, **chosen, **vars(options))
        else:
            send_once(files, where, listen=listen is not None, **chosen, **vars(options))

    run_until_signal(run, keep_open)


def send_raw(
    path: str, to: str, listen: str | None, keep_open: bool, given: dict[str, Any], show: Show
) -> None:
    from fastnet.apps.transfer.raw.send import send_file, serve_file
    from fastnet.apps.transfer.raw.session import RawOptions

    options = RawOptions(**common_fields(given))
    if listen is None:
        with interrupted_by(signal.SIGTERM, signal.SIGHUP):
            send_file(path, dial_endpoint(to), options, show, given["retry_s"] or 0.0)
        return
    where = listen_endpoint(listen)
    if is_open_to_others(where):
        warn_of_unauthenticated_peers(
            f"every peer that reaches {where} can read {path}; "
            "raw mode has no authentication and no encryption"
        )
    wait_s = given["wait_s"]

    def run(should_stop: ShouldStop) -> None:
        serve_file(
            path, where, options, show, keep_open=keep_open, wait_s=wait_s, should_stop=should_stop
        )

    run_until_signal(run, keep_open)


def commands() -> dict[str, click.Command]:
    return {"send": send}
