"""Client protocol of chat/1, and the server's, over a lossy network in memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat import wire
from fastnet.apps.chat.client_protocol import (
    HANDLERS,
    ChatClientProtocol,
    ChatEvent,
    MembershipState,
    split_text,
)
from fastnet.limits import CHAT_TEXT_BYTES_MAX
from tests.support.chat import MemoryNetwork

JOINING, JOINED, LEAVING, LEFT = MembershipState


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_each_message_arrives_once_and_in_the_order_of_its_sender(seed: int, loss: float) -> None:
    network = MemoryNetwork(seed, loss, ["ada", "bob", "eve"])
    clients = network.clients.values()
    network.run_until(
        lambda: all(client.is_joined for client in clients) and len(network.server.members) == 3
    )
    for client in clients:
        for i in range(7):
            client.queue_message(f"{client.name} {i}")
    network.run_until(lambda: all(len(network.messages(name)) >= 21 for name in network.events))
    for name in network.events:
        for sender in network.events:
            texts = [text for text in network.messages(name) if text.startswith(sender)]
            assert texts == [f"{sender} {i}" for i in range(7)]
        assert len(network.messages(name)) == 21


def test_clients_join_a_restarted_server_and_lose_no_queued_message() -> None:
    network = MemoryNetwork(5, 0.2, ["ada", "bob"])
    clients = network.clients.values()
    network.run_until(
        lambda: len(network.server.members) == 2 and all(each.is_joined for each in clients)
    )
    for client in clients:
        for i in range(5):
            client.queue_message(f"before {i}")
    network.run_until(lambda: all(len(network.messages(name)) == 10 for name in network.events))
    network.restart_server()
    network.in_flight.clear()
    for client in clients:
        client.queue_message(f"after {client.name}")
    expected = {"after ada", "after bob"}
    network.run_until(
        lambda: all(expected & set(network.messages(name)) for name in network.events)
    )
    network.run_until(lambda: all(not client.unaccepted for client in clients))
    assert all(network.messages(name).count(f"after {name}") == 1 for name in network.events)


def test_an_expired_cookie_does_not_end_a_session() -> None:
    network = MemoryNetwork(1, 0, ["ada"])
    (client,) = network.clients.values()
    network.run_until(lambda: client.is_joined)
    session = client.session
    for _ in range(10):
        network.now_s += 25
        network.run_until(lambda: client.is_joined and not network.in_flight)
        client.queue_message("still here")
        network.run_until(lambda: not client.unaccepted)
    assert client.session == session
    assert network.messages("ada") == ["still here"] * 10
    assert [event.kind for event in network.events["ada"]].count("welcome") == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_long_text_becomes_several_messages_and_loses_nothing(text: str) -> None:
    found = split_text(text)
    assert "".join(found) == text
    assert all(0 < len(part.encode()) <= CHAT_TEXT_BYTES_MAX for part in found)


@given(st.binary(max_size=300).map(lambda data: wire.PREFIX + data) | st.binary(max_size=300))
def test_random_bytes_do_not_change_the_state_of_a_client(data: bytes) -> None:
    client = ChatClientProtocol("ada")
    client.receive_datagram(data)
    assert client.state is JOINING


def client_in(state: MembershipState) -> ChatClientProtocol:
    """A client that has reached a state by requests and replies."""
    client = ChatClientProtocol("ada")
    if state is not JOINING:
        receive(client, MESSAGES["welcome"])
    if state in (LEAVING, LEFT):
        client.leave()
    if state is LEFT:
        receive(client, MESSAGES["bye"])
    assert client.state is state
    return client


def receive(client: ChatClientProtocol, message: dict[str, Any]) -> list[ChatEvent] | None:
    return client.receive_datagram(wire.pack(message))


EVENT = {"type": "event", "session": "v", "number": 1, "kind": "message"}
MESSAGES: dict[str, dict[str, Any]] = {
    "challenge": {"type": "challenge", "cookie": "00"},
    "refused": {"type": "refused", "reason": "in use"},
    "welcome": {"type": "welcome", "name": "ada", "session": "v", "online": 1},
    "accepted": {"type": "accepted", "id": 1},
    "wait": {"type": "wait", "id": 1, "seconds": 1},
    "event": {**EVENT, "sender": "bob", "text": "hi"},
    "who": {"type": "who", "online": 1, "names": ["ada"]},
    "ack": {"type": "ack"},
    "bye": {"type": "bye"},
}
TRANSITIONS = {
    (JOINING, "welcome"): JOINED,
    (JOINED, "challenge"): JOINING,
    (LEAVING, "bye"): LEFT,
}
"""The edges of the table in client_protocol.py that change the state."""


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("state", MembershipState)
def test_each_datagram_leads_to_the_state_of_the_table(state: MembershipState, kind: str) -> None:
    client = client_in(state)
    receive(client, MESSAGES[kind])
    assert client.state is TRANSITIONS.get((state, kind), state)
    assert set(MESSAGES) == set(HANDLERS)


@pytest.mark.parametrize(
    ("state", "request_type"), [(JOINING, "join"), (JOINED, "ack"), (LEAVING, "leave")]
)
def test_the_next_request_follows_from_the_state(state: MembershipState, request_type: str) -> None:
    assert wire.unpack(client_in(state).next_request())["type"] == request_type


def test_a_refusal_is_an_event_only_before_the_welcome() -> None:
    assert receive(client_in(JOINING), MESSAGES["refused"]) == [
        ChatEvent("refused", "ada", "in use")
    ]
    assert receive(client_in(JOINED), MESSAGES["refused"]) == []


@pytest.mark.parametrize(
    "message",
    [
        {
            "type": "event",
            "session": "",
            "number": 1,
            "kind": "message",
            "sender": "x",
            "text": "y",
        },
        {**EVENT, "number": 10**9, "sender": "x", "text": "y"},
        {**EVENT, "number": -1, "sender": "x", "text": "y"},
        {**EVENT, "number": True, "sender": "x", "text": "y"},
        {"type": "welcome", "session": 7, "online": 1, "name": "x"},
        {"type": "who", "online": 1, "names": [1]},
        {"type": "challenge"},
        {"type": []},
        {},
    ],
)
def test_an_invalid_datagram_displays_nothing(message: dict[str, object]) -> None:
    assert not receive(client_in(JOINED), message)


def test_events_are_displayed_without_control_characters() -> None:
    message = {**EVENT, "sender": "x\x1b[1m", "text": "a\x9b2J\nb"}
    assert receive(client_in(JOINED), message) == [
        ChatEvent("message", "x\ufffd[1m", "a\ufffd2J b")
    ]
