"""Options of a transfer by fastnet/1, and what becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from fastnet.apps.transfer.options import TransferOptions
from fastnet.errors import ConfigError

UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}

PROOF = [
    click.option(
        "--token-file",
        metavar="FILE",
        help="A secret that both sides must hold; the file is its owner's only (chmod 600).",
    ),
    click.option(
        "--tls",
        "use_tls",
        is_flag=True,
        help="Encrypt; without --cert the listener makes a certificate.",
    ),
    click.option("--cert", metavar="FILE", help="TLS: certificate of this side, PEM."),
    click.option("--key", metavar="FILE", help="TLS: its key, PEM."),
    click.option("--ca", metavar="FILE", help="TLS: who signs the other side's certificate, PEM."),
    click.option(
        "--tls-fingerprint",
        metavar="sha256:HEX",
        help="TLS: the one certificate that the listener may have.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Agree on what would travel, and stop before it does."
    ),
]

SIDE_OPTIONS = ("token_file", "use_tls", "cert", "key", "ca", "tls_fingerprint", "dry_run")


def proven_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of fastnet/1 that send and recv share."""
    for option in reversed(PROOF):
        command = option(command)
    return command


def as_options(given: dict[str, Any], **more: Any) -> TransferOptions:
    """Options out of the command line's words. Raises ConfigError and click.UsageError."""
    tls_words = [given[name] for name in ("cert", "key", "ca", "tls_fingerprint")]
    if any(tls_words) and not given["use_tls"]:
        raise click.UsageError("--cert, --key, --ca and --tls-fingerprint go with --tls")
    tls, token = None, b""
    if given["use_tls"]:
        # imported here: without --tls OpenSSL is not loaded
        from fastnet.transport.tls import TlsOptions

        tls = TlsOptions(*tls_words)
    if given["token_file"]:
        from fastnet.security.token import read_token

        token = read_token(given["token_file"])
    return TransferOptions(token=token, tls=tls, dry_run=given["dry_run"], **more)


def refuse_in_raw_mode(given: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raises click.UsageError for an option that raw mode cannot keep."""
    for name in names:
        if given[name]:
            option = "--" + name.replace("use_", "").replace("_", "-").replace("-bytes-s", "")
            raise click.UsageError(
                f"{option} does not go with --raw, which is the bytes and nothing else"
            )


def bytes_of(text: str) -> int:
    """A number of bytes: 1500, 10M, 2Gi. Raises ConfigError."""
    number = text.rstrip("bBiIkKmMgGtT")
    unit = text[len(number) :].lower().removesuffix("b")
    try:
        value = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        value = 0
    if value < 1:
        raise ConfigError(f"{text!r} is no number of bytes", "Write 1500, 10M (10^6) or 2Gi (2^30)")
    return value


def warn_if_open(where: object, is_open: bool, options: TransferOptions, what: str) -> None:
    """What it means that other hosts reach a listener."""
    if not is_open or (options.token and options.tls):
        return
    lacks = []
    if not options.token:
        lacks.append(f"every peer that reaches {where} can {what}: give both sides a --token-file")
    if options.tls is None:
        lacks.append("what travels can be read and changed on its way: give both sides --tls")
    print(f"warning: {'; '.join(lacks)}", file=sys.stderr, flush=True)


def common_fields(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("stall_s", "congestion", "mover", "backend")}


def check_sides(
    listen: str | None, keep_open: bool, wait_s: float | None, retry_s: float | None
) -> None:
    """Options of the other side are a mistake worth telling. Raises click.UsageError."""
    if listen is None and (keep_open or wait_s is not None):
        raise click.UsageError("--keep-open and --wait go with --listen")
    if listen is not None and retry_s is not None:
        raise click.UsageError("--retry goes with an ENDPOINT to connect to, not with --listen")
