"""Server protocol of the chat: textbook protocol, names, rooms, and address validation."""

from __future__ import annotations

import pytest

from fastnet.apps.chat import members, server_protocol, wire
from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent
from fastnet.apps.chat.server_protocol import ChatServerProtocol
from fastnet.limits import (
    CHAT_BURST,
    CHAT_HINTS,
    CHAT_HISTORY,
    CHAT_IDLE_TIMEOUT_S,
    CHAT_TEXTBOOK_IDLE_TIMEOUT_S,
    CHAT_UNACKNOWLEDGED_MAX,
    UNVALIDATED_REPLY_BYTES_MAX,
)
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer
from tests.support.chat import Clock

ADA, BOB, EVE = ("127.0.0.1", 4001), ("127.0.0.1", 4002), ("127.0.0.1", 4003)
FAR: Peer = ("198.51.100.7", 4000)
HINT = wire.HINT.encode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> ChatServerProtocol:
    return ChatServerProtocol(AccessList.parse(["127.0.0.0/8"]), 5.0, clock)


def online(server: ChatServerProtocol, *peers: Peer) -> None:
    for peer in peers:
        server.receive_datagram(b"online", peer)


def join(
    server: ChatServerProtocol, client: ChatClientProtocol, peer: Peer
) -> list[tuple[bytes, Peer]]:
    """Join. Returns the datagrams for others."""
    others: list[tuple[bytes, Peer]] = []
    for _ in range(4):
        if not client.is_joined:
            for data, to in server.receive_datagram(client.next_request(), peer):
                if to == peer:
                    client.receive_datagram(data)
                else:
                    others.append((data, to))
    assert client.is_joined
    return others


# The textbook protocol


def test_each_member_receives_each_message_once_sender_included(
    server: ChatServerProtocol,
) -> None:
    online(server, ADA, BOB)
    expected = b"127.0.0.1--4001#hello"
    assert sorted(server.receive_datagram(b"hello", ADA)) == [(expected, ADA), (expected, BOB)]


def test_a_message_from_outside_is_answered_with_the_hint_only(server: ChatServerProtocol) -> None:
    online(server, ADA)
    assert server.receive_datagram(b"hello", BOB) == [(HINT, BOB)]


def test_joining_and_leaving_are_announced(server: ChatServerProtocol) -> None:
    online(server, ADA)
    assert server.receive_datagram(b"online", BOB) == [
        (b"127.0.0.1--4002#online", ADA),
        (b"127.0.0.1--4002#online", BOB),
    ]
    assert server.receive_datagram(b"offline", BOB) == [
        (b"127.0.0.1--4002#offline", ADA),
        (HINT, BOB),
    ]
    assert server.receive_datagram(b"hello", BOB) == [(HINT, BOB)]
    assert server.receive_datagram(b"alone", ADA) == [(b"127.0.0.1--4001#alone", ADA)]


def test_online_twice_is_one_membership(server: ChatServerProtocol) -> None:
    online(server, ADA, BOB)
    assert server.receive_datagram(b"online", ADA) == [(b"127.0.0.1--4001#online", ADA)]
    assert len(server.receive_datagram(b"hello", ADA)) == 2


@pytest.mark.parametrize("data", [b"online\0\0\0\0rest", b"online\n", b"online\r\n", b"online\n\0"])
def test_padding_and_a_newline_end_the_text(server: ChatServerProtocol, data: bytes) -> None:
    server.receive_datagram(data, ADA)
    assert server.receive_datagram(b"x\0y", ADA) == [(b"127.0.0.1--4001#x", ADA)]


@pytest.mark.parametrize(
    ("sent", "displayed"),
    [
        (b"a\x1b[2Jb\x07", "a\ufffd[2Jb\ufffd"),
        (b"a\nb\tc", "a b c"),
        ("a\u202eb".encode(), "a\ufffdb"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("日本 👩‍👩‍👧".encode(), "日本 👩‍👩‍👧"),
        (b"\x9b2J", "\ufffd2J"),
        ("\x9b2J".encode(), "\ufffd2J"),
    ],
    ids=["escape", "lines", "bidi", "not UTF-8", "emoji", "raw CSI", "C1 CSI"],
)
def test_control_characters_are_not_distributed(
    server: ChatServerProtocol, sent: bytes, displayed: str
) -> None:
    online(server, ADA)
    assert server.receive_datagram(sent, ADA) == [(f"127.0.0.1--4001#{displayed}".encode(), ADA)]


def test_an_empty_datagram_has_no_reply(server: ChatServerProtocol) -> None:
    online(server, ADA)
    assert [server.receive_datagram(data, ADA) for data in (b"", b"\0\0", b"\n")] == [[], [], []]


def test_a_message_that_is_too_long_is_refused_not_cut(server: ChatServerProtocol) -> None:
    online(server, ADA, BOB)
    assert server.receive_datagram(b"x" * 449, ADA) == [
        (b"not sent: too long, at most 448 bytes", ADA)
    ]
    assert len(server.receive_datagram(b"x" * 448, ADA)) == 2


def test_a_rate_limited_member_has_one_notice_and_others_are_not_limited(
    server: ChatServerProtocol, clock: Clock
) -> None:
    online(server, ADA, BOB)
    replies = [server.receive_datagram(b"spam", ADA) for _ in range(100)]
    assert sum(len(each) == 2 for each in replies) == CHAT_BURST
    assert [each for each in replies[CHAT_BURST:] if each] == [[(wire.TOO_FAST.encode(), ADA)]]
    assert len(server.receive_datagram(b"hello", BOB)) == 2
    clock.now_s += 1
    assert sum(len(server.receive_datagram(b"again", ADA)) == 2 for _ in range(20)) == 5


def test_a_textbook_member_is_offline_at_its_idle_timeout(
    server: ChatServerProtocol, clock: Clock
) -> None:
    online(server, ADA)
    clock.now_s += CHAT_TEXTBOOK_IDLE_TIMEOUT_S - 1
    online(server, BOB)
    assert server.handle_timer() == []
    clock.now_s = server.timers()[0]
    assert server.handle_timer() == [(b"127.0.0.1--4001#offline", BOB)]


def test_a_member_is_offline_when_its_port_is_unreachable(server: ChatServerProtocol) -> None:
    online(server, ADA, BOB)
    assert server.handle_port_unreachable(ADA) == [(b"127.0.0.1--4001#offline", BOB)]
    assert server.handle_port_unreachable(EVE) == []


# Abuse


def test_an_unvalidated_address_is_sent_512_bytes_for_each_datagram(
    server: ChatServerProtocol,
) -> None:
    online(server, ADA)
    got = sum(len(data) for data, to in server.receive_datagram(b"online", FAR) if to == FAR)
    for _ in range(15):
        got += sum(len(data) for data, to in server.receive_datagram(b"x" * 400, ADA) if to == FAR)
    assert 0 < got <= UNVALIDATED_REPLY_BYTES_MAX
    assert server.statistics.amplification_blocked > 0
    got = sum(len(data) for data, to in server.receive_datagram(b"online", FAR) if to == FAR)
    got += sum(len(data) for data, to in server.receive_datagram(b"x" * 400, ADA) if to == FAR)
    assert 400 < got <= UNVALIDATED_REPLY_BYTES_MAX


def test_no_first_reply_is_longer_than_512_bytes(server: ChatServerProtocol) -> None:
    for data in (
        b"x",
        b"online",
        b"x" * 1000,
        wire.pack({"type": "join", "name": "a", "cookie": "", "last_id": 0}),
    ):
        assert all(
            len(reply) <= UNVALIDATED_REPLY_BYTES_MAX
            for reply, _ in server.receive_datagram(data, FAR)
        )


def test_a_full_server_evicts_unvalidated_members_for_validated_ones(
    server: ChatServerProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_protocol, "CHAT_MEMBERS_MAX", 2)
    online(server, ADA, FAR)
    assert server.receive_datagram(b"online", ("198.51.100.8", 1)) == [
        (wire.FULL.encode(), ("198.51.100.8", 1))
    ]
    online(server, BOB)
    assert set(server.members) == {ADA, BOB}
    assert server.receive_datagram(b"online", EVE) == [(wire.FULL.encode(), EVE)]


@pytest.mark.parametrize(
    "text", [*wire.SERVER_TEXTS, "127.0.0.1--4001#hello", "::1--9#x", "fe80::1%eth0--9#x"]
)
@pytest.mark.parametrize("is_member", [True, False])
def test_texts_of_servers_are_neither_answered_nor_distributed(
    server: ChatServerProtocol, text: str, is_member: bool
) -> None:
    online(server, ADA, *([BOB] if is_member else []))
    assert server.receive_datagram(text.encode(), BOB) == []


def test_hints_are_rate_limited(server: ChatServerProtocol) -> None:
    answered = sum(
        len(server.receive_datagram(b"hello?", ("127.0.0.1", 5000 + i))) for i in range(500)
    )
    assert answered == CHAT_HINTS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"{}",
        b'{"type":1}',
        b'{"type":"say"}',
        b"[" * 1200,
        b"\xff",
        b'{"type":"fly","cookie":""}' + b"x" * 1300,
    ],
)
def test_a_malformed_request_is_counted_and_not_answered(
    server: ChatServerProtocol, data: bytes
) -> None:
    assert server.receive_datagram(wire.PREFIX + data, FAR) == []
    assert server.statistics.malformed == 1


# chat/1


def test_a_cookie_is_valid_for_its_own_address_only(server: ChatServerProtocol) -> None:
    client = ChatClientProtocol("ada")
    ((challenge, _),) = server.receive_datagram(client.next_request(), ADA)
    client.receive_datagram(challenge)
    stolen = client.next_request()
    ((reply, to),) = server.receive_datagram(stolen, FAR)
    assert (b"challenge" in reply, to) == (True, FAR)
    assert not server.members


def test_a_name_in_another_case_is_the_same_name(
    server: ChatServerProtocol,
) -> None:
    join(server, ChatClientProtocol("Straße"), ADA)
    for name in ("straße", "STRASSE", "Straße"):
        second = ChatClientProtocol(name)
        second.receive_datagram(server.receive_datagram(second.next_request(), BOB)[0][0])
        ((reply, _),) = server.receive_datagram(second.next_request(), BOB)
        assert "the name Straße is in use" in reply.decode()


@pytest.mark.parametrize(
    "name", ["", "a b", "a#b", "1--2", "x" * 25, "_", "a\x1b", "\u202ea", "a\n"]
)
def test_ambiguous_names_are_invalid(name: str) -> None:
    with pytest.raises(wire.ChatError):
        ChatClientProtocol(name)


def test_textbook_and_chat1_members_receive_each_others_messages(
    server: ChatServerProtocol,
) -> None:
    ada = ChatClientProtocol("ada")
    online(server, BOB)
    assert join(server, ada, ADA) == [(b"127.0.0.1--4001#online", BOB)]
    events = [
        ada.receive_datagram(data) for data, to in server.receive_datagram(b"hi", BOB) if to == ADA
    ]
    assert events == [[ChatEvent("message", "127.0.0.1--4002", "hi")]]
    ada.queue_message("hello")
    assert (b"127.0.0.1--4001#hello", BOB) in server.receive_datagram(ada.next_request(), ADA)


def test_a_text_from_the_address_of_a_chat1_member_is_ignored(
    server: ChatServerProtocol,
) -> None:
    join(server, ChatClientProtocol("ada"), ADA)
    online(server, BOB)
    assert server.receive_datagram(b"I am ada", ADA) == []
    assert server.receive_datagram(b"offline", ADA) == []
    assert ADA in server.members


def test_rooms_are_separate_and_keep_their_messages(
    server: ChatServerProtocol,
) -> None:
    ada, bob = ChatClientProtocol("ada", "ops"), ChatClientProtocol("bob", "ops")
    join(server, ada, ADA)
    online(server, EVE)
    for i in range(CHAT_BURST):
        ada.queue_message(f"message {i}")
        for data, to in server.receive_datagram(ada.next_request(), ADA):
            assert to == ADA
            ada.receive_datagram(data)
    join(server, bob, BOB)
    assert len(server.members[BOB].events) == CHAT_BURST + 1
    assert len(server.history.rooms["ops"]) <= CHAT_HISTORY
    carol = ChatClientProtocol("carol")
    join(server, carol, ("127.0.0.1", 4009))
    assert len(server.members[("127.0.0.1", 4009)].events) == 1  # her own join


def test_the_message_history_is_bounded(
    server: ChatServerProtocol, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "CHAT_ROOMS_MAX", 3)
    online(server, ADA)
    for i in range(CHAT_HISTORY + 10):
        clock.now_s += 1
        server.receive_datagram(f"{i}".encode(), ADA)
    assert [text for _, text in server.history.rooms[""]] == [
        str(i) for i in range(10, CHAT_HISTORY + 10)
    ]
    for i in range(5):
        client = ChatClientProtocol(f"m{i}", f"room{i}")
        join(server, client, ("127.0.0.1", 5000 + i))
        client.queue_message("x")
        server.receive_datagram(client.next_request(), ("127.0.0.1", 5000 + i))
    assert list(server.history.rooms) == ["room2", "room3", "room4"]


def test_a_member_that_acknowledges_nothing_is_disconnected(
    server: ChatServerProtocol, clock: Clock
) -> None:
    join(server, ChatClientProtocol("ada"), ADA)
    online(server, BOB)
    for _ in range(CHAT_UNACKNOWLEDGED_MAX + 1):
        clock.now_s += 0.2
        server.members[ADA].last_received_s = clock.now_s
        server.receive_datagram(b"x", BOB)
    server.handle_timer()
    assert ADA not in server.members
    join(server, ChatClientProtocol("ada"), EVE)


def test_a_chat1_member_is_offline_at_its_idle_timeout(
    server: ChatServerProtocol, clock: Clock
) -> None:
    join(server, ChatClientProtocol("ada"), ADA)
    clock.now_s += CHAT_IDLE_TIMEOUT_S
    server.handle_timer()
    assert not server.members
    assert not server.names


def test_a_forged_keepalive_does_not_extend_a_membership(
    server: ChatServerProtocol, clock: Clock
) -> None:
    join(server, ChatClientProtocol("ada"), ADA)
    clock.now_s += CHAT_IDLE_TIMEOUT_S
    server.receive_datagram(wire.pack({"type": "ack", "cookie": "0" * 24, "number": 0}), ADA)
    server.handle_timer()
    assert not server.members
