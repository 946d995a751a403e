"""`fastnet chat serve | join`: a group chat. Arguments and presentation only; docs/chat.md has the
rest.

`join` writes what is said to standard output and what happens to standard error; with --json every
event is an object on standard output.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from typing import Any

import click

from fastnet.apps.chat.authentication import Seal
from fastnet.apps.chat.client import Member
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.apps.chat.server import PORT, ChatConfig, format_event
from fastnet.apps.chat.server import run as run_server
from fastnet.apps.chat.ui.view import Place, Plain, on_a_screen
from fastnet.apps.chat.wire import ChatError
from fastnet.cli.endpoints import read_server
from fastnet.cli.options import collect, parameters
from fastnet.cli.output import event_printer
from fastnet.config.server import ProcessConfig
from fastnet.limits import CHAT_TIMEOUT_S, CLIENT_TIMEOUT_MAX_S
from fastnet.security.keys import read_keys

HELP = """Group chat over UDP, for fastnet and for textbook programs.

\b
Examples:
  fastnet chat serve --host 0.0.0.0
  fastnet chat serve --key chat.keys --backplane redis://cachehost
  fastnet chat join --name ada
  echo 'backup done' | fastnet chat join --name nightly --server chathost

docs/chat.md has both protocols.
"""

SERVE_HELP = """Serve a group chat.

Textbook programs say `online`, then messages, which everybody who is online gets as ADDRESS--PORT#TEXT, then `offline`.
`fastnet chat join` adds names, presence, and messages that arrive once each and in order.

\b
Signals: INT and TERM end it, HUP reads the keys and opens log files
anew, USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration, 4 network."""

JOIN_HELP = """Take part in a chat: lines of standard input are messages, and what is said is written to standard output.

On a terminal it has a screen of its own: PageUp and PageDown scroll, Ctrl-D, Ctrl-C or /quit leave. In a pipe, or with
--plain, lines come and go. Lines that begin with a slash are for the client: /who, /quit; // sends a slash. At the end of
input the client leaves as soon as everything is said.

\b
Examples:
  fastnet chat join --name ada
  fastnet chat join --name ada --room ops --server chathost:7513
  fastnet chat join --name ada --server chathost --key chat.keys

\b
Exit codes: 0 left, 2 usage, 3 configuration, 4 network (nobody there,
no answer, another key), 5 refused (somebody has that name), 130 interrupted."""


@click.group("chat", help=HELP)
def group() -> None:
    """Made of serve and join."""


def serve(**typed: Any) -> int:
    process = collect(ProcessConfig, typed, {})
    return run_server(
        collect(ChatConfig, typed, {}), process, event_printer(process.json, format_event)
    )


group.add_command(
    click.Command(
        "serve",
        callback=serve,
        params=[*parameters(ChatConfig, ("drain",)), *parameters(ProcessConfig)],
        help=SERVE_HELP,
        epilog="Example: fastnet chat serve --host 0.0.0.0 --trust 192.168.0.0/16",
    )
)


@group.command("join", help=JOIN_HELP)
@click.option(
    "--server",
    metavar="HOST[:PORT]",
    envvar="FASTNET_SERVER",
    default="127.0.0.1",
    show_default=True,
)
@click.option(
    "--name", required=True, help="Who you are: letters and digits, and _ . - between them."
)
@click.option("--room", default="", help="A room by name; without, where textbook programs are.")
@click.option(
    "--key",
    metavar="FILE",
    envvar="FASTNET_KEY",
    help="The server's key: the first one of this file is taken.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, CLIENT_TIMEOUT_MAX_S, min_open=True),
    default=CHAT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Give up when the server has been silent for so long.",
)
@click.option(
    "--plain", is_flag=True, help="Line by line on a terminal too, without a screen of its own."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line."
)
def join(
    server: str, name: str, room: str, key: str | None, timeout_s: float, plain: bool, as_json: bool
) -> None:
    try:
        talking = Talking(name, room)
    except ChatError as error:
        raise click.BadParameter(str(error), param_hint="--name or --room") from None
    seal = Seal(*next(iter(read_keys(os.path.expanduser(key)).items()))) if key else None
    place = Place(talking, read_server(server, PORT))
    output = Plain(as_json, place)

    def command(line: str) -> None:
        if line == "/who":
            talking.asks_who = talking.is_due = True
        elif line == "/quit":
            member.has_ended = True
        else:
            output.note("there are /who and /quit; // sends a line that begins with a slash")

    def show(event: Event) -> None:
        output.show(event)

    member = Member(place.endpoint, talking, show, sys.stdin.fileno(), command, timeout_s, seal)
    member.on_line = output.typed
    with closing(member), ExitStack() as stack:
        if (
            output.is_terminal
            and not plain
            and not as_json
            and os.environ.get("TERM", "dumb") != "dumb"
        ):
            output = stack.enter_context(on_a_screen(member, place))
        member.run()


def commands() -> dict[str, click.Command]:
    return {"chat": group}
