"""Halls joined by a backplane: everything is heard once, everybody knows who is online, and one
name is one member's.
"""

from __future__ import annotations

import json

import pytest

from fastnet.apps.chat import federation as elsewhere_module
from fastnet.apps.chat.backplane.contract import BACK, HERE, SAID
from fastnet.apps.chat.backplane.memory import Memory
from fastnet.apps.chat.client_protocol import Event, Talking
from fastnet.apps.chat.federation import Elsewhere
from fastnet.apps.chat.server_protocol import Hall
from fastnet.limits import (
    CHAT_CATCH_UP_S,
    CHAT_HERE_S,
    CHAT_HISTORY,
    CHAT_SERVER_SILENT_S,
    CHAT_TURN_ENTRIES,
    CHAT_UNREAD_MAX,
)
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer

ADA, BOB, EVE = ("127.0.0.1", 4001), ("127.0.0.1", 4002), ("127.0.0.1", 4003)


class Server:
    """A hall on a bus, and its members as its clients see it."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.hall = Hall(AccessList.parse(["127.0.0.0/8"]), 1e9, lambda: city.now_s)
        self.end = Memory("memory", city.bus)
        self.elsewhere = Elsewhere(self.hall, self.end, lambda: city.now_s)
        self.elsewhere.start()
        self.members: dict[Peer, Talking] = {}
        self.seen: dict[Peer, list[Event]] = {}
        self.texts: dict[Peer, list[bytes]] = {}
        city.servers.append(self)

    def join(self, name: str, peer: Peer, room: str = "") -> Talking:
        talking = self.members[peer] = Talking(name, room)
        self.seen[peer] = []
        self.city.settle()
        return talking

    def online(self, peer: Peer) -> None:
        self.texts[peer] = []
        self.text(b"online", peer)

    def text(self, data: bytes, peer: Peer) -> None:
        self.deliver(self.hall.receive_datagram(data, peer))
        self.city.settle()

    def handle_timer(self) -> None:
        self.deliver([*self.elsewhere.handle_timer(), *self.hall.handle_timer()])
        for peer, talking in self.members.items():
            if talking.is_due:
                self.deliver(self.hall.receive_datagram(talking.next(), peer))

    def deliver(self, sent: list[tuple[bytes, Peer]]) -> None:
        for data, peer in sent:
            if peer in self.texts:
                self.texts[peer].append(data)
            elif talking := self.members.get(peer):
                got = talking.got
                self.seen[peer] += talking.receive_datagram(data) or []
                if talking.got != got:
                    self.deliver(self.hall.receive_datagram(talking.acknowledgement(), peer))

    def said(self, peer: Peer) -> list[str]:
        return [f"{event.who}: {event.text}" for event in self.seen[peer] if event.kind == "said"]

    def kinds(self, peer: Peer, who: str) -> list[str]:
        return [
            event.kind
            for event in self.seen[peer]
            if event.who == who and event.kind in ("came", "went")
        ]


class City:
    """Servers on one bus, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.bus: list[Memory] = []
        self.servers: list[Server] = []

    def settle(self) -> None:
        for _ in range(6):
            self.now_s += 0.001
            for server in self.servers:
                server.handle_timer()

    def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        for _ in range(int(seconds / step_s)):
            self.now_s += step_s
            for server in self.servers:
                for talking in server.members.values():
                    talking.is_due = True
            self.settle()


@pytest.fixture
def city() -> City:
    return City()


def test_members_of_one_room_at_two_servers_see_each_message_once(city: City) -> None:
    a, b = Server(city), Server(city)
    ada, bob, eve = a.join("ada", ADA, "ops"), b.join("bob", BOB, "ops"), b.join("eve", EVE)
    ada.say("one")
    bob.say("two")
    eve.say("elsewhere")
    city.pass_time(20)
    assert sorted(a.said(ADA)) == sorted(b.said(BOB)) == ["ada: one", "bob: two"]
    assert b.said(EVE) == ["eve: elsewhere"]


def test_who_is_online_is_known_everywhere(city: City) -> None:
    a, b = Server(city), Server(city)
    ada, bob = a.join("ada", ADA), b.join("bob", BOB)
    assert a.kinds(ADA, "bob") == ["came"]
    ada.asks_who = ada.is_due = True
    city.settle()
    (who,) = [event for event in a.seen[ADA] if event.kind == "who"]
    assert (who.online, who.names) == (2, ("ada", "bob"))
    bob.is_leaving = bob.is_due = True
    city.settle()
    assert a.kinds(ADA, "bob") == ["came", "went"]
    assert b.kinds(BOB, "ada") == []  # she was there first, which he was told by the welcome
    (joined,) = [event for event in b.seen[BOB] if event.kind == "joined"]
    assert joined.online == 2


def test_textbook_programs_at_two_servers_hear_each_other_with_their_addresses(city: City) -> None:
    a, b = Server(city), Server(city)
    a.online(ADA)
    b.online(BOB)
    a.text(b"hi", ADA)
    assert b.texts[BOB] == [b"127.0.0.1--4002#online", b"127.0.0.1--4001#hi"]
    assert a.texts[ADA] == [
        b"127.0.0.1--4001#online",
        b"127.0.0.1--4002#online",
        b"127.0.0.1--4001#hi",
    ]


def test_what_was_said_is_told_to_who_comes_to_another_server_and_to_one_that_starts_later(
    city: City,
) -> None:
    a, b = Server(city), Server(city)
    ada = a.join("ada", ADA, "ops")
    for i in range(CHAT_HISTORY + 10):
        ada.say(f"{i}")
        city.settle()
    late = Server(city)
    for server, peer in ((b, BOB), (late, EVE)):
        server.join(f"x{peer[1]}", peer, "ops")
        city.pass_time(3)
        earlier = [event.text for event in server.seen[peer] if event.kind == "earlier"]
        assert earlier == [f"{i}" for i in range(10, CHAT_HISTORY + 10)]


def test_that_somebody_came_is_told_before_what_they_say(city: City) -> None:
    a, b = Server(city), Server(city)
    b.join("bob", BOB)
    talking = Talking("ada")
    a.members[ADA], a.seen[ADA] = talking, []
    talking.say("quick")
    while talking.waiting:
        a.deliver(a.hall.receive_datagram(talking.next(), ADA))
    city.settle()
    assert [(event.kind, event.who) for event in b.seen[BOB]][-2:] == [
        ("came", "ada"),
        ("said", "ada"),
    ]


def test_a_name_that_is_held_at_another_server_is_refused(city: City) -> None:
    a, b = Server(city), Server(city)
    a.join("ada", ADA)
    second = b.join("ADA", BOB)
    assert [(event.kind, event.text) for event in b.seen[BOB]][:1] == [
        ("refused", "somebody is ada already")
    ]
    assert not second.is_in


def test_of_two_who_take_one_name_at_the_same_moment_the_later_one_goes(city: City) -> None:
    a, b = Server(city), Server(city)
    eve = b.join("eve", EVE)
    for server, peer in ((a, ADA), (b, BOB)):  # neither has heard of the other
        talking = server.members[peer] = Talking("ada")
        server.seen[peer] = []
        while not talking.is_in:
            server.deliver(server.hall.receive_datagram(talking.next(), peer))
    city.settle()
    assert (ADA in a.hall.members, BOB in b.hall.members) == (True, False)
    city.pass_time(15)
    assert ("refused", "somebody is ada already") in [
        (event.kind, event.text) for event in b.seen[BOB]
    ]
    eve.say("still here")
    city.settle()
    assert a.said(ADA)[-1:] == ["eve: still here"]


def test_a_server_that_falls_silent_takes_its_members_offline_and_brings_them_back(
    city: City,
) -> None:
    a, b = Server(city), Server(city)
    a.join("ada", ADA)
    b.join("bob", BOB)
    city.bus.remove(b.end)
    b.end.bus = []
    city.pass_time(CHAT_SERVER_SILENT_S + CHAT_HERE_S)
    assert a.kinds(ADA, "bob") == ["came", "went"]
    city.bus.append(b.end)
    b.end.bus = city.bus
    b.end.arrived.append((BACK, ""))
    city.settle()
    assert a.kinds(ADA, "bob") == ["came", "went", "came"]


def test_a_server_that_ends_takes_its_members_offline_at_once(city: City) -> None:
    a, b = Server(city), Server(city)
    a.join("ada", ADA)
    b.join("bob", BOB)
    city.servers.remove(b)
    b.elsewhere.close()
    city.settle()
    assert a.kinds(ADA, "bob") == ["came", "went"]
    assert not a.elsewhere.heard_s


def test_who_is_at_another_server_before_its_own_is_missed_never_goes(city: City) -> None:
    a, b, c = Server(city), Server(city), Server(city)
    a.join("ada", ADA)
    b.join("bob", BOB)
    city.servers.remove(b)  # killed
    city.bus.remove(b.end)
    c.hall.away.clear()
    c.join("bob", BOB)
    city.pass_time(2 * CHAT_SERVER_SILENT_S)
    assert a.kinds(ADA, "bob") == ["came"]


def test_an_entry_that_comes_twice_late_or_home_is_heard_once(city: City) -> None:
    a, b = Server(city), Server(city)
    a.join("ada", ADA)
    b.join("bob", BOB)
    recorded: list[tuple[str, str]] = []
    take = b.end.take

    def taking(most: int) -> list[tuple[str, str]]:
        found = take(most)
        recorded.extend(found)
        return found

    b.end.take = taking  # type: ignore[method-assign]
    a.members[ADA].say("once")
    city.settle()
    for end in (a.end, b.end):
        end.arrived.extend([*recorded, *reversed(recorded)])
    city.pass_time(2)
    assert a.said(ADA) == b.said(BOB) == ["ada: once"]
    assert a.hall.statistics.junk == b.hall.statistics.junk == 0


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"server":"x"}',
        '{"server":"x","number":-1}',
        '{"server":"x","number":1}',
        '{"server":"x","number":1,"members":[1]}',
        '{"server":"x","number":1,"members":[["a","h",1,"a b",1]]}',
        '{"server":"x","number":1,"members":[["a","h",70000,"",1]]}',
        '{"server":"x","number":1,"members":[["","h",1,"",1]]}',
        '{"server":"x","number":1,"at":["h",1],"who":"a","room":"","text":""}',
        '{"server":"x","number":1,"at":["h",1],"who":"a","room":"","text":7}',
        '{"server":"x","number":1,"at":["h"],"who":"a","room":"","text":"t"}',
        json.dumps(
            {"server": "x", "number": 1, "at": ["h", 1], "who": "a", "room": "", "text": "x" * 449}
        ),
    ],
)
def test_what_makes_no_sense_on_the_backplane_is_counted_and_shown_to_nobody(
    city: City, entry: str
) -> None:
    a = Server(city)
    a.join("ada", ADA)
    before = list(a.seen[ADA])
    a.end.arrived.extend([(SAID, entry), (HERE, entry)])
    city.settle()
    assert a.hall.statistics.junk >= 1
    assert a.seen[ADA] == before


def test_nothing_a_terminal_would_obey_comes_from_the_backplane(city: City) -> None:
    a = Server(city)
    a.join("ada", ADA)
    entry = {
        "server": "x",
        "number": 1,
        "at": ["h", 1],
        "who": "e\x1bve",
        "room": "",
        "text": "\x1b[2J",
    }
    a.end.arrived.append((SAID, json.dumps(entry)))
    city.settle()
    assert a.said(ADA) == ["e\ufffdve: \ufffd[2J"]


def test_what_was_missed_comes_no_faster_than_the_members_take_it(city: City) -> None:
    a = Server(city)
    a.join("ada", ADA)
    for i in range(5 * CHAT_UNREAD_MAX):
        entry = {
            "server": "x",
            "number": i + 1,
            "at": ["h", 1],
            "who": "eve",
            "room": "",
            "text": f"{i}",
        }
        a.end.arrived.append((SAID, json.dumps(entry)))
    a.members.clear()  # she takes nothing
    a.handle_timer()
    a.handle_timer()
    a.handle_timer()
    unread = len(a.hall.members[ADA].unread)
    assert CHAT_UNREAD_MAX // 2 <= unread <= CHAT_UNREAD_MAX // 2 + CHAT_TURN_ENTRIES
    assert a.elsewhere.fd == -1
    a.handle_timer()
    assert len(a.hall.members[ADA].unread) == unread
    city.now_s += CHAT_CATCH_UP_S
    for _ in range(30):
        a.handle_timer()
    assert ADA not in a.hall.members
    assert not a.end.arrived


def test_servers_of_earlier_runs_are_forgotten(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere_module, "CHAT_SERVERS_MAX", 5)
    a = Server(city)
    for i in range(100):
        entry = {"server": f"s{i}", "number": 1, "members": [[f"m{i}", "h", 1, "", 1]]}
        a.end.arrived.append((HERE, json.dumps(entry)))
    city.settle()
    assert len(a.elsewhere._newest) <= 10
    assert len(a.hall.away) <= 5
