"""The hall of a chat: the textbook protocol to the letter, names, rooms, and how little the
unproven get.
"""

from __future__ import annotations

import pytest

from fastnet.apps.chat import server_protocol as hall_module
from fastnet.apps.chat import wire
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.apps.chat.server_protocol import Hall
from fastnet.limits import (
    CHAT_BURST,
    CHAT_HINTS,
    CHAT_HISTORY,
    CHAT_SILENT_S,
    CHAT_TEXTBOOK_SILENT_S,
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
def hall(clock: Clock) -> Hall:
    return Hall(AccessList.parse(["127.0.0.0/8"]), 5.0, clock)


def online(hall: Hall, *peers: Peer) -> None:
    for peer in peers:
        hall.receive_datagram(b"online", peer)


def join(hall: Hall, talking: Talking, peer: Peer) -> list[tuple[bytes, Peer]]:
    """Until it is in. Returns what everybody else got."""
    others: list[tuple[bytes, Peer]] = []
    for _ in range(4):
        if not talking.is_in:
            for data, to in hall.receive_datagram(talking.next(), peer):
                if to == peer:
                    talking.receive_datagram(data)
                else:
                    others.append((data, to))
    assert talking.is_in
    return others


# The textbook


def test_everybody_online_gets_each_message_the_sender_included_once(hall: Hall) -> None:
    online(hall, ADA, BOB)
    expected = b"127.0.0.1--4001#hello"
    assert sorted(hall.receive_datagram(b"hello", ADA)) == [(expected, ADA), (expected, BOB)]


def test_who_is_not_online_gets_the_hint_and_nobody_the_message(hall: Hall) -> None:
    online(hall, ADA)
    assert hall.receive_datagram(b"hello", BOB) == [(HINT, BOB)]


def test_going_online_and_offline_is_told(hall: Hall) -> None:
    online(hall, ADA)
    assert hall.receive_datagram(b"online", BOB) == [
        (b"127.0.0.1--4002#online", ADA),
        (b"127.0.0.1--4002#online", BOB),
    ]
    assert hall.receive_datagram(b"offline", BOB) == [
        (b"127.0.0.1--4002#offline", ADA),
        (HINT, BOB),
    ]
    assert hall.receive_datagram(b"hello", BOB) == [(HINT, BOB)]
    assert hall.receive_datagram(b"alone", ADA) == [(b"127.0.0.1--4001#alone", ADA)]


def test_online_twice_is_online_once(hall: Hall) -> None:
    online(hall, ADA, BOB)
    assert hall.receive_datagram(b"online", ADA) == [(b"127.0.0.1--4001#online", ADA)]
    assert len(hall.receive_datagram(b"hello", ADA)) == 2


@pytest.mark.parametrize("data", [b"online\0\0\0\0rest", b"online\n", b"online\r\n", b"online\n\0"])
def test_padding_and_a_newline_end_the_text(hall: Hall, data: bytes) -> None:
    hall.receive_datagram(data, ADA)
    assert hall.receive_datagram(b"x\0y", ADA) == [(b"127.0.0.1--4001#x", ADA)]


@pytest.mark.parametrize(
    ("said", "shown"),
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
def test_nothing_a_terminal_would_obey_is_passed_on(hall: Hall, said: bytes, shown: str) -> None:
    online(hall, ADA)
    assert hall.receive_datagram(said, ADA) == [(f"127.0.0.1--4001#{shown}".encode(), ADA)]


def test_an_empty_datagram_is_nothing(hall: Hall) -> None:
    online(hall, ADA)
    assert [hall.receive_datagram(data, ADA) for data in (b"", b"\0\0", b"\n")] == [[], [], []]


def test_a_message_that_is_too_long_is_refused_not_cut(hall: Hall) -> None:
    online(hall, ADA, BOB)
    assert hall.receive_datagram(b"x" * 449, ADA) == [
        (b"not sent: too long, at most 448 bytes", ADA)
    ]
    assert len(hall.receive_datagram(b"x" * 448, ADA)) == 2


def test_a_flood_of_one_member_is_stopped_and_told_once_and_others_go_on(
    hall: Hall, clock: Clock
) -> None:
    online(hall, ADA, BOB)
    replies = [hall.receive_datagram(b"spam", ADA) for _ in range(100)]
    assert sum(len(each) == 2 for each in replies) == CHAT_BURST
    assert [each for each in replies[CHAT_BURST:] if each] == [[(wire.TOO_FAST.encode(), ADA)]]
    assert len(hall.receive_datagram(b"hello", BOB)) == 2
    clock.now_s += 1
    assert sum(len(hall.receive_datagram(b"again", ADA)) == 2 for _ in range(20)) == 5


def test_a_silent_member_is_offline_after_a_while(hall: Hall, clock: Clock) -> None:
    online(hall, ADA)
    clock.now_s += CHAT_TEXTBOOK_SILENT_S - 1
    online(hall, BOB)
    assert hall.handle_timer() == []
    clock.now_s = hall.timers()[0]
    assert hall.handle_timer() == [(b"127.0.0.1--4001#offline", BOB)]


def test_where_nobody_listens_any_more_nobody_is_online(hall: Hall) -> None:
    online(hall, ADA, BOB)
    assert hall.nobody_at(ADA) == [(b"127.0.0.1--4001#offline", BOB)]
    assert hall.nobody_at(EVE) == []


# What must not become a weapon


def test_an_unproven_address_gets_no_more_than_512_bytes_for_each_datagram(hall: Hall) -> None:
    online(hall, ADA)
    got = sum(len(data) for data, to in hall.receive_datagram(b"online", FAR) if to == FAR)
    for _ in range(15):
        got += sum(len(data) for data, to in hall.receive_datagram(b"x" * 400, ADA) if to == FAR)
    assert 0 < got <= UNVALIDATED_REPLY_BYTES_MAX
    assert hall.statistics.amplification_blocked > 0
    got = sum(len(data) for data, to in hall.receive_datagram(b"online", FAR) if to == FAR)
    got += sum(len(data) for data, to in hall.receive_datagram(b"x" * 400, ADA) if to == FAR)
    assert 400 < got <= UNVALIDATED_REPLY_BYTES_MAX


def test_no_first_answer_is_longer_than_512_bytes(hall: Hall) -> None:
    for data in (
        b"x",
        b"online",
        b"x" * 1000,
        wire.pack({"do": "join", "name": "a", "cookie": "", "said": 0}),
    ):
        assert all(
            len(reply) <= UNVALIDATED_REPLY_BYTES_MAX
            for reply, _ in hall.receive_datagram(data, FAR)
        )


def test_a_full_hall_makes_room_for_the_proven_only(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hall_module, "CHAT_MEMBERS_MAX", 2)
    online(hall, ADA, FAR)
    assert hall.receive_datagram(b"online", ("198.51.100.8", 1)) == [
        (wire.FULL.encode(), ("198.51.100.8", 1))
    ]
    online(hall, BOB)
    assert set(hall.members) == {ADA, BOB}
    assert hall.receive_datagram(b"online", EVE) == [(wire.FULL.encode(), EVE)]


@pytest.mark.parametrize(
    "text", [*wire.SERVER_SAYS, "127.0.0.1--4001#hello", "::1--9#x", "fe80::1%eth0--9#x"]
)
@pytest.mark.parametrize("is_member", [True, False])
def test_what_a_server_says_is_neither_answered_nor_passed_on(
    hall: Hall, text: str, is_member: bool
) -> None:
    online(hall, ADA, *([BOB] if is_member else []))
    assert hall.receive_datagram(text.encode(), BOB) == []


def test_hints_are_bounded(hall: Hall) -> None:
    answered = sum(
        len(hall.receive_datagram(b"hello?", ("127.0.0.1", 5000 + i))) for i in range(500)
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
        b'{"do":1}',
        b'{"do":"say"}',
        b"[" * 1200,
        b"\xff",
        b'{"do":"fly","cookie":""}' + b"x" * 1300,
    ],
)
def test_junk_after_the_mark_is_counted_and_not_answered(hall: Hall, data: bytes) -> None:
    assert hall.receive_datagram(wire.MARK + data, FAR) == []
    assert hall.statistics.junk == 1


# chat/1


def test_nobody_is_in_without_a_cookie_of_the_own_address(hall: Hall) -> None:
    talking = Talking("ada")
    ((challenge, _),) = hall.receive_datagram(talking.next(), ADA)
    talking.receive_datagram(challenge)
    stolen = talking.next()
    ((reply, to),) = hall.receive_datagram(stolen, FAR)
    assert (b"challenge" in reply, to) == (True, FAR)
    assert not hall.members


def test_a_name_is_one_members_and_no_other_spelling_passes_for_it(hall: Hall) -> None:
    join(hall, Talking("Straße"), ADA)
    for name in ("straße", "STRASSE", "Straße"):
        second = Talking(name)
        second.receive_datagram(hall.receive_datagram(second.next(), BOB)[0][0])
        ((reply, _),) = hall.receive_datagram(second.next(), BOB)
        assert "somebody is Straße already" in reply.decode()


@pytest.mark.parametrize(
    "name", ["", "a b", "a#b", "1--2", "x" * 25, "_", "a\x1b", "\u202ea", "a\n"]
)
def test_names_that_could_deceive_are_none(name: str) -> None:
    with pytest.raises(wire.ChatError):
        Talking(name)


def test_textbook_and_named_members_hear_each_other(hall: Hall) -> None:
    ada = Talking("ada")
    online(hall, BOB)
    assert join(hall, ada, ADA) == [(b"127.0.0.1--4001#online", BOB)]
    events = [
        ada.receive_datagram(data) for data, to in hall.receive_datagram(b"hi", BOB) if to == ADA
    ]
    assert events == [[Event("said", "127.0.0.1--4002", "hi")]]
    ada.say("hello")
    assert (b"127.0.0.1--4001#hello", BOB) in hall.receive_datagram(ada.next(), ADA)


def test_a_text_from_the_address_of_a_named_member_is_not_the_members(hall: Hall) -> None:
    join(hall, Talking("ada"), ADA)
    online(hall, BOB)
    assert hall.receive_datagram(b"I am ada", ADA) == []
    assert hall.receive_datagram(b"offline", ADA) == []
    assert ADA in hall.members


def test_rooms_do_not_hear_each_other_and_remember_what_was_said(hall: Hall) -> None:
    ada, bob = Talking("ada", "ops"), Talking("bob", "ops")
    join(hall, ada, ADA)
    online(hall, EVE)
    for i in range(CHAT_BURST):
        ada.say(f"message {i}")
        for data, to in hall.receive_datagram(ada.next(), ADA):
            assert to == ADA
            ada.receive_datagram(data)
    join(hall, bob, BOB)
    assert len(hall.members[BOB].unread) == CHAT_BURST + 1
    assert len(hall.earlier["ops"]) <= CHAT_HISTORY
    carol = Talking("carol")
    join(hall, carol, ("127.0.0.1", 4009))
    assert len(hall.members[("127.0.0.1", 4009)].unread) == 1  # only that she came


def test_what_is_remembered_is_bounded(
    hall: Hall, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hall_module, "CHAT_ROOMS_MAX", 3)
    online(hall, ADA)
    for i in range(CHAT_HISTORY + 10):
        clock.now_s += 1
        hall.receive_datagram(f"{i}".encode(), ADA)
    assert [text for _, text in hall.earlier[""]] == [str(i) for i in range(10, CHAT_HISTORY + 10)]
    for i in range(5):
        talking = Talking(f"m{i}", f"room{i}")
        join(hall, talking, ("127.0.0.1", 5000 + i))
        talking.say("x")
        hall.receive_datagram(talking.next(), ("127.0.0.1", 5000 + i))
    assert list(hall.earlier) == ["room2", "room3", "room4"]


def test_a_member_that_takes_nothing_is_gone_and_its_name_is_free(hall: Hall, clock: Clock) -> None:
    join(hall, Talking("ada"), ADA)
    online(hall, BOB)
    for _ in range(hall_module.CHAT_UNREAD_MAX + 1):
        clock.now_s += 0.2
        hall.members[ADA].heard_s = clock.now_s
        hall.receive_datagram(b"x", BOB)
    hall.handle_timer()
    assert ADA not in hall.members
    join(hall, Talking("ada"), EVE)


def test_a_member_that_is_not_heard_is_gone(hall: Hall, clock: Clock) -> None:
    join(hall, Talking("ada"), ADA)
    clock.now_s += CHAT_SILENT_S
    hall.handle_timer()
    assert not hall.members
    assert not hall.names


def test_a_forged_sign_of_life_does_not_keep_anybody(hall: Hall, clock: Clock) -> None:
    join(hall, Talking("ada"), ADA)
    clock.now_s += CHAT_SILENT_S
    hall.receive_datagram(wire.pack({"do": "here", "cookie": "0" * 24, "got": 0}), ADA)
    hall.handle_timer()
    assert not hall.members
