"""A hall among others: what is said and who is online goes to the backplane, and what comes from
there
to the members.

Facts. A message is passed on here at once and reaches the other servers a moment later, so two
servers may show two speakers in different orders. A backplane may bring an entry twice, an old one
late, or nothing for a while (backplane/contract.py).
Decision: each server has an id that no other run has, and numbers its entries; of each topic and
server only a higher number counts, so everything is heard once. Who is online is said as a whole
list, again and again: the newest is the truth, and a server that says nothing for
CHAT_SERVER_SILENT_S has nobody. When two have one name, because two servers let them in at the same
moment, both servers know who came first, and the other one goes out. What was missed in an outage
comes at once and would be too much for the members: entries wait while somebody has half of
CHAT_UNREAD_MAX unread, but not longer than CHAT_CATCH_UP_S.
Cost: a message that was taken is lost for the other servers if this one is killed in the moment
before it is published.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fastnet.apps.chat import wire
from fastnet.apps.chat.backplane.contract import BACK, HERE, SAID, Backplane
from fastnet.apps.chat.members import Away, Member
from fastnet.apps.chat.server_protocol import Hall, Sent
from fastnet.apps.chat.wire import ChatError, number_in, text_in
from fastnet.endpoint import PORT_MAX
from fastnet.limits import (
    CHAT_CATCH_UP_S,
    CHAT_HERE_S,
    CHAT_MEMBERS_MAX,
    CHAT_SERVER_SILENT_S,
    CHAT_SERVERS_MAX,
    CHAT_TEXT_BYTES_MAX,
    CHAT_TURN_ENTRIES,
    CHAT_UNREAD_MAX,
    TICK_S,
)

log = logging.getLogger("fastnet")

TITLE_CHARACTERS_MAX = 64
"""An IPv6 address with a zone, two dashes and a port."""


class Elsewhere:
    """One hall's end of a backplane."""

    def __init__(
        self, hall: Hall, backplane: Backplane, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.hall = hall
        self.backplane = backplane
        self.steady = steady
        self.server = secrets.token_hex(8)
        self.number = 0
        self.heard_s: dict[str, float] = {}
        """Servers with members, and when they were heard."""
        self._newest: OrderedDict[tuple[str, str], int] = OrderedDict()
        """The highest number of each topic and server."""
        self._is_changed = True
        self._asks = True
        self._here_s = 0.0
        self._is_waiting = False
        self._stalled_s = float("inf")
        hall.on_said, hall.on_change = self._said, self._changed

    def start(self) -> None:
        """Connect, and remember what was said before. Raises FastnetError."""
        for entry in self.backplane.start():
            try:
                if message := self._new(SAID, entry):
                    self.hall.remember(*said_in(message))
            except ChatError:
                self.hall.statistics.junk += 1

    def close(self) -> None:
        """Nobody is online here any more."""
        self._here([])
        self.backplane.close()

    # From here to there

    def _said(self, member: Member, text: str) -> None:
        if self._is_changed:
            self._here_now()  # that somebody came is told before what they say
        entry = {
            "room": member.room,
            "who": member.title,
            "at": [str(member.peer[0]), member.peer[1]],
            "text": text,
        }
        self._publish(SAID, entry)

    def _changed(self) -> None:
        self._is_changed = True

    def _here_now(self) -> None:
        members = self.hall.members.values()
        self._here(
            [
                [each.title, str(each.peer[0]), each.peer[1], each.room, each.since_us]
                for each in members
            ]
        )

    def _here(self, members: list[list[Any]]) -> None:
        self._publish(HERE, {"members": members, "asks": self._asks})
        self._is_changed = self._asks = False
        self._here_s = self.steady()

    def _publish(self, topic: str, entry: dict[str, Any]) -> None:
        self.number += 1
        data = json.dumps(
            {"server": self.server, "number": self.number, **entry}, separators=(",", ":")
        )
        dropped = self.backplane.publish(topic, self.number, data)
        if dropped and not self.hall.statistics.unpublished:
            log.warning(
                "chat: the backplane has been away for so long that other servers will miss what was said first"
            )
        self.hall.statistics.unpublished += dropped

    # From there to here

    def handle_timer(self) -> Sent:
        """Pass on what has come, and say who is here if that is due."""
        now_s = self.steady()
        sent: Sent = []
        if self._may_go_on(now_s):
            taken = self.backplane.take(CHAT_TURN_ENTRIES)
            self._is_waiting = len(taken) == CHAT_TURN_ENTRIES
            for topic, entry in taken:
                try:
                    sent += self._heard(topic, entry)
                except ChatError:
                    self.hall.statistics.junk += 1
        for server in [
            server
            for server, heard_s in self.heard_s.items()
            if now_s - heard_s >= CHAT_SERVER_SILENT_S
        ]:
            del self.heard_s[server]
            log.info("chat: the server %s was not heard for %g s", server, CHAT_SERVER_SILENT_S)
            sent += self.hall.here_elsewhere(server, [])
        if self._is_changed or self._asks or now_s - self._here_s >= CHAT_HERE_S:
            self._here_now()
        return sent

    def timers(self) -> list[float]:
        """When `turn` is due."""
        silent = [heard_s + CHAT_SERVER_SILENT_S for heard_s in self.heard_s.values()]
        if self._is_stalled:
            silent.append(self.steady() + TICK_S)
        elif self._is_waiting:
            silent.append(self.steady())
        return [self._here_s + CHAT_HERE_S, *silent]

    @property
    def fd(self) -> int:
        """What is readable when `turn` is due; -1 when nothing would be taken."""
        return -1 if self._is_stalled else self.backplane.fd

    @property
    def _is_stalled(self) -> bool:
        return self._stalled_s != float("inf")

    def _may_go_on(self, now_s: float) -> bool:
        """Whether the members have room for more, or one of them has held up the others for long
        enough.
        """
        if all(len(member.unread) < CHAT_UNREAD_MAX // 2 for member in self.hall.members.values()):
            self._stalled_s = float("inf")
            return True
        self._stalled_s = min(self._stalled_s, now_s)
        return now_s - self._stalled_s >= CHAT_CATCH_UP_S

    def _new(self, topic: str, entry: str) -> dict[str, Any]:
        """An entry as a message, empty if it came before or is ours. Raises ChatError."""
        message = wire.read_object(entry)
        key = topic, text_in(message, "server")
        number = number_in(message, "number")
        if key[1] == self.server or number <= self._newest.get(key, 0):
            return {}
        self._newest[key] = number
        self._newest.move_to_end(key)
        if len(self._newest) > 2 * CHAT_SERVERS_MAX:
            self._newest.popitem(last=False)
        return message

    def _heard(self, topic: str, entry: str) -> Sent:
        """Raises ChatError."""
        if topic == BACK:
            self._asks = True
            return []
        message = self._new(topic, entry)
        if not message:
            return []
        if topic == SAID:
            return self.hall.said_elsewhere(*said_in(message))
        server, members = message["server"], message.get("members")
        if not isinstance(members, list) or len(members) > CHAT_MEMBERS_MAX:
            raise ChatError("no list of members")
        away = [away_in(each) for each in members]
        self._is_changed |= message.get("asks") is True
        self.heard_s[server] = self.steady()
        if not away or len(self.heard_s) > CHAT_SERVERS_MAX:
            del self.heard_s[server]
            away = []
        return [*self._namesakes(server, away), *self.hall.here_elsewhere(server, away)]

    def _namesakes(self, server: str, away: list[Away]) -> Sent:
        """Of two with one name who came later goes; the other server does the same."""
        sent: Sent = []
        for each in away:
            member = self.hall.names.get(each.title.casefold())
            if member is not None and (each.since_us, server) < (member.since_us, self.server):
                sent += self.hall.put_out(
                    member.peer, "has a name that somebody at another server had first"
                )
        return sent


def said_in(message: dict[str, Any]) -> tuple[Away, str]:
    """Who said what. Raises ChatError."""
    at = message.get("at")
    if not isinstance(at, list) or len(at) != 2:
        raise ChatError("no address")
    text = wire.neutral(text_in(message, "text"))
    if not 0 < len(text.encode("utf-8", "replace")) <= CHAT_TEXT_BYTES_MAX:
        raise ChatError("no message")
    return away_in([message.get("who"), *at, message.get("room"), 0]), text


def away_in(fields: object) -> Away:
    """Raises ChatError."""
    match fields:
        case [str(title), str(host), int(port), str(room), int(since_us)]:
            pass
        case _:
            raise ChatError("no member")
    if (
        not 0 < len(title) <= TITLE_CHARACTERS_MAX
        or len(host) > TITLE_CHARACTERS_MAX
        or not 0 <= port <= PORT_MAX
    ):
        raise ChatError("no member")
    return Away(
        wire.neutral(title),
        (wire.neutral(host), port),
        wire.name_of(room) if room else "",
        since_us,
    )
