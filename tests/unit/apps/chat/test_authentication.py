"""chat/1 under a key: who has none gets nothing and does nothing, and what was recorded is worth
nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat import authentication, wire
from fastnet.apps.chat.authentication import Gate, Numbers, Seal, session_key
from fastnet.apps.chat.client_protocol import Talking
from fastnet.apps.chat.server_protocol import Hall
from fastnet.limits import (
    CHAT_COOKIE_S,
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_SILENT_S,
    CHAT_TEXT_BYTES_MAX,
)
from fastnet.security.mac import mac
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer
from tests.support.chat import Clock, Network, until
from tests.support.cli_process import ROOT

SECRET = bytes(range(32))
ADA, BOB, EVE = ("127.0.0.1", 4001), ("127.0.0.1", 4002), ("198.51.100.7", 4003)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    hall = Hall(AccessList.parse(["127.0.0.0/8"]), 5.0, clock)
    return Gate(hall, {"us": SECRET, "them": SECRET[::-1]}, clock)


class Talker:
    """A member and all its datagrams, in both directions."""

    def __init__(
        self, gate: Gate, peer: Peer, name: str, key_id: str = "us", secret: bytes = SECRET
    ) -> None:
        self.gate, self.peer = gate, peer
        self.talking, self.seal = Talking(name), Seal(key_id, secret)
        self.sent: list[bytes] = []
        self.got: list[bytes] = []

    def handle_timer(self) -> list[tuple[bytes, Peer]]:
        """Send what is due, hear the answers. Returns what others got."""
        self.sent.append(self.seal.close(self.talking.next()))
        others = []
        for data, to in self.gate.receive_datagram(self.sent[-1], self.peer):
            if to != self.peer:
                others.append((data, to))
                continue
            self.got.append(data)
            if body := self.seal.open(data):
                self.talking.receive_datagram(body)
        return others

    def join(self) -> Talker:
        for _ in range(4):
            self.handle_timer()
        assert self.talking.is_in
        return self


def test_who_signs_comes_in_and_speaks(gate: Gate) -> None:
    ada, bob = (
        Talker(gate, ADA, "ada").join(),
        Talker(gate, BOB, "bob", "them", SECRET[::-1]).join(),
    )
    ada.talking.say("hello")
    ((data, to),) = ada.handle_timer()
    opened = bob.seal.open(data)
    assert opened is not None
    assert b'"text":"hello"' in opened
    assert to == BOB


@pytest.mark.parametrize(
    "data",
    [
        b"online",
        b"hello",
        b"",
        b"FNK1",
        wire.pack({"do": "join", "name": "eve", "room": "", "cookie": "", "said": 0}),
        Seal("us", bytes(32)).close(b""),
        Seal("nobody", SECRET).close(b""),
        Seal("us", SECRET).close(b"")[:-1],
        Seal("us", SECRET).close(b"") + b"x",
        b"x" * 60000,
    ],
    ids=[
        "textbook",
        "text",
        "nothing",
        "magic",
        "unsigned",
        "wrong key",
        "unknown id",
        "shorter",
        "longer",
        "huge",
    ],
)
def test_a_stranger_gets_not_one_byte(gate: Gate, data: bytes) -> None:
    Talker(gate, ADA, "ada").join()
    assert gate.receive_datagram(data, EVE) == []
    assert gate.receive_datagram(data, ADA) == []
    assert gate.hall.statistics.strangers == 2
    assert set(gate.hall.members) == {ADA}


def test_who_has_not_proven_an_address_makes_it_get_less_than_was_sent(gate: Gate) -> None:
    hello = Seal("u", SECRET)
    gate.keys = {"u": SECRET}
    data = hello.close(b"")
    ((reply, to),) = gate.receive_datagram(data, EVE)
    assert (len(reply) < len(data), to) == (True, EVE)


@given(st.data())
@settings(max_examples=200)
def test_a_changed_byte_makes_a_stranger(data: st.DataObject) -> None:
    hall = Hall(AccessList.parse(["127.0.0.0/8"]), 5.0)
    gate = Gate(hall, {"us": SECRET})
    ada = Talker(gate, ADA, "ada").join()
    ada.talking.say("hello")
    said = bytearray(ada.seal.close(ada.talking.next()))
    said[data.draw(st.integers(0, len(said) - 1))] ^= data.draw(st.integers(1, 255))
    assert gate.receive_datagram(bytes(said), ADA) == []
    reply = bytearray(ada.got[-1])
    ada.seal._came = Numbers()
    reply[data.draw(st.integers(0, len(reply) - 1))] ^= data.draw(st.integers(1, 255))
    assert ada.seal.open(bytes(reply)) is None


def test_nothing_recorded_is_heard_again_in_any_place(gate: Gate) -> None:
    ada, bob = Talker(gate, ADA, "ada").join(), Talker(gate, BOB, "bob").join()
    ada.talking.say("hello")
    ada.handle_timer()
    members, messages = dict(gate.hall.members), gate.hall.statistics.messages
    for data in [*ada.sent, *bob.sent, *ada.got, *bob.got]:
        for place in (ADA, BOB, EVE):
            for reply, _ in gate.receive_datagram(data, place):
                assert reply[4] == authentication.CHALLENGE
                assert len(reply) < len(data)
                assert ada.seal.open(reply) is None
                assert bob.seal.open(reply) is None
    for data in [*ada.got, *bob.got, *ada.sent, *bob.sent]:
        assert ada.seal.open(data) is None
    assert (gate.hall.members, gate.hall.statistics.messages) == (members, messages)


def test_who_has_another_key_cannot_speak_for_a_member_even_from_its_address(gate: Gate) -> None:
    ada = Talker(gate, ADA, "ada").join()
    # he sees all packets to and from her, her cookie too
    bob = Talker(gate, ADA, "ada", "them", SECRET[::-1])
    bob.handle_timer()
    bob.talking.cookie, bob.talking.visit = ada.talking.cookie, ada.talking.visit
    bob.talking.said = ada.talking.said
    bob.talking.say("forged")
    bob.handle_timer()
    bob.talking.is_leaving = True
    bob.handle_timer()
    assert (gate.hall.statistics.messages, gate.hall.statistics.strangers) == (0, 2)
    assert ADA in gate.hall.members
    ada.talking.say("mine")
    ada.handle_timer()
    assert gate.hall.statistics.messages == 1


def test_a_member_that_left_is_not_brought_back_by_a_recording(gate: Gate, clock: Clock) -> None:
    ada = Talker(gate, ADA, "ada").join()
    ada.talking.is_leaving = True
    ada.handle_timer()
    assert not gate.hall.members
    for _ in range(5):
        for data in ada.sent:
            gate.receive_datagram(data, ADA)
        gate._forget()
        clock.now_s += CHAT_COOKIE_S / 2 + 1
    assert not gate.hall.members


def test_a_recording_is_worth_nothing_after_a_restart(gate: Gate, clock: Clock) -> None:
    ada = Talker(gate, ADA, "ada").join()
    again = Gate(Hall(AccessList.parse([]), 5.0, clock), gate.keys, clock)
    for data in ada.sent:
        assert [reply[4] for reply, _ in again.receive_datagram(data, ADA)] == [
            authentication.CHALLENGE
        ]
    assert not again.sessions


def test_who_answers_a_flood_of_old_challenges_keeps_its_session(gate: Gate, clock: Clock) -> None:
    ada = Talker(gate, ADA, "ada").join()
    clock.now_s += 2 * CHAT_COOKIE_S
    nonce = ada.seal.servers_nonce
    # recorded, and sent from her address: the server answers with fresh challenges
    for data in ada.sent:
        for reply, _ in gate.receive_datagram(data, ADA):
            assert ada.seal.open(reply) is None
    assert ada.seal.servers_nonce == nonce


def test_a_full_server_is_not_asked_at_once_again(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CHAT_SESSIONS_MAX", 1)
    Talker(gate, ADA, "ada").join()
    bob = Talker(gate, BOB, "bob")
    bob.handle_timer()
    bob.handle_timer()
    assert bob.seal.open(bob.got[-1]) is None
    assert len(gate.sessions) == 1


def test_sessions_that_nothing_could_begin_again_are_forgotten(
    gate: Gate, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CHAT_SESSIONS_MAX", 1)
    ada = Talker(gate, ADA, "ada").join()
    clock.now_s += CHAT_SILENT_S
    gate.hall.handle_timer()
    clock.now_s += 2 * CHAT_COOKIE_S
    Talker(gate, BOB, "bob").join()
    assert [peer for peer, _, _ in gate.sessions] == list(gate.heard) == [BOB]
    ada.join()


def test_a_key_that_is_taken_away_takes_its_members_along(gate: Gate) -> None:
    ada, bob = (
        Talker(gate, ADA, "ada").join(),
        Talker(gate, BOB, "bob", "them", SECRET[::-1]).join(),
    )
    told = gate.renew({"us": SECRET})
    assert [to for _, to in told] == [ADA]
    assert b'"went","who":"bob"' in (ada.seal.open(told[0][0]) or b"")
    assert gate.receive_datagram(bob.seal.close(b""), BOB) == []
    assert set(gate.hall.members) == {ADA}


def test_the_log_names_strangers_once_a_minute(
    gate: Gate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        gate.receive_datagram(b"online", EVE)
    clock.now_s += 61
    gate.receive_datagram(b"online", EVE)
    assert [record.getMessage() for record in caplog.records] == [
        "chat: 1 datagrams that no key signed; the last from 198.51.100.7 port 4003",
        "chat: 100 datagrams that no key signed; the last from 198.51.100.7 port 4003",
    ]


def test_the_longest_message_fits_a_datagram_under_the_longest_key_id(gate: Gate) -> None:
    gate.keys = {"k" * 32: SECRET}
    name = "\U00010400" * 24
    ada = Talker(gate, ADA, name, "k" * 32).join()
    ada.talking.say('"' * CHAT_TEXT_BYTES_MAX)
    ada.handle_timer()
    assert gate.hall.statistics.messages == 1
    assert len(ada.sent[-1]) <= CHAT_DATAGRAM_BYTES_MAX
    assert max(map(len, ada.got)) <= CHAT_DATAGRAM_BYTES_MAX
    assert any('"' * 3 in data.decode("latin-1") or b'\\"' in data for data in ada.got)


@given(st.lists(st.integers(1, 200), max_size=200))
def test_each_number_counts_once_at_most_and_near_ones_in_any_order(numbers: list[int]) -> None:
    came, counted, highest = Numbers(), set(), 0
    for number in numbers:
        is_new = came.take(number)
        assert is_new == (number not in counted and number > highest - authentication.WINDOW)
        counted |= {number} if is_new else set()
        highest = max(highest, number)


def test_a_number_as_high_as_can_be_costs_nothing() -> None:
    came = Numbers()
    assert [came.take(n) for n in (1, 2**64 - 1, 2**64 - 1, 1)] == [True, True, False, False]


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.4))
@settings(max_examples=20, deadline=None)
def test_with_a_key_a_bad_network_and_replays_everybody_sees_every_message_once(
    seed: int, loss: float
) -> None:
    network = Network(seed, loss, ["ada", "bob"], SECRET)
    everybody = network.members.values()

    def are_in() -> bool:
        return all(talking.is_in for talking in everybody) and len(network.hall.members) == 2

    until(network, are_in)
    for talking in everybody:
        for i in range(5):
            talking.say(f"{talking.name} {i}")

    def is_said() -> bool:
        for data, peer, is_request in network.chance.sample(
            network.recorded, min(3, len(network.recorded))
        ):
            network.flying.append((data, network.chance.choice([peer, ADA, EVE]), is_request))
        return all(len(network.said(name)) >= 10 for name in network.seen)

    until(network, is_said)
    for name in network.seen:
        assert sorted(network.said(name)) == sorted(
            f"{each} {i}" for each in ("ada", "bob") for i in range(5)
        )
    assert set(network.hall.members) == set(network.members)


@given(st.binary(max_size=200).map(lambda data: b"FNK1" + data) | st.binary(max_size=200))
def test_random_bytes_open_nothing(data: bytes) -> None:
    assert Seal("us", SECRET).open(data) is None


def test_the_document_has_a_vector_of_each_kind(gate: Gate) -> None:
    seal = Seal("alice", SECRET)
    seal.nonce, servers = bytes(range(16, 32)), bytes(range(32, 48))
    seal._hello_key = seal._key = session_key(SECRET, "alice", seal.nonce, authentication.NO_NONCE)
    hello = seal.close(b"")
    data = authentication.REPLY.pack(b"FNK1", authentication.CHALLENGE, seal.nonce, 1) + servers
    challenge = data + mac(seal._key, data)
    assert seal.open(challenge) == b""
    said = seal.close(wire.MARK + b'{"do":"who","cookie":"00"}')
    text = (ROOT / "docs" / "chat.md").read_text().replace("\n", "")
    for vector in (hello, challenge, said):
        assert vector.hex() in text
