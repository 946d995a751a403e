"""`fastnet connect`: arguments, one pump, notes for the user on standard error.

Standard output carries the server's bytes and nothing else.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing

import click

from fastnet.apps.connect.datagram import DatagramPump
from fastnet.apps.connect.pump import PollSet, PumpResult
from fastnet.apps.connect.stdio import StandardInput, StandardOutput, interruptible
from fastnet.apps.connect.stream import StreamPump
from fastnet.cli.endpoints import read_endpoint
from fastnet.cli.output import print_note
from fastnet.endpoint import Endpoint
from fastnet.limits import BUSY_POLL_US_MAX, CLIENT_TIMEOUT_MAX_S, CONNECT_TIMEOUT_S, LAST_REPLIES_S
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial
from fastnet.transport.resolve import resolve

HELP = """Connect to a server: standard input to the socket, the socket to standard output.

ENDPOINT is HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT, udp://HOST:PORT, unix:PATH or unixgram:PATH;
HOST PORT works as well, and @NAME for PATH is an abstract address.

At the end of the input the connection is half-closed (FIN), and what the server still sends is read
to its end. On a terminal, Ctrl-D or a line with only q ends the input, and the server's FIN ends
the session. All other bytes are passed on unchanged.

Datagrams (udp, unixgram): each line of input is one datagram, newline included; each reply is
written as it is. After the end of input, replies are read until none has arrived for --timeout.

\b
Examples:
  fastnet connect localhost:7
  fastnet connect localhost 7 < file > back
  echo hello | fastnet connect --udp localhost:7 --timeout 0.5
  fastnet connect unix:/run/echo.sock

Exit codes: 0 both directions have ended, 2 usage, 3 bad endpoint, 4 network (refused, reset,
timed out), 130 interrupted.
"""

TIMEOUT_HELP = f"""Timeout of connecting [default: {CONNECT_TIMEOUT_S:g}]; then of inactivity in
both directions while the server owes data: the input has ended, or the server does
not read it [default: none]. UDP: time to wait for the last replies
[default: {LAST_REPLIES_S:g}]."""


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
    help="Busy-poll up to USEC before blocking; trades a CPU for latency  [default: 0].",
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
    pump = pump_datagrams if TRANSPORTS[where.transport].datagrams else pump_stream
    with closing(StandardOutput()) as target, interruptible() as wake_fd:
        pump(where, StandardInput(), target, timeout_s, PollSet(wake_fd, busy_poll_us))


def commands() -> dict[str, click.Command]:
    return {"connect": connect}


Timeout = float | None


def pump_stream(
    endpoint: Endpoint,
    source: StandardInput,
    target: StandardOutput,
    timeout_s: Timeout,
    poller: PollSet,
) -> None:
    with dial(endpoint, timeout_s=timeout_s or CONNECT_TIMEOUT_S) as sock:
        if source.is_terminal:
            print_note(f"connected to {endpoint}; q alone on a line, or Ctrl-D, ends the input")
        result = StreamPump(sock, endpoint, source, target, timeout_s, poller).run()
    if source.is_terminal and result.ended_by == "server":
        print_note(f"{endpoint} closed the connection {counts(result)}")


def pump_datagrams(
    endpoint: Endpoint,
    source: StandardInput,
    target: StandardOutput,
    timeout_s: Timeout,
    poller: PollSet,
) -> None:
    addresses = deque(resolve(endpoint))
    last_s = timeout_s or LAST_REPLIES_S
    with closing(DatagramPump(endpoint, addresses, source, target, last_s, poller)) as pump:
        if source.is_terminal:
            print_note(
                f"each line is a datagram to {endpoint}; "
                "q alone on a line, or Ctrl-D, ends the input"
            )
        pump.run()


def counts(result: PumpResult) -> str:
    return f"after {result.sent_bytes} bytes sent and {result.received_bytes} received"
