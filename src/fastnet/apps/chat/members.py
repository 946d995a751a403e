"""State of a chat server: members, members of other servers, message history, statistics."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastnet.apps.chat.delivery import EventQueue
from fastnet.limits import (
    CHAT_HISTORY,
    CHAT_IDLE_TIMEOUT_S,
    CHAT_ROOMS_MAX,
    CHAT_TEXTBOOK_IDLE_TIMEOUT_S,
)
from fastnet.ratelimit import TokenBucket
from fastnet.udp.contract import Peer
from fastnet.udp.server import DatagramServerStatistics, counted


@dataclass
class ChatStatistics(DatagramServerStatistics):
    """Counters of a chat server."""

    online: int = counted("Members of this server now.", "gauge")
    messages: int = counted("Messages accepted and distributed.")
    hints: int = counted("Hints sent to addresses that are not online.")
    malformed: int = counted("Datagrams and backplane entries that are not valid.")
    rate_limited: int = counted("Messages refused because of a member's rate limit.")
    amplification_blocked: int = counted("Datagrams not sent to an unvalidated address.")
    unauthenticated: int = counted("Datagrams without a valid MAC.")
    replayed: int = counted("Authenticated datagrams received a second time.")
    disconnected: int = counted("Members removed by the server: timeout, unreachable, revoked.")
    remote_messages: int = counted("Messages received from other servers.")
    unpublished: int = counted("Entries dropped because the backplane was unreachable.")


@dataclass
class Member:
    """One address that is online at this server."""

    peer: Peer
    """Source address of its datagrams."""

    name: str
    """Name of a member of chat/1; "" for a textbook program."""

    last_received_s: float
    """Monotonic time of its last valid datagram."""

    message_bucket: TokenBucket
    """Rate limit of its messages."""

    credit_bytes: int | None = None
    """Bytes that an unvalidated address may still be sent; None: validated, no limit."""

    room: str = ""
    """The room it is in; "" is the textbook programs'."""

    has_rate_notice: bool = False
    """Whether a textbook program was notified of the rate limit since its last message."""

    last_message_id: int = 0
    """Id of its last accepted message; chat/1 only."""

    events: EventQueue = field(default_factory=lambda: EventQueue(""))
    """Events to deliver; chat/1 only."""

    joined_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    """When it joined, in microseconds since 1970; decides name conflicts between servers."""

    @property
    def display_name(self) -> str:
        """The name that other members see."""
        return self.name or f"{self.peer[0]}--{self.peer[1]}"

    @property
    def idle_timeout_s(self) -> float:
        """How long it may send nothing."""
        return CHAT_IDLE_TIMEOUT_S if self.name else CHAT_TEXTBOOK_IDLE_TIMEOUT_S


@dataclass(frozen=True)
class RemoteMember:
    """A member of another server on the backplane."""

    display_name: str
    """The name that members see."""

    peer: tuple[str, int]
    """Its address as its own server sees it."""

    room: str
    """The room it is in."""

    joined_us: int
    """When it joined, in microseconds since 1970."""


class RemoteMembers:
    """Member lists of the other servers, by server id."""

    def __init__(self) -> None:
        self.by_server: dict[str, list[RemoteMember]] = {}

    def replace(
        self, server: str, members: list[RemoteMember]
    ) -> tuple[list[RemoteMember], list[RemoteMember]]:
        """Replace a server's list; an empty one removes it. Returns who left and who joined."""
        before = self._distinct()
        if members:
            self.by_server[server] = members
        else:
            self.by_server.pop(server, None)
        after = self._distinct()
        left = [before[key] for key in before.keys() - after.keys()]
        return left, [after[key] for key in after.keys() - before.keys()]

    def find(self, name: str) -> RemoteMember | None:
        """The member with this name, in any mixture of capitals and small letters."""
        folded = name.casefold()
        found = (each for each in self._all() if each.display_name.casefold() == folded)
        return next(found, None)

    def names_in(self, room: str) -> list[str]:
        """Display names in a room, each once."""
        return list(dict.fromkeys(each.display_name for each in self._all() if each.room == room))

    def _all(self) -> Iterable[RemoteMember]:
        return (each for members in self.by_server.values() for each in members)

    def _distinct(self) -> dict[tuple[str, str], RemoteMember]:
        """A member that moved from a killed server to another is listed by both and counts once."""
        return {(each.room, each.display_name): each for each in self._all()}


class MessageHistory:
    """The last CHAT_HISTORY messages of the last CHAT_ROOMS_MAX rooms, by room."""

    def __init__(self) -> None:
        self.rooms: OrderedDict[str, deque[tuple[str, str]]] = OrderedDict()
        """Sender and text of each message; the room of the last message is the last one."""

    def add(self, sender: Member | RemoteMember, text: str) -> None:
        """Keep a message for members that join later."""
        messages = self.rooms.setdefault(sender.room, deque(maxlen=CHAT_HISTORY))
        messages.append((sender.display_name, text))
        self.rooms.move_to_end(sender.room)
        if len(self.rooms) > CHAT_ROOMS_MAX:
            self.rooms.popitem(last=False)

    def of_room(self, room: str) -> Iterable[tuple[str, str]]:
        """Sender and text of the kept messages of a room, oldest first."""
        return self.rooms.get(room, ())
