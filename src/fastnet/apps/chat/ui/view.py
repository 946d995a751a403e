"""User interfaces of the chat client: lines, JSON objects, or a screen.

Decision: both implement the same protocol and are context managers, so that a terminal is restored
however the client ends. Messages go to standard output and notices to standard error, so that a
pipe carries messages only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping

from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent
from fastnet.apps.chat.ui.screen import Screen
from fastnet.apps.chat.ui.terminal import ChatTerminal
from fastnet.endpoint import Endpoint
from fastnet.limits import READ_BYTES


class ChatStatus:
    """Texts for events, and the status line: name, room, server and members online.

    Args:
        protocol: The membership.
        endpoint: Where the server is.
    """

    def __init__(self, protocol: ChatClientProtocol, endpoint: Endpoint) -> None:
        self.protocol = protocol
        self.endpoint = endpoint
        self.online = 0
        """Members of the room, as far as events have reported them."""

    def format_event(self, event: ChatEvent) -> str:
        """The line to display: a message, or a notice that begins with a star; "" for none."""
        self.online = event.online or self.online
        match event.kind:
            case "message":
                return f"{event.sender}: {event.text}"
            case "history":
                return f"{event.sender} (earlier): {event.text}"
            case "welcome":
                return f"* you are {event.sender}, {event.online} online"
            case "who":
                more = event.online - len(event.names)
                and_more = f" and {more} more" if more > 0 else ""
                return f"* {event.online} online: {', '.join(event.names)}{and_more}"
        if event.sender == self.protocol.name:
            return ""
        self.online += 1 if event.kind == "joined" else -1
        return f"* {event.sender} is {'online' if event.kind == 'joined' else 'offline'}"

    def format_status(self) -> str:
        """The status line."""
        protocol = self.protocol
        room = f" in {protocol.room}" if protocol.room else ""
        online = f"{self.online} online" if protocol.session else "not connected"
        queued = f" | {len(protocol.unaccepted)} to be sent" if protocol.unaccepted else ""
        return f"{protocol.name}{room} on {self.endpoint} | {online}{queued}"


class LineInterface:
    """Events as lines or JSON objects; input as from a pipe or a terminal in line mode.

    Args:
        status: Formats events.
        as_json: Display events as JSON objects, one a line.
    """

    def __init__(self, status: ChatStatus, as_json: bool) -> None:
        self.status = status
        self.as_json = as_json
        self.has_input_ended = False
        self._incomplete = b""
        """Bytes of the last line of the input."""
        self._erases_typed_lines = not as_json and sys.stdin.isatty() and sys.stdout.isatty()

    def __enter__(self) -> LineInterface:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def feed(self, data: bytes) -> list[str]:
        """Complete lines; one that is longer than READ_BYTES is cut."""
        text = self._incomplete + data
        if not data:
            self.has_input_ended = True
            text += b"\n" if text else b""
        elif len(text) > READ_BYTES and b"\n" not in text:
            text += b"\n"
        *lines, self._incomplete = text.split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def show(self, event: ChatEvent) -> None:
        if self.as_json:
            fields = {name: value for name, value in dataclasses.asdict(event).items() if value}
            print(json.dumps({"event": fields.pop("kind"), **fields}), flush=True)
        elif line := self.status.format_event(event):
            stream = sys.stdout if event.kind in ("message", "history") else sys.stderr
            print(line, file=stream, flush=True)

    def show_notice(self, text: str) -> None:
        print(f"* {text}", file=sys.stderr, flush=True)

    def before_message(self) -> None:
        """Erase the typed line from the terminal: it will be displayed as a message."""
        if self._erases_typed_lines:
            os.write(sys.stdout.fileno(), b"\x1b[1A\r\x1b[2K")

    def before_wait(self) -> None:
        """Lines are flushed already."""

    def descriptors(self) -> Mapping[int, Callable[[], None]]:
        """None."""
        return {}


class ScreenInterface:
    """Events and input on a screen of their own; the terminal is restored when it is left.

    Args:
        status: Formats events and the status line.
    """

    def __init__(self, status: ChatStatus) -> None:
        self.status = status
        self.terminal = ChatTerminal(sys.stdin.fileno(), sys.stdout.fileno())
        self.screen = Screen(status.format_status, self.terminal.write, self.terminal.suspend)
        self.terminal.screen = self.screen

    def __enter__(self) -> ScreenInterface:
        self.terminal.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.terminal.__exit__(*error)

    @property
    def has_input_ended(self) -> bool:
        """Whether Ctrl-D was typed or the terminal hung up."""
        return self.screen.has_input_ended

    def feed(self, data: bytes) -> list[str]:
        """Lines that were completed with Enter. Raises KeyboardInterrupt on Ctrl-C."""
        return self.screen.feed(data)

    def show(self, event: ChatEvent) -> None:
        if line := self.status.format_event(event):
            self.screen.add(line)

    def show_notice(self, text: str) -> None:
        self.screen.add(f"* {text}")

    def before_message(self) -> None:
        """The screen has removed the typed line already."""

    def before_wait(self) -> None:
        """Paint what has changed."""
        self.screen.paint()

    def descriptors(self) -> Mapping[int, Callable[[], None]]:
        """Signals that arrived while the client waited."""
        return {self.terminal.fd: self.terminal.handle_signals}


def make_interface(
    status: ChatStatus, plain: bool, as_json: bool
) -> LineInterface | ScreenInterface:
    """A screen if standard input and output are a terminal with cursor addressing, else lines.

    Args:
        status: Formats events.
        plain: Use lines on a terminal, too.
        as_json: Use JSON objects, one a line.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    has_cursor = os.environ.get("TERM", "dumb") != "dumb"
    if is_terminal and has_cursor and not plain and not as_json:
        return ScreenInterface(status)
    return LineInterface(status, as_json)
