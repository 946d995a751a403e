"""Where the events of a chat are shown: as lines, as JSON, or on a screen of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fastnet.apps.chat.client import Member
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.apps.chat.ui.screen import Screen
from fastnet.apps.chat.ui.terminal import Terminal
from fastnet.endpoint import Endpoint


class Place:
    """Where one is and who else is there, as far as it was told."""

    def __init__(self, talking: Talking, endpoint: Endpoint) -> None:
        self.talking = talking
        self.endpoint = endpoint
        self.online = 0

    def line(self, event: Event) -> str:
        """What to show of an event: what was said, or a note that begins with a star; "" for
        nothing.
        """
        self.online = event.online or self.online
        match event.kind:
            case "said":
                return f"{event.who}: {event.text}"
            case "earlier":
                return f"{event.who} (earlier): {event.text}"
            case "joined":
                return f"* you are {event.who}, {event.online} online"
            case "who":
                more = event.online - len(event.names)
                return f"* {event.online} online: {', '.join(event.names)}{f' and {more} more' if more > 0 else ''}"
        if event.who == self.talking.name:
            return ""
        self.online += 1 if event.kind == "came" else -1
        return f"* {event.who} is {'online' if event.kind == 'came' else 'offline'}"

    def status(self) -> str:
        """The same in a few words."""
        room = f" in {self.talking.room}" if self.talking.room else ""
        online = f"{self.online} online" if self.talking.is_in else "not there yet"
        waiting = f" | {len(self.talking.waiting)} to be sent" if self.talking.waiting else ""
        return f"{self.talking.name}{room} on {self.endpoint} | {online}{waiting}"


class Plain:
    """Events as lines."""

    def __init__(self, as_json: bool, place: Place) -> None:
        self.as_json = as_json
        self.place = place
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def show(self, event: Event) -> None:
        if self.as_json:
            found = {name: value for name, value in dataclasses.asdict(event).items() if value}
            print(json.dumps({"event": found.pop("kind"), **found}), flush=True)
        elif line := self.place.line(event):
            print(
                line,
                file=sys.stdout if event.kind in ("said", "earlier") else sys.stderr,
                flush=True,
            )

    def note(self, text: str) -> None:
        print(f"* {text}", file=sys.stderr, flush=True)

    def typed(self) -> None:
        """A line was typed, and will come back as what was said: take the first one off the
        screen.
        """
        if self.is_terminal and not self.as_json:
            os.write(sys.stdout.fileno(), b"\x1b[1A\r\x1b[2K")


class OnScreen(Plain):
    """Events on a screen of their own."""

    def __init__(self, screen: Screen, place: Place) -> None:
        super().__init__(False, place)
        self.screen = screen

    def show(self, event: Event) -> None:
        if line := self.place.line(event):
            self.screen.add(line)

    def note(self, text: str) -> None:
        self.screen.add(f"* {text}")


@contextmanager
def on_a_screen(member: Member, place: Place) -> Iterator[OnScreen]:
    """Take the terminal over; it is as before at the end."""
    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno())
    terminal.screen = Screen(place.status, terminal.write, terminal.suspend)
    with terminal:
        member.lines, member.on_line, member.on_rest = (
            terminal.screen,
            lambda: None,
            terminal.screen.paint,
        )
        member.also = {terminal.fd: terminal.woken}
        yield OnScreen(terminal.screen, place)
