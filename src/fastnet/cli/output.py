"""Lines and events on standard output and standard error, as every command prints them.

Decision: an event is one line of text, or with --json one JSON object. A serving command keeps
serving when the reader of its output has closed it, because its peers have not.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Collection
from typing import Any, TextIO

from fastnet.errors import printable

Events = list[dict[str, Any]]

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of write(2) when the reader exited, the terminal hung up, or the descriptor is closed."""


def event_printer(
    as_json: bool,
    format_event: Callable[[dict[str, Any]], str],
    notices: Collection[str] = ("draining",),
) -> Callable[[Events], None]:
    """A function that prints each event of a list as one line.

    Args:
        as_json: Print JSON objects on standard output instead of text.
        format_event: Returns the text line of an event.
        notices: Kinds of events whose text goes to standard error.
    """

    def print_events(events: Events) -> None:
        for event in events:
            if as_json:
                print_line(sys.stdout, json.dumps(event))
            elif event["event"] in notices:
                print_line(sys.stderr, f"fastnet: {format_event(event)}")
            else:
                print_line(sys.stdout, format_event(event))

    return print_events


def print_line(stream: TextIO, text: str) -> None:
    """Write a line and flush it; once the reader is gone, discard this and later lines."""
    try:
        print(printable(text), file=stream, flush=True)
    except OSError as error:
        if error.errno not in READER_GONE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_error(text: str) -> None:
    """Write `fastnet: TEXT.` to standard error."""
    print(f"fastnet: {printable(text).rstrip('.')}.", file=sys.stderr, flush=True)


def print_note(text: str) -> None:
    """Write a line for the user to standard error."""
    print(text, file=sys.stderr, flush=True)
