"""Authenticated datagrams of chat/1: a MAC over each, valid once in one session.

Wire format, key derivation and test vectors: docs/chat.md, "chat/1 under a key".

Facts. A datagram recorded in an earlier run, an earlier session, the other direction or this
session has a valid MAC forever, unless something in it is fresh. A server that keeps state for each
first datagram can be filled with recorded ones.
Decision: the server's nonce is an address token bound to the client's nonce (udp/address_token.py).
It costs no memory, validates the address and expires after two periods; a client that returns it in
time has a session, and a session is kept until all nonces that could begin it again have expired.
In a session a replay window finds new numbers (RFC 4303 section 3.4.3). A CHALLENGE answers one
datagram and is accepted once. A datagram without a valid MAC is not answered, and an unvalidated
address is sent no more bytes than were received from it.
Not provided: confidentiality. A client with the same key that also sees the packets can impersonate
the member.

States of a client's run, as both sides see it:

    event                                    client                     server
    first datagram, empty body               no session                 sends CHALLENGE, keeps none
    CHALLENGE with a valid MAC               no session -> session      -
    datagram with a fresh server nonce       -                          no session -> session
    CHALLENGE in a session                   session -> new session,    -
                                             if nothing newer came
    the session's nonces have expired        -                          session -> no session, when
                                                                        room is needed
    key revoked                              -                          session -> no session
"""

from __future__ import annotations

import logging
import secrets
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastnet.apps.chat import wire
from fastnet.apps.chat.server_protocol import ChatServerProtocol, Datagrams
from fastnet.limits import (
    CHAT_COOKIE_S,
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_LOG_INTERVAL_S,
    CHAT_SESSIONS_MAX,
)
from fastnet.ratelimit import Clock, LogThrottle
from fastnet.security.keys import read_keys
from fastnet.security.mac import KEY_ID, MAC_BYTES, is_authentic, mac
from fastnet.udp.address_token import AddressToken
from fastnet.udp.contract import Peer

log = logging.getLogger("fastnet")

MAGIC = b"FNK1"
FROM_CLIENT, CHALLENGE, FROM_SERVER = 1, 2, 3
"""Kinds of datagrams."""

NONCE_BYTES = 16
NO_NONCE = bytes(NONCE_BYTES)
CLIENT_START = struct.Struct("!4sBB")
"""Magic, kind, length of the key id, which follows."""

CLIENT_END = struct.Struct(f"!{NONCE_BYTES}s{NONCE_BYTES}sQ")
"""Nonces of client and server, number; the body follows."""

SERVER_HEADER = struct.Struct(f"!4sB{NONCE_BYTES}sQ")
"""Magic, kind, nonce of the client, number; the body follows."""

REPLAY_WINDOW = 64
"""Numbers below the highest that are still accepted: the network reorders."""


def derive_session_key(
    secret: bytes, key_id: str, client_nonce: bytes, server_nonce: bytes
) -> bytes:
    """The MAC key of one session."""
    return mac(secret, MAGIC + b"\0" + client_nonce + server_nonce + key_id.encode("ascii"))


class ReplayWindow:
    """Numbers received in a session, so that each is accepted once (RFC 4303 section 3.4.3)."""

    def __init__(self) -> None:
        self.highest = 0
        self._received = 0
        """Bit i: the number i below the highest was received."""

    def accept(self, number: int) -> bool:
        """Whether a number is new; it is not new a second time."""
        ahead = number - self.highest
        if ahead > 0:
            shifted = self._received << ahead if ahead < REPLAY_WINDOW else 0
            self._received = (shifted | 1) & ((1 << REPLAY_WINDOW) - 1)
            self.highest = number
            return True
        if -ahead >= REPLAY_WINDOW or self._received >> -ahead & 1:
            return False
        self._received |= 1 << -ahead
        return True


class ClientAuthenticator:
    """The client's side, for one run; it serves for whichever server answers.

    Args:
        key_id: Name of the key.
        secret: Its bytes.
    """

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.key_id = key_id
        self.secret = secret
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.server_nonce = NO_NONCE
        self._number = 0
        self._challenge_floor = 0
        """A CHALLENGE to a datagram up to this number is obsolete."""
        self._received = ReplayWindow()
        self._hello_key = derive_session_key(secret, key_id, self.nonce, NO_NONCE)
        self._key = self._hello_key

    @classmethod
    def from_file(cls, path: str) -> ClientAuthenticator:
        """With the first key of a key file. Raises ConfigError."""
        key_id, secret = next(iter(read_keys(path).items()))
        return cls(key_id, secret)

    def authenticate(self, body: bytes) -> bytes:
        """The datagram to send for a body; before the first CHALLENGE its body is empty."""
        self._number += 1
        start = CLIENT_START.pack(MAGIC, FROM_CLIENT, len(self.key_id))
        end = CLIENT_END.pack(self.nonce, self.server_nonce, self._number)
        data = start + self.key_id.encode("ascii") + end
        if self.server_nonce != NO_NONCE:
            data += body
        return data + mac(self._key, data)

    def verify(self, datagram: bytes) -> bytes | None:
        """The body of a datagram of the server.

        Returns:
            The body; b"" for a CHALLENGE that began a session, after which the request must be sent
            again; None for a datagram that is not the server's, or was received before.
        """
        if not SERVER_HEADER.size + MAC_BYTES < len(datagram) <= CHAT_DATAGRAM_BYTES_MAX:
            return None
        magic, kind, nonce, number = SERVER_HEADER.unpack_from(datagram)
        if magic != MAGIC or kind not in (CHALLENGE, FROM_SERVER) or nonce != self.nonce:
            return None
        if not is_authentic(datagram, self._hello_key if kind == CHALLENGE else self._key):
            return None
        body = datagram[SERVER_HEADER.size : -MAC_BYTES]
        if kind == CHALLENGE:
            return self._handle_challenge(body, number)
        if not self._received.accept(number):
            return None
        # The session is alive: a CHALLENGE to an earlier datagram is a replay.
        self._challenge_floor = self._number
        return body

    def _handle_challenge(self, server_nonce: bytes, number: int) -> bytes | None:
        if not self._challenge_floor < number <= self._number:
            return None
        if len(server_nonce) != NONCE_BYTES:
            return None
        self._challenge_floor = self._number
        if server_nonce == self.server_nonce:
            return None  # the server is full; sending again immediately would loop
        self.server_nonce = server_nonce
        self._key = derive_session_key(self.secret, self.key_id, self.nonce, server_nonce)
        self._received = ReplayWindow()
        return b""


@dataclass
class AuthenticatedSession:
    """A client's run that has returned the server's nonce."""

    key_id: str
    """Name of the client's key."""

    client_nonce: bytes
    """Random number of the run."""

    key: bytes
    """MAC key of the session."""

    last_received_s: float
    """Monotonic time of the last accepted datagram."""

    received: ReplayWindow = field(default_factory=ReplayWindow)
    """Numbers received."""

    last_number: int = 0
    """Number of the last datagram sent in it."""


@dataclass(frozen=True)
class ClientDatagram:
    """A client's datagram, parsed; its MAC is not verified yet."""

    key_id: str
    """Name of the key."""

    client_nonce: bytes
    """Random number of the run."""

    server_nonce: bytes
    """From the last CHALLENGE; zeros before it."""

    number: int
    """Rises with each datagram of the run."""

    body: bytes
    """A datagram of chat/1, or empty."""


def parse_client_datagram(datagram: bytes) -> ClientDatagram | None:
    """Parse a client's datagram without verifying its MAC. Returns None if it is none."""
    least = CLIENT_START.size + 1 + CLIENT_END.size + MAC_BYTES
    if not least <= len(datagram) <= CHAT_DATAGRAM_BYTES_MAX:
        return None
    magic, kind, width = CLIENT_START.unpack_from(datagram)
    end = CLIENT_START.size + width
    body = end + CLIENT_END.size
    if magic != MAGIC or kind != FROM_CLIENT or body + MAC_BYTES > len(datagram):
        return None
    key_id = datagram[CLIENT_START.size : end].decode("latin-1")
    if not KEY_ID.fullmatch(key_id):
        return None
    client_nonce, server_nonce, number = CLIENT_END.unpack_from(datagram, end)
    return ClientDatagram(key_id, client_nonce, server_nonce, number, datagram[body:-MAC_BYTES])


class Challenge(bytes):
    """A CHALLENGE datagram: it has its MAC already, because it belongs to no session."""


class ServerAuthenticator:
    """The server's side, between the socket and the chat protocol.

    `receive_datagram` and `replace_keys` return datagrams without MACs. `authenticate` adds them
    where datagrams are sent, in one place for all of them.

    Args:
        protocol: Receives the bodies of authenticated datagrams.
        keys: Secrets by key id.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, protocol: ChatServerProtocol, keys: dict[str, bytes], clock: Clock = time.monotonic
    ) -> None:
        self.protocol = protocol
        self.keys = keys
        self.clock = clock
        self.sessions: dict[tuple[Peer, bytes, bytes], AuthenticatedSession] = {}
        """By address and the nonces of client and server."""
        self.current: dict[Peer, AuthenticatedSession] = {}
        """The session in which a datagram of an address was accepted last."""
        self._nonces = AddressToken(CHAT_COOKIE_S, NONCE_BYTES)
        self._log_throttle = LogThrottle(CHAT_LOG_INTERVAL_S, clock)

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Datagrams:
        """Verify one datagram and pass its body to the protocol.

        Returns:
            Datagrams for `authenticate`; none for a datagram that no key authenticates.
        """
        parsed = parse_client_datagram(datagram)
        secret = self.keys.get(parsed.key_id) if parsed else None
        if parsed is None or secret is None:
            return self._reject(peer)
        nonces = parsed.client_nonce, parsed.server_nonce
        key = derive_session_key(secret, parsed.key_id, *nonces)
        if not is_authentic(datagram, key):
            return self._reject(peer)
        session = self._find_session(parsed, key, peer)
        if session is None:
            return [(self._challenge(parsed, secret, peer), peer)]
        if not session.received.accept(parsed.number):
            self.protocol.statistics.replayed += 1
            return []
        current = self.current.get(peer)
        if current and current.key_id != session.key_id and peer in self.protocol.members:
            # An owner of another key that sees the packets sends from the member's address.
            return self._reject(peer)
        session.last_received_s = self.clock()
        self.current[peer] = session
        if not parsed.body.startswith(wire.PREFIX):
            self.protocol.statistics.malformed += 1
            return []
        return self.protocol.receive_datagram(parsed.body, peer)

    def authenticate(self, outgoing: Iterable[tuple[bytes, Peer]]) -> Datagrams:
        """Number each datagram in its address's session and add the MAC.

        A Challenge is passed unchanged; a datagram for an address without a session is dropped.
        """
        authenticated: Datagrams = []
        for body, peer in outgoing:
            if isinstance(body, Challenge):
                authenticated.append((body, peer))
            elif session := self.current.get(peer):
                session.last_number += 1
                header = (MAGIC, FROM_SERVER, session.client_nonce, session.last_number)
                data = SERVER_HEADER.pack(*header) + body
                authenticated.append((data + mac(session.key, data), peer))
        return authenticated

    def replace_keys(self, keys: dict[str, bytes]) -> Datagrams:
        """Replace the keys; disconnect members whose key was revoked.

        Returns:
            Datagrams for `authenticate`.
        """
        revoked = {key_id for key_id, secret in self.keys.items() if keys.get(key_id) != secret}
        self.keys = keys
        ended = [each for each, session in self.sessions.items() if session.key_id in revoked]
        announcements: Datagrams = []
        for session_id in ended:
            peer, session = session_id[0], self.sessions.pop(session_id)
            if self.current.get(peer) is session:
                del self.current[peer]
                announcements += self.protocol.disconnect(peer, "key revoked")
        return announcements

    def _find_session(
        self, parsed: ClientDatagram, key: bytes, peer: Peer
    ) -> AuthenticatedSession | None:
        """The session of an authentic datagram; if its nonce is valid, a new one."""
        session_id = peer, parsed.client_nonce, parsed.server_nonce
        session = self.sessions.get(session_id)
        if session is not None or not self._is_nonce_valid(parsed, peer):
            return session
        if len(self.sessions) >= CHAT_SESSIONS_MAX:
            self._drop_expired_sessions()
        if len(self.sessions) < CHAT_SESSIONS_MAX:
            session = AuthenticatedSession(parsed.key_id, parsed.client_nonce, key, self.clock())
            self.sessions[session_id] = session
        return session

    def _is_nonce_valid(self, parsed: ClientDatagram, peer: Peer) -> bool:
        context = _nonce_context(parsed)
        return self._nonces.verify(parsed.server_nonce, peer, self.clock(), context)

    def _drop_expired_sessions(self) -> None:
        """Drop sessions that no recorded datagram can begin again: their nonces have expired."""
        expired_s = self.clock() - 2 * CHAT_COOKIE_S
        self.sessions = {
            session_id: session
            for session_id, session in self.sessions.items()
            if session.last_received_s > expired_s
        }
        kept = set(map(id, self.sessions.values()))
        self.current = {peer: each for peer, each in self.current.items() if id(each) in kept}

    def _challenge(self, parsed: ClientDatagram, secret: bytes, peer: Peer) -> Challenge:
        nonce = self._nonces.issue(peer, self.clock(), _nonce_context(parsed))
        header = SERVER_HEADER.pack(MAGIC, CHALLENGE, parsed.client_nonce, parsed.number)
        key = derive_session_key(secret, parsed.key_id, parsed.client_nonce, NO_NONCE)
        return Challenge(header + nonce + mac(key, header + nonce))

    def _reject(self, peer: Peer) -> Datagrams:
        """Count a datagram without a valid MAC; logged at a bounded rate, never answered."""
        self.protocol.statistics.unauthenticated += 1
        if count := self._log_throttle.count():
            log.warning(
                "chat: %d unauthenticated datagrams; the last from %s port %d", count, *peer[:2]
            )
        return []


def _nonce_context(parsed: ClientDatagram) -> bytes:
    return parsed.client_nonce + parsed.key_id.encode("ascii")
