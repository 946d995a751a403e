"""Federation of chat servers on one backplane: messages, presence, name conflicts."""

from __future__ import annotations

import json

import pytest

from fastnet.apps.chat import federation
from fastnet.apps.chat.backplane.contract import MESSAGE, PRESENCE, RECONNECTED
from fastnet.apps.chat.backplane.memory import Memory
from fastnet.apps.chat.client_protocol import ChatClientProtocol, ChatEvent
from fastnet.apps.chat.federation import Federation
from fastnet.apps.chat.server_protocol import ChatServerProtocol
from fastnet.limits import (
    CHAT_BACKPLANE_BATCH,
    CHAT_CATCH_UP_S,
    CHAT_HISTORY,
    CHAT_PRESENCE_S,
    CHAT_SERVER_TIMEOUT_S,
    CHAT_UNACKNOWLEDGED_MAX,
)
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer

ADA, BOB, EVE = ("127.0.0.1", 4001), ("127.0.0.1", 4002), ("127.0.0.1", 4003)


class Server:
    """A server on a bus, and its clients with the events that they display."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.protocol = ChatServerProtocol(
            AccessList.parse(["127.0.0.0/8"]), 1e9, lambda: cluster.now_s
        )
        self.backplane = Memory("memory", cluster.bus)
        self.federation = Federation(self.protocol, self.backplane, lambda: cluster.now_s)
        self.federation.start()
        self.members: dict[Peer, ChatClientProtocol] = {}
        self.seen: dict[Peer, list[ChatEvent]] = {}
        self.texts: dict[Peer, list[bytes]] = {}
        cluster.servers.append(self)

    def join(self, name: str, peer: Peer, room: str = "") -> ChatClientProtocol:
        client = self.members[peer] = ChatClientProtocol(name, room)
        self.seen[peer] = []
        self.cluster.exchange()
        return client

    def online(self, peer: Peer) -> None:
        self.texts[peer] = []
        self.text(b"online", peer)

    def text(self, data: bytes, peer: Peer) -> None:
        self.deliver(self.protocol.receive_datagram(data, peer))
        self.cluster.exchange()

    def handle_timer(self) -> None:
        self.deliver([*self.federation.handle_timer(), *self.protocol.handle_timer()])
        for peer, client in self.members.items():
            if client.is_request_due:
                self.deliver(self.protocol.receive_datagram(client.next_request(), peer))

    def deliver(self, sent: list[tuple[bytes, Peer]]) -> None:
        for data, peer in sent:
            if peer in self.texts:
                self.texts[peer].append(data)
            elif client := self.members.get(peer):
                got = client.last_event
                self.seen[peer] += client.receive_datagram(data) or []
                if client.last_event != got:
                    self.deliver(self.protocol.receive_datagram(client.acknowledgement(), peer))

    def messages(self, peer: Peer) -> list[str]:
        return [
            f"{event.sender}: {event.text}" for event in self.seen[peer] if event.kind == "message"
        ]

    def kinds(self, peer: Peer, who: str) -> list[str]:
        return [
            event.kind
            for event in self.seen[peer]
            if event.sender == who and event.kind in ("joined", "left")
        ]


class Cluster:
    """Servers on one bus, and their clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.bus: list[Memory] = []
        self.servers: list[Server] = []

    def exchange(self) -> None:
        for _ in range(6):
            self.now_s += 0.001
            for server in self.servers:
                server.handle_timer()

    def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        for _ in range(int(seconds / step_s)):
            self.now_s += step_s
            for server in self.servers:
                for client in server.members.values():
                    client.is_request_due = True
            self.exchange()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_members_at_two_servers_receive_each_message_once(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    ada, bob, eve = a.join("ada", ADA, "ops"), b.join("bob", BOB, "ops"), b.join("eve", EVE)
    ada.queue_message("one")
    bob.queue_message("two")
    eve.queue_message("elsewhere")
    cluster.pass_time(20)
    assert sorted(a.messages(ADA)) == sorted(b.messages(BOB)) == ["ada: one", "bob: two"]
    assert b.messages(EVE) == ["eve: elsewhere"]


def test_presence_is_known_at_all_servers(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    ada, bob = a.join("ada", ADA), b.join("bob", BOB)
    assert a.kinds(ADA, "bob") == ["joined"]
    ada.request_who()
    cluster.exchange()
    (who,) = [event for event in a.seen[ADA] if event.kind == "who"]
    assert (who.online, who.names) == (2, ("ada", "bob"))
    bob.leave()
    cluster.exchange()
    assert a.kinds(ADA, "bob") == ["joined", "left"]
    assert b.kinds(BOB, "ada") == []  # she was there first, which he was told by the welcome
    (welcome,) = [event for event in b.seen[BOB] if event.kind == "welcome"]
    assert welcome.online == 2


def test_textbook_programs_at_two_servers_see_each_others_addresses(
    cluster: Cluster,
) -> None:
    a, b = Server(cluster), Server(cluster)
    a.online(ADA)
    b.online(BOB)
    a.text(b"hi", ADA)
    assert b.texts[BOB] == [b"127.0.0.1--4002#online", b"127.0.0.1--4001#hi"]
    assert a.texts[ADA] == [
        b"127.0.0.1--4001#online",
        b"127.0.0.1--4002#online",
        b"127.0.0.1--4001#hi",
    ]


def test_history_reaches_members_of_other_and_later_servers(
    cluster: Cluster,
) -> None:
    a, b = Server(cluster), Server(cluster)
    ada = a.join("ada", ADA, "ops")
    for i in range(CHAT_HISTORY + 10):
        ada.queue_message(f"{i}")
        cluster.exchange()
    late = Server(cluster)
    for server, peer in ((b, BOB), (late, EVE)):
        server.join(f"x{peer[1]}", peer, "ops")
        cluster.pass_time(3)
        earlier = [event.text for event in server.seen[peer] if event.kind == "history"]
        assert earlier == [f"{i}" for i in range(10, CHAT_HISTORY + 10)]


def test_a_join_is_announced_before_the_first_message(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    b.join("bob", BOB)
    client = ChatClientProtocol("ada")
    a.members[ADA], a.seen[ADA] = client, []
    client.queue_message("quick")
    while client.unaccepted:
        a.deliver(a.protocol.receive_datagram(client.next_request(), ADA))
    cluster.exchange()
    assert [(event.kind, event.sender) for event in b.seen[BOB]][-2:] == [
        ("joined", "ada"),
        ("message", "ada"),
    ]


def test_a_name_in_use_at_another_server_is_refused(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    a.join("ada", ADA)
    second = b.join("ADA", BOB)
    assert [(event.kind, event.text) for event in b.seen[BOB]][:1] == [
        ("refused", "the name ada is in use")
    ]
    assert not second.is_joined


def test_the_later_of_two_members_with_one_name_is_disconnected(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    eve = b.join("eve", EVE)
    for server, peer in ((a, ADA), (b, BOB)):  # before either has received the other's presence
        client = server.members[peer] = ChatClientProtocol("ada")
        server.seen[peer] = []
        while not client.is_joined:
            server.deliver(server.protocol.receive_datagram(client.next_request(), peer))
    cluster.exchange()
    assert (ADA in a.protocol.members, BOB in b.protocol.members) == (True, False)
    cluster.pass_time(15)
    assert ("refused", "the name ada is in use") in [
        (event.kind, event.text) for event in b.seen[BOB]
    ]
    eve.queue_message("still here")
    cluster.exchange()
    assert a.messages(ADA)[-1:] == ["eve: still here"]


def test_members_of_an_unreachable_server_are_offline_until_it_returns(
    cluster: Cluster,
) -> None:
    a, b = Server(cluster), Server(cluster)
    a.join("ada", ADA)
    b.join("bob", BOB)
    cluster.bus.remove(b.backplane)
    b.backplane.bus = []
    cluster.pass_time(CHAT_SERVER_TIMEOUT_S + CHAT_PRESENCE_S)
    assert a.kinds(ADA, "bob") == ["joined", "left"]
    cluster.bus.append(b.backplane)
    b.backplane.bus = cluster.bus
    b.backplane.arrived.append((RECONNECTED, ""))
    cluster.exchange()
    assert a.kinds(ADA, "bob") == ["joined", "left", "joined"]


def test_members_of_a_stopped_server_are_offline_immediately(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    a.join("ada", ADA)
    b.join("bob", BOB)
    cluster.servers.remove(b)
    b.federation.close()
    cluster.exchange()
    assert a.kinds(ADA, "bob") == ["joined", "left"]
    assert not a.federation.last_presence_s


def test_a_member_that_moves_from_a_killed_server_stays_online(cluster: Cluster) -> None:
    a, b, c = Server(cluster), Server(cluster), Server(cluster)
    a.join("ada", ADA)
    b.join("bob", BOB)
    cluster.servers.remove(b)  # killed
    cluster.bus.remove(b.backplane)
    c.protocol.remote.by_server.clear()
    c.join("bob", BOB)
    cluster.pass_time(2 * CHAT_SERVER_TIMEOUT_S)
    assert a.kinds(ADA, "bob") == ["joined"]


def test_a_duplicate_late_or_own_entry_counts_once(cluster: Cluster) -> None:
    a, b = Server(cluster), Server(cluster)
    a.join("ada", ADA)
    b.join("bob", BOB)
    recorded: list[tuple[str, str]] = []
    take = b.backplane.take

    def taking(most: int) -> list[tuple[str, str]]:
        found = take(most)
        recorded.extend(found)
        return found

    b.backplane.take = taking  # type: ignore[method-assign]
    a.members[ADA].queue_message("once")
    cluster.exchange()
    for end in (a.backplane, b.backplane):
        end.arrived.extend([*recorded, *reversed(recorded)])
    cluster.pass_time(2)
    assert a.messages(ADA) == b.messages(BOB) == ["ada: once"]
    assert a.protocol.statistics.malformed == b.protocol.statistics.malformed == 0


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
        '{"server":"x","number":1,"address":["h",1],"sender":"a","room":"","text":""}',
        '{"server":"x","number":1,"address":["h",1],"sender":"a","room":"","text":7}',
        '{"server":"x","number":1,"address":["h"],"sender":"a","room":"","text":"t"}',
        json.dumps(
            {
                "server": "x",
                "number": 1,
                "address": ["h", 1],
                "sender": "a",
                "room": "",
                "text": "x" * 449,
            }
        ),
    ],
)
def test_an_invalid_entry_is_counted_and_not_displayed(cluster: Cluster, entry: str) -> None:
    a = Server(cluster)
    a.join("ada", ADA)
    before = list(a.seen[ADA])
    a.backplane.arrived.extend([(MESSAGE, entry), (PRESENCE, entry)])
    cluster.exchange()
    assert a.protocol.statistics.malformed >= 1
    assert a.seen[ADA] == before


def test_entries_are_displayed_without_control_characters(cluster: Cluster) -> None:
    a = Server(cluster)
    a.join("ada", ADA)
    entry = {
        "server": "x",
        "number": 1,
        "address": ["h", 1],
        "sender": "e\x1bve",
        "room": "",
        "text": "\x1b[2J",
    }
    a.backplane.arrived.append((MESSAGE, json.dumps(entry)))
    cluster.exchange()
    assert a.messages(ADA) == ["e\ufffdve: \ufffd[2J"]


def test_missed_entries_wait_for_the_members_acknowledgements(cluster: Cluster) -> None:
    a = Server(cluster)
    a.join("ada", ADA)
    for i in range(5 * CHAT_UNACKNOWLEDGED_MAX):
        entry = {
            "server": "x",
            "number": i + 1,
            "address": ["h", 1],
            "sender": "eve",
            "room": "",
            "text": f"{i}",
        }
        a.backplane.arrived.append((MESSAGE, json.dumps(entry)))
    a.members.clear()  # she takes nothing
    a.handle_timer()
    a.handle_timer()
    a.handle_timer()
    unread = len(a.protocol.members[ADA].events)
    assert (
        CHAT_UNACKNOWLEDGED_MAX // 2
        <= unread
        <= CHAT_UNACKNOWLEDGED_MAX // 2 + CHAT_BACKPLANE_BATCH
    )
    assert a.federation.fd == -1
    a.handle_timer()
    assert len(a.protocol.members[ADA].events) == unread
    cluster.now_s += CHAT_CATCH_UP_S
    for _ in range(30):
        a.handle_timer()
    assert ADA not in a.protocol.members
    assert not a.backplane.arrived


def test_the_number_of_known_servers_is_bounded(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "CHAT_SERVERS_MAX", 5)
    a = Server(cluster)
    for i in range(100):
        entry = {"server": f"s{i}", "number": 1, "members": [[f"m{i}", "h", 1, "", 1]]}
        a.backplane.arrived.append((PRESENCE, json.dumps(entry)))
    cluster.exchange()
    assert len(a.federation._highest_numbers) <= 10
    assert len(a.protocol.remote.by_server) <= 5
