"""Authenticated datagrams: no reply without a key, and no effect of recorded datagrams."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.apps.chat import authentication, wire
from fastnet.apps.chat.authentication import (
    ClientAuthenticator,
    ReplayWindow,
    ServerAuthenticator,
    derive_session_key,
)
from fastnet.apps.chat.client_protocol import ChatClientProtocol
from fastnet.apps.chat.server_protocol import ChatServerProtocol, Datagrams
from fastnet.limits import (
    CHAT_COOKIE_S,
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_IDLE_TIMEOUT_S,
    CHAT_TEXT_BYTES_MAX,
)
from fastnet.security.mac import mac
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer
from tests.support.chat import Clock, MemoryNetwork
from tests.support.cli_process import ROOT

SECRET = bytes(range(32))
ADA, BOB, EVE = ("127.0.0.1", 4001), ("127.0.0.1", 4002), ("198.51.100.7", 4003)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(clock: Clock) -> ServerAuthenticator:
    protocol = ChatServerProtocol(AccessList.parse(["127.0.0.0/8"]), 5.0, clock)
    return ServerAuthenticator(protocol, {"us": SECRET, "them": SECRET[::-1]}, clock)


def exchange(server: ServerAuthenticator, data: bytes, peer: Peer) -> Datagrams:
    """The datagrams that the server sends for one, as on the wire."""
    return server.authenticate(server.receive_datagram(data, peer))


class RecordingClient:
    """A client and all its datagrams, in both directions."""

    def __init__(
        self,
        server: ServerAuthenticator,
        peer: Peer,
        name: str,
        key_id: str = "us",
        secret: bytes = SECRET,
    ) -> None:
        self.server, self.peer = server, peer
        self.client = ChatClientProtocol(name)
        self.authenticator = ClientAuthenticator(key_id, secret)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    def send_request(self) -> Datagrams:
        """Send a request and handle the replies. Returns the datagrams for others."""
        self.sent.append(self.authenticator.authenticate(self.client.next_request()))
        others = []
        for data, to in exchange(self.server, self.sent[-1], self.peer):
            if to != self.peer:
                others.append((data, to))
                continue
            self.received.append(data)
            if body := self.authenticator.verify(data):
                self.client.receive_datagram(body)
        return others

    def join(self) -> RecordingClient:
        for _ in range(4):
            self.send_request()
        assert self.client.is_joined
        return self


def test_clients_with_a_key_join_and_send_messages(authenticator: ServerAuthenticator) -> None:
    ada, bob = (
        RecordingClient(authenticator, ADA, "ada").join(),
        RecordingClient(authenticator, BOB, "bob", "them", SECRET[::-1]).join(),
    )
    ada.client.queue_message("hello")
    ((data, to),) = ada.send_request()
    opened = bob.authenticator.verify(data)
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
        wire.pack({"type": "join", "name": "eve", "room": "", "cookie": "", "last_id": 0}),
        ClientAuthenticator("us", bytes(32)).authenticate(b""),
        ClientAuthenticator("unknown", SECRET).authenticate(b""),
        ClientAuthenticator("us", SECRET).authenticate(b"")[:-1],
        ClientAuthenticator("us", SECRET).authenticate(b"") + b"x",
        b"x" * 60000,
    ],
    ids=[
        "textbook",
        "text",
        "nothing",
        "magic",
        "no MAC",
        "wrong key",
        "unknown id",
        "shorter",
        "longer",
        "huge",
    ],
)
def test_an_unauthenticated_datagram_has_no_reply(
    authenticator: ServerAuthenticator, data: bytes
) -> None:
    RecordingClient(authenticator, ADA, "ada").join()
    assert exchange(authenticator, data, EVE) == []
    assert exchange(authenticator, data, ADA) == []
    assert authenticator.protocol.statistics.unauthenticated == 2
    assert set(authenticator.protocol.members) == {ADA}


def test_a_challenge_is_shorter_than_the_datagram_it_answers(
    authenticator: ServerAuthenticator,
) -> None:
    hello = ClientAuthenticator("u", SECRET)
    authenticator.keys = {"u": SECRET}
    data = hello.authenticate(b"")
    ((reply, to),) = exchange(authenticator, data, EVE)
    assert (len(reply) < len(data), to) == (True, EVE)


@given(st.data())
@settings(max_examples=200)
def test_a_changed_byte_invalidates_the_mac_in_both_directions(data: st.DataObject) -> None:
    protocol = ChatServerProtocol(AccessList.parse(["127.0.0.0/8"]), 5.0)
    authenticator = ServerAuthenticator(protocol, {"us": SECRET})
    ada = RecordingClient(authenticator, ADA, "ada").join()
    ada.client.queue_message("hello")
    request = bytearray(ada.authenticator.authenticate(ada.client.next_request()))
    request[data.draw(st.integers(0, len(request) - 1))] ^= data.draw(st.integers(1, 255))
    assert exchange(authenticator, bytes(request), ADA) == []
    reply = bytearray(ada.received[-1])
    ada.authenticator._received = ReplayWindow()
    reply[data.draw(st.integers(0, len(reply) - 1))] ^= data.draw(st.integers(1, 255))
    assert ada.authenticator.verify(bytes(reply)) is None


def test_a_recorded_datagram_has_no_effect_from_any_address(
    authenticator: ServerAuthenticator,
) -> None:
    ada, bob = (
        RecordingClient(authenticator, ADA, "ada").join(),
        RecordingClient(authenticator, BOB, "bob").join(),
    )
    ada.client.queue_message("hello")
    ada.send_request()
    protocol = authenticator.protocol
    members, messages = dict(protocol.members), protocol.statistics.messages
    for data in [*ada.sent, *bob.sent, *ada.received, *bob.received]:
        for address in (ADA, BOB, EVE):
            for reply, _ in exchange(authenticator, data, address):
                assert reply[4] == authentication.CHALLENGE
                assert len(reply) < len(data)
                assert ada.authenticator.verify(reply) is None
                assert bob.authenticator.verify(reply) is None
    for data in [*ada.received, *bob.received, *ada.sent, *bob.sent]:
        assert ada.authenticator.verify(data) is None
    assert (protocol.members, protocol.statistics.messages) == (members, messages)


def test_another_key_cannot_send_for_a_member_from_its_address(
    authenticator: ServerAuthenticator,
) -> None:
    ada = RecordingClient(authenticator, ADA, "ada").join()
    # Bob sees all of Ada's packets, and so her cookie.
    bob = RecordingClient(authenticator, ADA, "ada", "them", SECRET[::-1])
    bob.send_request()
    bob.client.state, bob.client.session = ada.client.state, ada.client.session
    bob.client.cookie, bob.client.last_accepted = ada.client.cookie, ada.client.last_accepted
    bob.client.queue_message("forged")
    bob.send_request()
    bob.client.leave()
    bob.send_request()
    statistics = authenticator.protocol.statistics
    assert (statistics.messages, statistics.unauthenticated) == (0, 2)
    assert ADA in authenticator.protocol.members
    ada.client.queue_message("mine")
    ada.send_request()
    assert authenticator.protocol.statistics.messages == 1


def test_recorded_datagrams_do_not_rejoin_a_member_that_left(
    authenticator: ServerAuthenticator, clock: Clock
) -> None:
    ada = RecordingClient(authenticator, ADA, "ada").join()
    ada.client.leave()
    ada.send_request()
    assert not authenticator.protocol.members
    for _ in range(5):
        for data in ada.sent:
            exchange(authenticator, data, ADA)
        authenticator._drop_expired_sessions()
        clock.now_s += CHAT_COOKIE_S / 2 + 1
    assert not authenticator.protocol.members


def test_recorded_datagrams_have_no_effect_after_a_restart(
    authenticator: ServerAuthenticator, clock: Clock
) -> None:
    ada = RecordingClient(authenticator, ADA, "ada").join()
    again = ServerAuthenticator(
        ChatServerProtocol(AccessList.parse([]), 5.0, clock), authenticator.keys, clock
    )
    for data in ada.sent:
        assert [reply[4] for reply, _ in exchange(again, data, ADA)] == [authentication.CHALLENGE]
    assert not again.sessions


def test_a_flood_of_old_challenges_does_not_end_a_session(
    authenticator: ServerAuthenticator, clock: Clock
) -> None:
    ada = RecordingClient(authenticator, ADA, "ada").join()
    clock.now_s += 2 * CHAT_COOKIE_S
    nonce = ada.authenticator.server_nonce
    # Recorded, and sent from her address: the server answers with fresh challenges.
    for data in ada.sent:
        for reply, _ in exchange(authenticator, data, ADA):
            assert ada.authenticator.verify(reply) is None
    assert ada.authenticator.server_nonce == nonce


def test_a_client_does_not_retry_immediately_at_a_full_server(
    authenticator: ServerAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CHAT_SESSIONS_MAX", 1)
    RecordingClient(authenticator, ADA, "ada").join()
    bob = RecordingClient(authenticator, BOB, "bob")
    bob.send_request()
    bob.send_request()
    assert bob.authenticator.verify(bob.received[-1]) is None
    assert len(authenticator.sessions) == 1


def test_sessions_whose_nonces_have_expired_are_dropped(
    authenticator: ServerAuthenticator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CHAT_SESSIONS_MAX", 1)
    ada = RecordingClient(authenticator, ADA, "ada").join()
    clock.now_s += CHAT_IDLE_TIMEOUT_S
    authenticator.protocol.handle_timer()
    clock.now_s += 2 * CHAT_COOKIE_S
    RecordingClient(authenticator, BOB, "bob").join()
    assert [peer for peer, _, _ in authenticator.sessions] == list(authenticator.current) == [BOB]
    ada.join()


def test_revoking_a_key_disconnects_its_members(
    authenticator: ServerAuthenticator,
) -> None:
    ada, bob = (
        RecordingClient(authenticator, ADA, "ada").join(),
        RecordingClient(authenticator, BOB, "bob", "them", SECRET[::-1]).join(),
    )
    ((data, peer),) = authenticator.authenticate(authenticator.replace_keys({"us": SECRET}))
    assert peer == ADA
    assert b'"left","sender":"bob"' in (ada.authenticator.verify(data) or b"")
    assert exchange(authenticator, bob.authenticator.authenticate(b""), BOB) == []
    assert set(authenticator.protocol.members) == {ADA}


def test_unauthenticated_datagrams_are_logged_once_a_minute(
    authenticator: ServerAuthenticator, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        exchange(authenticator, b"online", EVE)
    clock.now_s += 61
    exchange(authenticator, b"online", EVE)
    assert [record.getMessage() for record in caplog.records] == [
        "chat: 1 unauthenticated datagrams; the last from 198.51.100.7 port 4003",
        "chat: 100 unauthenticated datagrams; the last from 198.51.100.7 port 4003",
    ]


def test_the_longest_message_fits_a_datagram_with_the_longest_key_id(
    authenticator: ServerAuthenticator,
) -> None:
    authenticator.keys = {"k" * 32: SECRET}
    name = "\U00010400" * 24
    ada = RecordingClient(authenticator, ADA, name, "k" * 32).join()
    ada.client.queue_message('"' * CHAT_TEXT_BYTES_MAX)
    ada.send_request()
    assert authenticator.protocol.statistics.messages == 1
    assert len(ada.sent[-1]) <= CHAT_DATAGRAM_BYTES_MAX
    assert max(map(len, ada.received)) <= CHAT_DATAGRAM_BYTES_MAX
    assert any('"' * 3 in data.decode("latin-1") or b'\\"' in data for data in ada.received)


@given(st.lists(st.integers(1, 200), max_size=200))
def test_the_replay_window_accepts_each_number_once_in_any_order(numbers: list[int]) -> None:
    window, counted, highest = ReplayWindow(), set(), 0
    for number in numbers:
        is_new = window.accept(number)
        assert is_new == (number not in counted and number > highest - authentication.REPLAY_WINDOW)
        counted |= {number} if is_new else set()
        highest = max(highest, number)


def test_the_replay_window_accepts_the_highest_number() -> None:
    window = ReplayWindow()
    assert [window.accept(n) for n in (1, 2**64 - 1, 2**64 - 1, 1)] == [True, True, False, False]


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.4))
@settings(max_examples=20, deadline=None)
def test_with_losses_and_replays_each_message_is_displayed_once(seed: int, loss: float) -> None:
    network = MemoryNetwork(seed, loss, ["ada", "bob"], SECRET)
    clients = network.clients.values()
    network.run_until(
        lambda: all(client.is_joined for client in clients) and len(network.server.members) == 2
    )
    for client in clients:
        for i in range(5):
            client.queue_message(f"{client.name} {i}")

    def replay_until_displayed() -> bool:
        count = min(3, len(network.recorded))
        for data, peer, is_request in network.random.sample(network.recorded, count):
            address = network.random.choice([peer, ADA, EVE])
            network.in_flight.append((data, address, is_request))
        return all(len(network.messages(name)) >= 10 for name in network.events)

    network.run_until(replay_until_displayed)
    expected = sorted(f"{each} {i}" for each in ("ada", "bob") for i in range(5))
    assert all(sorted(network.messages(name)) == expected for name in network.events)
    assert set(network.server.members) == set(network.clients)


@given(st.binary(max_size=200).map(lambda data: b"FNK1" + data) | st.binary(max_size=200))
def test_random_bytes_are_not_authentic(data: bytes) -> None:
    assert ClientAuthenticator("us", SECRET).verify(data) is None


def test_the_document_has_a_vector_of_each_kind(authenticator: ServerAuthenticator) -> None:
    client = ClientAuthenticator("alice", SECRET)
    client.nonce, servers = bytes(range(16, 32)), bytes(range(32, 48))
    client._hello_key = client._key = derive_session_key(
        SECRET, "alice", client.nonce, authentication.NO_NONCE
    )
    hello = client.authenticate(b"")
    data = (
        authentication.SERVER_HEADER.pack(b"FNK1", authentication.CHALLENGE, client.nonce, 1)
        + servers
    )
    challenge = data + mac(client._key, data)
    assert client.verify(challenge) == b""
    said = client.authenticate(wire.PREFIX + b'{"type":"who","cookie":"00"}')
    text = (ROOT / "docs" / "chat.md").read_text().replace("\n", "")
    for vector in (hello, challenge, said):
        assert vector.hex() in text
