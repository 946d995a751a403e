"""`fastnet dict serve | lookup`: serve a dictionary file, or look words up.

Standard output of lookup: a line for each word, in the format of a dictionary file, or with --json
an object. Everything else goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from fastnet.apps.dictionary.client import Answer, Lookup, invalid_word
from fastnet.cli.options import SIGNALS, collect, other_settings, parameters
from fastnet.cli.output import event_printer, print_error
from fastnet.config.fields import from_environment
from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError, printable
from fastnet.limits import CLIENT_TIMEOUT_MAX_S, LOOKUP_TIMEOUT_S
from fastnet.process.run import format_event, run_process
from fastnet.service.dictionary_py import UNKNOWN

RELOADS = SIGNALS.replace("HUP reopens log files.\n", "HUP reopens log files\nand reads FILE. ")

SERVE = f"""Serve a dictionary file.

A request is a word: over UDP a datagram, with --tcp or --unix a line; --udp --unix is datagrams.

\b
Formats of FILE, UTF-8, an entry a line, # begins a comment:
  colon   word:translation        (the first colon separates)
  tab     word<TAB>translation
  csv     word,translation
  cedict  CC-CEDICT, both writings are words

A changed FILE is reloaded once it has been unchanged for a second, or immediately on HUP; errors in
it are reported with their lines, and the words loaded before are kept. The reply for an unknown
word is `unknown`.

{RELOADS}"""

LOOKUP = """Look words up at a server.

Without WORD, words are read from standard input, a line each; on a terminal it prompts for them
until Ctrl-D. A request without a reply is retransmitted after a quarter of a second, then with
exponential backoff.

\b
Examples:
  fastnet dict lookup --server localhost:7057 cat dog
  fastnet dict lookup --server tcp://localhost:7057 --json < words.txt

Exit codes: 0 every word got a reply, `unknown` too, 2 usage, 3 bad endpoint or input, 4 no reply,
130 interrupted.
"""


@click.group("dict", epilog="Example: fastnet dict serve --file docs/example-words.txt --port 7057")
def dictionary() -> None:
    """Dictionary: serve a file of words, or look words up."""


def serve(tcp: bool, **typed: Any) -> int:
    process = collect(ProcessConfig, typed, {})
    chosen = from_environment(ServerConfig, os.environ) | {
        name: typed[name] for name in ("udp", "unix") if typed[name]
    }
    if tcp and typed["udp"]:
        raise click.UsageError("--tcp and --udp exclude each other")
    udp = not tcp and (chosen.get("udp", False) or chosen.get("unix") is None)
    config = collect(ServerConfig, typed, {"service": "dictionary", "udp": udp})
    return run_process([config], process, event_printer(process.json, format_event))


dictionary.add_command(
    click.Command(
        "serve",
        callback=serve,
        params=[
            *parameters(ServerConfig, other_settings("dictionary")),
            click.Option(
                ["--tcp"], is_flag=True, help="Lines over connections instead of datagrams."
            ),
            *parameters(ProcessConfig),
        ],
        help=SERVE,
        short_help="Serve the words of a file.",
        epilog="Example: fastnet dict serve --file docs/example-words.txt --port 7057",
    )
)


@dictionary.command(help=LOOKUP)
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    "--server",
    metavar="ENDPOINT",
    required=True,
    help="HOST:PORT or udp://, tcp://, unix: or unixgram: as it listens.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(0, CLIENT_TIMEOUT_MAX_S, min_open=True),
    default=LOOKUP_TIMEOUT_S,
    help=f"Timeout for a word, all attempts together  [default: {LOOKUP_TIMEOUT_S:g}].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a word.")
def lookup(words: tuple[str, ...], server: str, timeout_s: float, as_json: bool) -> None:
    for word in words:
        if why := invalid_word(word):
            raise click.BadParameter(f"{printable(word)!r} is no word: {why}", param_hint="WORD")
    endpoint = Endpoint.parse(server, default="udp")
    with Lookup(endpoint, timeout_s) as server_at:
        if words:
            for word in words:
                show(server_at.look_up(word), as_json)
        elif sys.stdin.isatty():
            prompt(server_at, as_json)
        else:
            for word in read_words():
                show(server_at.look_up(word), as_json)


def read_words() -> Iterator[str]:
    """The lines of standard input that are not empty.

    Raises ConfigError for a line that is no word.
    """
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    for number, line in enumerate(sys.stdin, 1):
        word = line.rstrip("\r\n")
        if not word.strip():
            continue
        if why := invalid_word(word):
            raise ConfigError(
                f"line {number} of standard input is no word: {why}", "Give it one word a line"
            )
        yield word


def prompt(server: Lookup, as_json: bool) -> None:
    """Prompt for words until Ctrl-D. A word without a reply does not end it."""
    print(f"words for {server.endpoint}; Ctrl-D ends", file=sys.stderr, flush=True)
    shown = sys.stdout.isatty()
    if shown:
        with suppress(ImportError):
            import readline  # noqa: F401 - line editing and history for input()
    while True:
        try:
            word = input("> " if shown else "").strip()
        except EOFError:
            if shown:
                print()
            return
        if not word:
            continue
        try:
            if why := invalid_word(word):
                raise NetworkError(f"{word!r} is no word: {why}")
            show(server.look_up(word), as_json)
        except NetworkError as error:
            print_error(str(error))


def show(answer: Answer, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.as_dict()), flush=True)
    else:
        translation = answer.translation if answer.translation is not None else UNKNOWN.decode()
        print(printable(f"{answer.word}: {translation}"), flush=True)


def commands() -> dict[str, click.Command]:
    return {"dict": dictionary}
