"""Client of a chat: its states from the end of input to the end of the membership."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping

import pytest

from fastnet.apps.chat import client as client_module
from fastnet.apps.chat import wire
from fastnet.apps.chat.client import ChatClient, ClientState
from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent, MembershipState
from fastnet.endpoint import Endpoint

READING, DRAINING, LEAVING, ENDED = ClientState


class RecordingInterface:
    """Passes lines on, and records what is displayed."""

    has_input_ended = False

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []
        self.notices: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        return data.decode().splitlines()

    def show(self, event: ChatEvent) -> None:
        self.events.append(event)

    def show_notice(self, text: str) -> None:
        self.notices.append(text)

    def before_message(self) -> None:
        pass

    def before_wait(self) -> None:
        pass

    def descriptors(self) -> Mapping[int, Callable[[], None]]:
        return {}


@pytest.fixture
def client() -> Iterator[ChatClient]:
    """A joined client of a server that never answers."""
    read_fd, write_fd = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        endpoint = Endpoint("udp", *server.getsockname())
        protocol = ChatClientProtocol("ada")
        client = ChatClient(endpoint, protocol, RecordingInterface(), read_fd)
        receive(client, {"type": "welcome", "name": "ada", "session": "v", "online": 1})
        yield client
        client.close()
    os.close(read_fd)
    os.close(write_fd)


def receive(client: ChatClient, message: dict[str, object]) -> None:
    for event in client.protocol.receive_datagram(wire.pack(message)) or []:
        client._handle_event(event)


def test_quit_drains_and_leaves_when_no_message_is_outstanding(client: ChatClient) -> None:
    assert (client._has_ended(), client.state) == (False, READING)
    client._handle_line("/quit")
    assert client.state is DRAINING
    assert (client._has_ended(), client.state) == (False, LEAVING)
    assert client.protocol.state is MembershipState.LEAVING
    receive(client, {"type": "bye"})
    assert (client._has_ended(), client.state) == (True, ENDED)


def test_draining_lasts_until_messages_are_accepted_and_displayed(client: ChatClient) -> None:
    client._handle_line("hello")
    client._handle_line("/quit")
    assert (client._has_ended(), client.state) == (False, DRAINING)
    receive(client, {"type": "accepted", "id": 1})
    assert (client._has_ended(), client.state) == (False, DRAINING)
    event = {"type": "event", "session": "v", "number": 1, "kind": "message"}
    receive(client, {**event, "sender": "ada", "text": "hello"})
    assert (client._has_ended(), client.state) == (False, LEAVING)


def test_without_replies_draining_and_leaving_end_at_their_deadlines(
    client: ChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LAST_REPLIES_S", 0.0)
    client._handle_line("hello")
    client._handle_line("/quit")
    receive(client, {"type": "accepted", "id": 1})
    assert (client._has_ended(), client.state) == (False, LEAVING)
    assert (client._has_ended(), client.state) == (True, ENDED)


def test_an_unknown_command_is_a_notice_and_two_slashes_a_message(client: ChatClient) -> None:
    client._handle_line("/help")
    client._handle_line("//slash")
    assert isinstance(client.interface, RecordingInterface)
    assert client.interface.notices == [
        "commands are /who and /quit; // sends a line that begins with a slash"
    ]
    assert list(client.protocol.unaccepted) == ["/slash"]
