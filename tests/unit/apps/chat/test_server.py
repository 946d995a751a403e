"""Chat server: all datagrams leave through one place, which adds the MACs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastnet.apps.chat.authentication import (
    CHALLENGE,
    FROM_SERVER,
    ClientAuthenticator,
    ServerAuthenticator,
)
from fastnet.apps.chat.server import ChatConfig, ChatServer
from fastnet.apps.chat.server_protocol import ChatServerProtocol
from fastnet.apps.chat.wire import pack
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Peer

SECRET = bytes(range(32))
ADA, BOB = ("127.0.0.1", 4001), ("127.0.0.1", 4002)


@pytest.fixture
def sent() -> list[tuple[bytes, Peer]]:
    return []


@pytest.fixture
def server(sent: list[tuple[bytes, Peer]], monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    """A server with a key, whose datagrams are recorded instead of sent."""
    server = ChatServer(ChatConfig(port=0), lambda events: None)
    server.protocol = ChatServerProtocol(AccessList.parse(["127.0.0.0/8"]), 5.0)
    server.authenticator = ServerAuthenticator(server.protocol, {"us": SECRET})
    monkeypatch.setattr(server, "send", lambda data, peer: sent.append((data, peer)))
    return server


def test_every_datagram_that_leaves_a_server_with_keys_is_authenticated(
    server: ChatServer, sent: list[tuple[bytes, Peer]]
) -> None:
    client = ClientAuthenticator("us", SECRET)
    server.send_all(server.receive_datagram(client.authenticate(b""), ADA))
    ((challenge, _),) = sent
    assert (challenge[4], client.verify(challenge)) == (CHALLENGE, b"")
    request = pack({"type": "who", "cookie": ""})
    server.send_all(server.receive_datagram(client.authenticate(request), ADA))
    server.send_all([(b"of a timer", ADA)])
    for data, _ in sent[1:]:
        assert data[4] == FROM_SERVER
        assert client.verify(data) is not None
    assert len(sent) == 3


def test_a_server_with_keys_sends_nothing_to_an_address_without_a_session(
    server: ChatServer, sent: list[tuple[bytes, Peer]]
) -> None:
    server.send_all([(b"message", BOB)])
    assert sent == []


def test_the_keys_of_a_server_are_unchanged_when_their_file_is_invalid(
    server: ChatServer, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    path.write_text("no key")
    path.chmod(0o600)
    server.config = ChatConfig(port=0, key=str(path))
    assert server.reload() == "the keys are unchanged"
    assert server.authenticator is not None
    assert server.authenticator.keys == {"us": SECRET}
