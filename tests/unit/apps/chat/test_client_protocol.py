"""The client's side of chat/1 against a real hall, over a network that loses, doubles and
reorders.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat import wire
from fastnet.apps.chat.client_protocol import Event, Talking, pieces
from fastnet.limits import CHAT_TEXT_BYTES_MAX
from tests.support.chat import Network, until


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_everybody_sees_every_message_once_and_in_the_order_of_each_speaker(
    seed: int, loss: float
) -> None:
    network = Network(seed, loss, ["ada", "bob", "eve"])
    everybody = network.members.values()
    until(
        network,
        lambda: all(talking.is_in for talking in everybody) and len(network.hall.members) == 3,
    )
    for talking in everybody:
        for i in range(7):
            talking.say(f"{talking.name} {i}")
    until(network, lambda: all(len(network.said(name)) >= 21 for name in network.seen))
    for name in network.seen:
        for speaker in network.seen:
            said = [text for text in network.said(name) if text.startswith(speaker)]
            assert said == [f"{speaker} {i}" for i in range(7)]
        assert len(network.said(name)) == 21


def test_a_restarted_server_is_joined_again_and_nothing_waiting_is_lost() -> None:
    network = Network(5, 0.2, ["ada", "bob"])
    until(
        network,
        lambda: (
            len(network.hall.members) == 2 and all(each.is_in for each in network.members.values())
        ),
    )
    for talking in network.members.values():
        for i in range(5):
            talking.say(f"before {i}")
    until(network, lambda: all(len(network.said(name)) == 10 for name in network.seen))
    network.restart()
    network.flying.clear()
    for talking in network.members.values():
        talking.say(f"after {talking.name}")
    until(
        network,
        lambda: all({"after ada", "after bob"} & set(network.said(name)) for name in network.seen),
    )
    until(network, lambda: all(not talking.waiting for talking in network.members.values()))
    assert all(network.said(name).count(f"after {name}") == 1 for name in network.seen)


def test_a_cookie_that_ages_does_not_end_a_visit() -> None:
    network = Network(1, 0, ["ada"])
    (talking,) = network.members.values()
    until(network, lambda: talking.is_in)
    visit = talking.visit
    for _ in range(10):
        network.now_s += 25
        until(network, lambda: talking.is_in and not network.flying)
        talking.say("still here")
        until(network, lambda: not talking.waiting)
    assert talking.visit == visit
    assert network.said("ada") == ["still here"] * 10
    assert [event.kind for event in network.seen["ada"]].count("joined") == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_long_text_becomes_several_messages_and_loses_nothing(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text
    assert all(0 < len(piece.encode()) <= CHAT_TEXT_BYTES_MAX for piece in found)


@given(st.binary(max_size=300).map(lambda data: wire.MARK + data) | st.binary(max_size=300))
def test_random_bytes_mean_nothing_to_a_member(data: bytes) -> None:
    talking = Talking("ada")
    talking.receive_datagram(data)
    assert not talking.is_in


@pytest.mark.parametrize(
    "message",
    [
        {"is": "event", "visit": "", "number": 1, "kind": "said", "who": "x", "text": "y"},
        {"is": "event", "visit": "v", "number": 10**9, "kind": "said", "who": "x", "text": "y"},
        {"is": "event", "visit": "v", "number": -1, "kind": "said", "who": "x", "text": "y"},
        {"is": "event", "visit": "v", "number": True, "kind": "said", "who": "x", "text": "y"},
        {"is": "welcome", "visit": 7, "online": 1, "name": "x"},
        {"is": "who", "online": 1, "names": [1]},
        {"is": "challenge"},
        {"is": []},
        {},
    ],
)
def test_what_makes_no_sense_shows_nothing(message: dict[str, object]) -> None:
    talking = Talking("ada")
    talking.visit = "v"
    assert not talking.receive_datagram(wire.pack(message))


def test_what_a_server_sends_is_shown_without_control_characters() -> None:
    talking = Talking("ada")
    talking.visit = "v"
    message = {
        "is": "event",
        "visit": "v",
        "number": 1,
        "kind": "said",
        "who": "x\x1b[1m",
        "text": "a\x9b2J\nb",
    }
    assert talking.receive_datagram(wire.pack(message)) == [
        Event("said", "x\ufffd[1m", "a\ufffd2J b")
    ]
