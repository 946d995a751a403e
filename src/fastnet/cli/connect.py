"""`fastnet connect`: arguments in, one conversation, what the user should know about it on standard
error.

Standard output carries the server's bytes and nothing else.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing

import click

from fastnet.apps.connect.datagram import DatagramConversation
from fastnet.apps.connect.stdio import Input, Output, interruptible
from fastnet.apps.connect.stream import Conversation, Outcome, Watch
from fastnet.cli.endpoints import read_endpoint
from fastnet.cli.output import print_note
from fastnet.endpoint import Endpoint
from fastnet.limits import BUSY_POLL_US_MAX, CLIENT_TIMEOUT_MAX_S, CONNECT_TIMEOUT_S, LAST_REPLIES_S
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial
from fastnet.transport.resolve import resolve

HELP = """Talk to a server: standard input goes to the socket, and the socket to standard output, both at once.

ENDPOINT is HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT, udp://HOST:PORT, unix:PATH or unixgram:PATH. HOST PORT does as well, and
@NAME for PATH is an abstract name.

When the input ends, the server is told so (half-close), and whatever it still sends is read until it ends too.
On a terminal, Ctrl-D or a line that is just q ends the input, and a server that ends first ends the session.
Otherwise every byte is passed on unchanged.

Datagrams (udp, unixgram): each line of input is one, newline included; each reply is written as it is. After the end of
input, replies are taken until none has come for --timeout.

\b
Examples:
  fastnet connect localhost:7
  fastnet connect localhost 7 < file > back
  echo hello | fastnet connect --udp localhost:7 --timeout 0.5
  fastnet connect unix:/run/echo.sock

Exit codes: 0 both ends are done, 2 usage, 3 bad endpoint, 4 network (refused, reset, timed out), 130 interrupted.
"""

TIMEOUT_HELP = f"""Give up connecting after this long [default: {CONNECT_TIMEOUT_S:g}]. Then, give up when nothing has
moved in either direction for this long while it is the server's turn: the input has ended, or the server does not take
it [default: never]. UDP: how long to listen for last replies [default: {LAST_REPLIES_S:g}]."""


@click.command(help=HELP)
@click.argument("endpoint")
@click.argument("port", required=False)
@click.option(
    "--udp",
    is_flag=True,
    help="Datagrams: HOST:PORT is udp://HOST:PORT, and unix:PATH unixgram:PATH.",
)
@click.option("--timeout", "timeout_s", metavar="SECONDS", type=float, help=TIMEOUT_HELP)
@click.option(
    "--busy-poll",
    "busy_poll_us",
    metavar="USEC",
    type=click.IntRange(0, BUSY_POLL_US_MAX),
    default=0,
    help="Look so long for input before sleeping: latency for a core  [default: 0].",
)
def connect(
    endpoint: str, port: str | None, udp: bool, timeout_s: float | None, busy_poll_us: int
) -> None:
    if timeout_s is not None and not 0 < timeout_s <= CLIENT_TIMEOUT_MAX_S:
        raise click.BadParameter(
            f"{timeout_s:g} is not more than 0 and at most {CLIENT_TIMEOUT_MAX_S:g} seconds",
            param_hint="--timeout",
        )
    where = read_endpoint(endpoint, port, udp)
    talk = talk_in_datagrams if TRANSPORTS[where.transport].datagrams else talk_in_stream
    with closing(Output()) as target, interruptible() as wake_fd:
        talk(where, Input(), target, timeout_s, Watch(wake_fd, busy_poll_us))


def commands() -> dict[str, click.Command]:
    return {"connect": connect}


Timeout = float | None


def talk_in_stream(
    endpoint: Endpoint, source: Input, target: Output, timeout_s: Timeout, watch: Watch
) -> None:
    with dial(endpoint, timeout_s=timeout_s or CONNECT_TIMEOUT_S) as sock:
        if source.is_terminal:
            print_note(f"connected to {endpoint}; q alone on a line, or Ctrl-D, ends the input")
        outcome = Conversation(sock, endpoint, source, target, timeout_s, watch).run()
    if source.is_terminal and outcome.ended_by == "server":
        print_note(f"{endpoint} closed the connection {counts(outcome)}")


def talk_in_datagrams(
    endpoint: Endpoint, source: Input, target: Output, timeout_s: Timeout, watch: Watch
) -> None:
    addresses = deque(resolve(endpoint))
    last_s = timeout_s or LAST_REPLIES_S
    with closing(DatagramConversation(endpoint, addresses, source, target, last_s, watch)) as talk:
        if source.is_terminal:
            print_note(
                f"each line is a datagram to {endpoint}; q alone on a line, or Ctrl-D, ends the input"
            )
        talk.run()


def counts(outcome: Outcome) -> str:
    return f"after {outcome.sent_bytes} bytes sent and {outcome.received_bytes} received"
