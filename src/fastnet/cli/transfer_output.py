"""How a transfer is shown: lines for people, a bar on a terminal, or one JSON object an event.

Decision: lines go to standard output, the bar to standard error, and everything to standard error
when standard output carries the data. What a peer or a file name says is shown with its control
characters escaped.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from fastnet.apps.transfer.events import TransferEvent
from fastnet.apps.transfer.protocol.entry import FOLDER, LINK, STREAM, Entry
from fastnet.apps.transfer.report import TransferReport
from fastnet.errors import FastnetError, printable
from fastnet.limits import CLIENT_TIMEOUT_MAX_S, MOVER_SLICE_S, TRANSFER_STALL_S
from fastnet.mover import MOVERS
from fastnet.registry import BACKENDS

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

NAMES_SHOWN = 20
"""Entries that `--ask` lists."""

SMALLEST_SHOWN = 0.01
"""A speed below this, in a unit, is shown in the next smaller one."""

SECONDS = click.FloatRange(0, CLIENT_TIMEOUT_MAX_S, min_open=True)

COMMON = [
    click.option(
        "--listen",
        metavar="[HOST:]PORT",
        help="Wait for the other side here; a bare PORT is on 127.0.0.1.",
    ),
    click.option(
        "--raw",
        is_flag=True,
        help="Just the bytes and a half-close: for nc, socat, ncat and textbook programs.",
    ),
    click.option(
        "--timeout",
        "stall_s",
        type=SECONDS,
        default=TRANSFER_STALL_S,
        metavar="SECONDS",
        help=f"Seconds without progress that end the transfer [default: {TRANSFER_STALL_S:g}].",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=SECONDS,
        metavar="SECONDS",
        help="Listening: give up when no peer connects.",
    ),
    click.option(
        "--retry",
        "retry_s",
        type=SECONDS,
        default=None,
        metavar="SECONDS",
        help="Connecting: the listener may be late.",
    ),
    click.option(
        "--congestion",
        metavar="NAME",
        default="auto",
        help="TCP congestion control; auto avoids a paced one between two processes of one host.",
    ),
    click.option(
        "--mover", type=click.Choice(["auto", *MOVERS]), default="auto", help="How bytes are moved."
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", *BACKENDS]),
        default="auto",
        help="Native or pure-Python movers.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line."
    ),
]


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that send and recv share."""
    for option in reversed(COMMON):
        command = option(command)
    return command


class Show:
    """Where events go. out: lines. other: what the far side is called, "client" or "server"."""

    def __init__(self, as_json: bool, out: TextIO, other: str) -> None:
        self.as_json = as_json
        self.out = out
        self.other = other
        # Made before the clock of a transfer runs: importing rich takes a tenth of a second.
        self._bar: Progress | None = new_bar() if sys.stderr.isatty() and not as_json else None
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, event: TransferEvent) -> None:
        if self.as_json:
            self._say(event.as_json(), self.out)
        elif event.kind in ("start", "progress"):
            self._draw(event)
        else:
            self._end_bar(event)
            for line in lines(event, self.other):
                file = sys.stderr if event.kind == "error" else self.out
                self._say(printable(line), file)

    def _say(self, line: str, file: TextIO) -> None:
        """A reader of ours that went away is no reason to end a transfer."""
        with suppress(BrokenPipeError):
            # in one call: print writes twice, and others may write to the same file
            file.write(f"{line}\n")
            file.flush()

    def _draw(self, event: TransferEvent) -> None:
        if self._bar is None:
            return
        self._bar.start()
        if event.session not in self._tasks:
            self._tasks[event.session] = self._bar.add_task(
                printable(event.name or ""), total=event.total_bytes
            )
        self._bar.update(self._tasks[event.session], completed=event.bytes or 0)

    def _end_bar(self, event: TransferEvent) -> None:
        task = self._tasks.pop(event.session, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Take the bar off the screen; the next event of a transfer brings it back."""
        if self._bar is not None:
            self._bar.stop()


def new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def lines(event: TransferEvent, other: str) -> Iterator[str]:
    """What people read about an event."""
    if event.kind == "listening":
        yield f"listening on {event.endpoint}"
    elif event.kind == "message":
        yield f"message from {other}: {event.text}" if event.peer else f"note: {event.text}"
    elif event.kind == "error":
        yield f"fastnet: {FastnetError(event.text or '', event.hint or '')}"
    elif event.kind == "report" and event.report is not None:
        yield summary(event.report)
        if event.report.confirmed_bytes is not None:
            yield proof(event.report)


def summary(report: TransferReport) -> str:
    verb, way = ("sent", "to") if report.role == "send" else ("received", "from")
    congestion = f", {report.congestion}" if report.congestion else ""
    streams = f", {report.streams} streams" if report.streams > 1 else ""
    files = (
        f"{report.files} file{'s' if report.files != 1 else ''}, " if report.mode != "raw" else ""
    )
    said = f"{verb} {files}{report.moved_bytes} bytes {way} {report.peer} in {report.seconds:.3f} s"
    if not report.moved_bytes:
        return said
    return (
        f"{said}: {speed(report.gb_per_s)}, {report.cpu_seconds:.3f} CPU s, "
        f"{report.mover} ({report.mover_reason})"
        f"{congestion}{streams}"
    )


def speed(gb_per_s: float) -> str:
    """In the unit that leaves digits to read: a small file is over before it can be fast."""
    for unit in ("GB/s", "MB/s"):
        if gb_per_s >= SMALLEST_SHOWN:
            return f"{gb_per_s:.3f} {unit}"
        gb_per_s *= 1000
    return f"{gb_per_s:.3f} kB/s"


def proof(report: TransferReport) -> str:
    """What fastnet/1 can say that raw mode cannot."""
    said = "the receiver confirms" if report.role == "send" else "confirmed"
    digest = f", {report.digest}" if report.digest else ""
    skipped = f"; {report.skipped_bytes} bytes were there already" if report.skipped_bytes else ""
    there = (
        f"; there {report.peer_mover}, {report.peer_cpu_seconds:.3f} CPU s"
        if report.moved_bytes and report.peer_cpu_seconds is not None
        else ""
    )
    return f"{said} {report.confirmed_bytes} bytes under their final names{digest}{skipped}{there}"


def ask_person(entries: list[Entry], wanted_bytes: int, look: Callable[[], None]) -> bool:
    """Show what would come, on standard error, and ask.

    For as long as `look` raises nothing.
    """
    for entry in entries[:NAMES_SHOWN]:
        print(f"  {printable(described(entry))}", file=sys.stderr)
    if len(entries) > NAMES_SHOWN:
        print(f"  and {len(entries) - NAMES_SHOWN} more", file=sys.stderr)
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    print(
        f"{count}, of which {wanted_bytes} bytes would come. Take them? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    keyboard = select.poll()
    keyboard.register(sys.stdin, select.POLLIN)
    try:
        while not keyboard.poll(MOVER_SLICE_S * 1000):
            look()
    except FastnetError:
        print(file=sys.stderr)  # the question stands alone on its line
        raise
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def described(entry: Entry) -> str:
    """A line of a list, as `ls -F` would mark it."""
    how = {FOLDER: "/", LINK: f" -> {entry.extra}", STREAM: "  a stream"}
    return entry.path + how.get(entry.kind, f"  {entry.size} bytes")


def warn_of_unauthenticated_peers(what: str) -> None:
    print(f"warning: {what}", file=sys.stderr, flush=True)
