"""chat/1 under a key: each datagram carries a MAC, and is good once, in one direction of one
session.

Numbers are unsigned and big-endian. A member's datagram:

    offset  bytes
    0       4      magic "FNK1"
    4       1      kind: 1
    5       1      k, length of the key id, 1 to 32
    6       k      key id
    6+k     16     nonce of the member: random, one a run
    22+k    16     nonce of the server: what its last CHALLENGE gave; zeros before
    38+k    8      number: higher in each datagram of a run
    46+k    n      body: a datagram of chat/1; empty before the first CHALLENGE
    46+k+n  32     MAC

The server's:

    0       4      magic "FNK1"
    4       1      kind: 2 CHALLENGE, 3 SEALED
    5       16     nonce of the member
    21      8      number: of a CHALLENGE that of the datagram it answers, else the server's own, higher in each of a session
    29      n      body: of a CHALLENGE the 16 bytes of the server's nonce, else a datagram of chat/1
    29+n    32     MAC

The MAC is HMAC-SHA-256 over everything before it. Its key is HMAC-SHA-256 with the secret over the
magic, a byte 0, both nonces and the key id: one for each session. A CHALLENGE takes the server's
nonce as zeros for that.

Facts. What an earlier run, an earlier session, the other direction or this session itself has
carried is authentic for ever, unless something in it is fresh. A server that remembers each hello
could be filled with recorded ones.
Decision: the server's nonce is a MAC over the address, the member's nonce and a count of minutes,
with a secret made when the server starts. So it costs no memory, proves the address, and is stale
after two minutes; whoever uses it in time has a session, and a session is kept until all that began
it is stale. In a session the number says what is new. A challenge answers one datagram and is
believed once. Nothing is sent to who cannot sign, and nothing longer than what came before the
address is proven.
What this does not do: hide anything. And who has the same secret and sees the packets can pass for
the member.
"""

from __future__ import annotations

import logging
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fastnet.apps.chat import wire
from fastnet.apps.chat.server_protocol import Hall, Sent
from fastnet.limits import (
    CHAT_COMPLAINT_S,
    CHAT_COOKIE_S,
    CHAT_DATAGRAM_BYTES_MAX,
    CHAT_SESSIONS_MAX,
)
from fastnet.security.mac import KEY_ID, MAC_BYTES, is_authentic, mac
from fastnet.udp.contract import Peer

log = logging.getLogger("fastnet")

MAGIC = b"FNK1"
SAID, CHALLENGE, SEALED = 1, 2, 3
NONCE_BYTES = 16
NO_NONCE = bytes(NONCE_BYTES)
HEAD = struct.Struct("!4sBB")
REST = struct.Struct(f"!{NONCE_BYTES}s{NONCE_BYTES}sQ")
REPLY = struct.Struct(f"!4sB{NONCE_BYTES}sQ")
WINDOW = 64
"""Numbers behind the highest that may still come: the network reorders."""


def session_key(secret: bytes, key_id: str, members: bytes, servers: bytes) -> bytes:
    return mac(secret, MAGIC + b"\0" + members + servers + key_id.encode("ascii"))


class Numbers:
    """Which numbers have come, so that none counts twice."""

    def __init__(self) -> None:
        self.highest = 0
        self._seen = 0
        """Bit i: the number i below the highest has come."""

    def take(self, number: int) -> bool:
        """Whether this one is new."""
        ahead = number - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self.highest = number
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class Seal:
    """A member's side: of one run, whatever server it meets."""

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.key_id = key_id
        self.secret = secret
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.servers_nonce = NO_NONCE
        self.number = 0
        self._answered = 0
        """Challenges up to this number are old."""
        self._came = Numbers()
        self._hello_key = self._key = session_key(secret, key_id, self.nonce, NO_NONCE)

    def close(self, body: bytes) -> bytes:
        """A datagram to send. Before the first challenge it is an empty one."""
        self.number += 1
        head = HEAD.pack(MAGIC, SAID, len(self.key_id)) + self.key_id.encode("ascii")
        data = head + REST.pack(self.nonce, self.servers_nonce, self.number)
        data += body if self.servers_nonce != NO_NONCE else b""
        return data + mac(self._key, data)

    def open(self, datagram: bytes) -> bytes | None:
        """What is inside; b"" after a challenge, when what is owed has to be sent again; None if it
        is not the server's.
        """
        if not REPLY.size + MAC_BYTES < len(datagram) <= CHAT_DATAGRAM_BYTES_MAX:
            return None
        magic, kind, nonce, number = REPLY.unpack_from(datagram)
        key = self._hello_key if kind == CHALLENGE else self._key
        if (
            magic != MAGIC
            or kind not in (CHALLENGE, SEALED)
            or nonce != self.nonce
            or not is_authentic(datagram, key)
        ):
            return None
        body = datagram[REPLY.size : -MAC_BYTES]
        if kind == SEALED:
            if not self._came.take(number):
                return None
            # the session goes on: a challenge to what came before is mischief
            self._answered = self.number
            return body
        if not self._answered < number <= self.number or len(body) != NONCE_BYTES:
            return None
        self._answered = self.number
        if body == self.servers_nonce:
            return None  # a full server; to send again at once would be a loop
        self.servers_nonce = body
        self._key = session_key(self.secret, self.key_id, self.nonce, body)
        self._came = Numbers()
        return b""


@dataclass
class Session:
    """A member's run that has answered a challenge. sent: number of the last datagram to it."""

    key_id: str
    nonce: bytes
    key: bytes
    heard_s: float
    came: Numbers = field(default_factory=Numbers)
    sent: int = 0


@dataclass(frozen=True)
class Sealed:
    """A member's datagram, taken apart."""

    key_id: str
    nonce: bytes
    servers_nonce: bytes
    number: int
    body: bytes


def unpack(datagram: bytes) -> Sealed | None:
    """Take a member's datagram apart, if it is one; its MAC is not looked at."""
    if not HEAD.size + 1 + REST.size + MAC_BYTES <= len(datagram) <= CHAT_DATAGRAM_BYTES_MAX:
        return None
    magic, kind, width = HEAD.unpack_from(datagram)
    start, body = HEAD.size + width, HEAD.size + width + REST.size
    key_id = datagram[HEAD.size : start].decode("latin-1")
    if (
        magic != MAGIC
        or kind != SAID
        or body + MAC_BYTES > len(datagram)
        or not KEY_ID.fullmatch(key_id)
    ):
        return None
    nonce, servers_nonce, number = REST.unpack_from(datagram, start)
    return Sealed(key_id, nonce, servers_nonce, number, datagram[body:-MAC_BYTES])


class Gate:
    """Stands between the socket and the hall: lets in what somebody with a key has just said, and
    seals what goes out.
    """

    def __init__(
        self, hall: Hall, keys: dict[str, bytes], steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.hall = hall
        self.keys = keys
        self.steady = steady
        self.sessions: dict[tuple[Peer, bytes, bytes], Session] = {}
        """By address and both nonces."""
        self.heard: dict[Peer, Session] = {}
        """The session that an address was heard in last."""
        self._secret = secrets.token_bytes(MAC_BYTES)
        self._complain_s = -CHAT_COMPLAINT_S
        self._complained_of = 0

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Sent:
        """Judge one datagram. Returns what to send, and where."""
        said = unpack(datagram)
        secret = self.keys.get(said.key_id) if said else None
        if said is None or secret is None:
            return self._stranger(peer)
        key = session_key(secret, said.key_id, said.nonce, said.servers_nonce)
        if not is_authentic(datagram, key):
            return self._stranger(peer)
        session = self._session(said, key, peer)
        if session is None:
            return [(self._challenge(said, secret, peer), peer)]
        if not session.came.take(said.number):
            self.hall.statistics.replayed += 1
            return []
        holder = self.heard.get(peer)
        if holder is not None and holder.key_id != session.key_id and peer in self.hall.members:
            # who has another key and sees the packets, from the member's address
            return self._stranger(peer)
        session.heard_s = self.steady()
        self.heard[peer] = session
        if not said.body.startswith(wire.MARK):
            self.hall.statistics.junk += 1
            return []
        return self.seal(self.hall.receive_datagram(said.body, peer))

    def seal(self, sent: Iterable[tuple[bytes, Peer]]) -> Sent:
        """Each datagram for the session of its address; without one it goes nowhere."""
        sealed: Sent = []
        for body, peer in sent:
            if session := self.heard.get(peer):
                session.sent += 1
                data = REPLY.pack(MAGIC, SEALED, session.nonce, session.sent) + body
                sealed.append((data + mac(session.key, data), peer))
        return sealed

    def renew(self, keys: dict[str, bytes]) -> Sent:
        """Other keys from now on. Who is in with one that is not there any more goes."""
        lost = {key_id for key_id, secret in self.keys.items() if keys.get(key_id) != secret}
        self.keys = keys
        gone: Sent = []
        for place in [place for place, session in self.sessions.items() if session.key_id in lost]:
            session = self.sessions.pop(place)
            if self.heard.get(place[0]) is session:
                del self.heard[place[0]]
                gone += self.hall.put_out(place[0], "has no key any more")
        return self.seal(gone)

    def _session(self, said: Sealed, key: bytes, peer: Peer) -> Session | None:
        """The session of a signed datagram; a new one if its nonces are fresh and there is room."""
        place = (peer, said.nonce, said.servers_nonce)
        session = self.sessions.get(place)
        if session is None and said.servers_nonce in self._nonces(said, peer):
            if len(self.sessions) >= CHAT_SESSIONS_MAX:
                self._forget()
            if len(self.sessions) < CHAT_SESSIONS_MAX:
                session = self.sessions[place] = Session(
                    said.key_id, said.nonce, key, self.steady()
                )
        return session

    def _forget(self) -> None:
        """Drop sessions that nothing recorded could begin again, because their nonces are stale."""
        stale_s = self.steady() - 2 * CHAT_COOKIE_S
        self.sessions = {
            place: session for place, session in self.sessions.items() if session.heard_s > stale_s
        }
        kept = set(map(id, self.sessions.values()))
        self.heard = {peer: session for peer, session in self.heard.items() if id(session) in kept}

    def _nonces(self, said: Sealed, peer: Peer) -> list[bytes]:
        """The server's nonce for this member now, and the one before it."""
        minute = int(self.steady() / CHAT_COOKIE_S)
        fixed = f"{peer[0]} {peer[1]} {said.key_id} ".encode() + said.nonce
        return [
            mac(self._secret, fixed + str(minute - age).encode())[:NONCE_BYTES] for age in (0, 1)
        ]

    def _challenge(self, said: Sealed, secret: bytes, peer: Peer) -> bytes:
        data = REPLY.pack(MAGIC, CHALLENGE, said.nonce, said.number) + self._nonces(said, peer)[0]
        return data + mac(session_key(secret, said.key_id, said.nonce, NO_NONCE), data)

    def _stranger(self, peer: Peer) -> Sent:
        """Counted, and in the log now and then; never answered."""
        statistics, now_s = self.hall.statistics, self.steady()
        statistics.strangers += 1
        if now_s - self._complain_s >= CHAT_COMPLAINT_S:
            many = statistics.strangers - self._complained_of
            log.warning(
                "chat: %d datagrams that no key signed; the last from %s port %d", many, *peer[:2]
            )
            self._complain_s, self._complained_of = now_s, statistics.strangers
        return []
