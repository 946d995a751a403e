"""Command line of the group chat: `fastnet chat serve | join`; see docs/chat.md.

`join` writes messages to standard output and notices to standard error; with --json each event is
an object on standard output.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import Any

import click

from fastnet.apps.chat.authentication import ClientAuthenticator
from fastnet.apps.chat.client import ChatClient
from fastnet.apps.chat.client_protocol import ChatClientProtocol
from fastnet.apps.chat.server import PORT, ChatConfig, format_event
from fastnet.apps.chat.server import run as run_server
from fastnet.apps.chat.ui.view import ChatStatus, make_interface
from fastnet.apps.chat.wire import ChatError
from fastnet.cli.endpoints import read_server
from fastnet.cli.options import collect, parameters
from fastnet.cli.output import event_printer
from fastnet.config.process import ProcessConfig
from fastnet.limits import CHAT_TIMEOUT_S, CLIENT_TIMEOUT_MAX_S

HELP = """Group chat over UDP, for fastnet and textbook programs.

\b
Examples:
  fastnet chat serve --host 0.0.0.0
  fastnet chat serve --key chat.keys --backplane redis://cachehost
  fastnet chat join --name ada
  echo 'backup done' | fastnet chat join --name nightly --server chathost

docs/chat.md has both protocols.
"""

SERVE_HELP = """Serve a group chat.

A textbook program sends `online`, then messages, then `offline`; every member receives
each message as ADDRESS--PORT#TEXT. `fastnet chat join` adds names, rooms, presence, and
messages that arrive once each and in order.

\b
Signals: INT and TERM stop the server, HUP reloads the keys and reopens
log files, USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration, 4 network."""

JOIN_HELP = """Join a chat: send lines of standard input, write messages to standard output.

On a terminal the client has a screen of its own: PageUp and PageDown scroll, Ctrl-D, Ctrl-C
or /quit leave. In a pipe, or with --plain, it reads and writes lines. Lines that begin with a
slash are commands of the client: /who, /quit; // sends a slash. At the end of input the
client leaves as soon as the server has accepted all messages.

\b
Examples:
  fastnet chat join --name ada
  fastnet chat join --name ada --room ops --server chathost:7513
  fastnet chat join --name ada --server chathost --key chat.keys

\b
Exit codes: 0 left, 2 usage, 3 configuration, 4 network (no server, no
answer, different key), 5 refused (name in use), 130 interrupted."""


@click.group("chat", help=HELP)
def group() -> None:
    """The group of serve and join."""


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
    "--name", required=True, help="Your name: letters and digits, and _ . - between them."
)
@click.option(
    "--room", default="", help="Name of a room; without it, the room of textbook programs."
)
@click.option(
    "--key",
    metavar="FILE",
    envvar="FASTNET_KEY",
    help="Key of the server: the first one in this file.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, CLIENT_TIMEOUT_MAX_S, min_open=True),
    default=CHAT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Give up when the server has not answered for SECONDS.",
)
@click.option(
    "--plain", is_flag=True, help="Read and write lines on a terminal, too, without a screen."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line."
)
def join(
    server: str, name: str, room: str, key: str | None, timeout_s: float, plain: bool, as_json: bool
) -> None:
    try:
        protocol = ChatClientProtocol(name, room)
    except ChatError as error:
        raise click.BadParameter(str(error), param_hint="--name or --room") from None
    path = os.path.expanduser(key) if key else None
    authenticator = ClientAuthenticator.from_file(path) if path else None
    endpoint = read_server(server, PORT)
    interface = make_interface(ChatStatus(protocol, endpoint), plain, as_json)
    input_fd = sys.stdin.fileno()
    client = ChatClient(endpoint, protocol, interface, input_fd, timeout_s, authenticator)
    with closing(client), interface:
        client.run()


def commands() -> dict[str, click.Command]:
    return {"chat": group}
