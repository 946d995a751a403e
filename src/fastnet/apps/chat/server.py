"""The chat's hall (hall.py) on a socket (udp/server.py).

Facts. With IP_RECVERR the kernel queues the ICMP answer "nobody listens at that port" together with
the address it is about (ip(7)); without, an unconnected socket only learns that some earlier
datagram failed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastnet.apps.chat.authentication import Gate
from fastnet.apps.chat.backplane import check, open_backplane, shown
from fastnet.apps.chat.federation import Elsewhere
from fastnet.apps.chat.members import Statistics
from fastnet.apps.chat.server_protocol import Hall
from fastnet.config.server import ProcessConfig, option
from fastnet.errors import ConfigError
from fastnet.limits import CHAT_DATAGRAM_BYTES_MAX, CHAT_RATE, DATAGRAMS_PER_TURN
from fastnet.process.supervisor import OnEvents
from fastnet.security.keys import read_keys
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Outgoing, Peer
from fastnet.udp.server import DatagramServer, DatagramServerConfig, run_datagram_server

log = logging.getLogger("fastnet")

PORT = 7513
"""Next to exec's."""

IP_RECVERR = 11
IPV6_RECVERR = 25
"""linux/in.h and linux/in6.h; Python has no name for them."""

THIS_HOST = ("127.0.0.0/8", "::1")


@dataclass(frozen=True)
class ChatConfig(DatagramServerConfig):
    """A chat server. Raises ConfigError."""

    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    key: str | None = option(
        None,
        "Let in only who has one of the keys in this file; textbook programs have none.",
        "FILE",
    )
    backplane: str = option(
        "memory", "Be one chat with all servers of it: redis://HOST[:PORT]/[DB].", "URL"
    )
    rate: int = option(
        CHAT_RATE, "Messages a second that a member may send for long.", "N", least=1
    )
    trust: tuple[str, ...] = option(
        (),
        "Nobody forges addresses of this network: textbook programs there may just listen.",
        "CIDR",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        AccessList.parse(self.trust)
        check(self.backplane)


def run(config: ChatConfig, process: ProcessConfig, tell: OnEvents) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon. Returns the exit code; raises
    FastnetError.
    """
    config = replace(config, key=os.path.expanduser(config.key) if config.key else None)
    return run_datagram_server(ChatServer, config, process, tell, paths=("key",))


class ChatServer(DatagramServer):
    """One socket and one hall."""

    config: ChatConfig
    service = "chat"
    hall: Hall
    elsewhere: Elsewhere
    gate: Gate | None = None
    datagram_bytes_max = CHAT_DATAGRAM_BYTES_MAX

    def __init__(self, config: ChatConfig, tell: OnEvents) -> None:
        super().__init__(config, Statistics(), tell)

    def open(self, stack: ExitStack) -> None:
        trusted = AccessList.parse((*THIS_HOST, *self.config.trust))
        self.hall = Hall(trusted, float(self.config.rate))
        self.statistics = self.hall.statistics
        if self.config.key:
            self.gate = Gate(self.hall, read_keys(self.config.key))
        self.elsewhere = Elsewhere(self.hall, open_backplane(self.config.backplane))
        stack.callback(self.elsewhere.close)
        self.elsewhere.start()

    def on_bound(self) -> None:
        """Ask for ICMP answers with their addresses."""
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)

    def describe(self) -> dict[str, Any]:
        keys = sorted(self.gate.keys) if self.gate else []
        return {"keys": keys, "backplane": shown(self.config.backplane)}

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Outgoing:
        return (
            self.gate.receive_datagram(datagram, peer)
            if self.gate
            else self.hall.receive_datagram(datagram, peer)
        )

    def handle_timer(self) -> Outgoing:
        return self.out([*self.elsewhere.handle_timer(), *self.hall.handle_timer()])

    def out(self, sent: Iterable[tuple[bytes, Peer]]) -> Outgoing:
        """What the hall wants to say, as it may leave the house."""
        return self.gate.seal(sent) if self.gate else sent

    def timers(self) -> list[float]:
        return [*self.hall.timers(), *self.elsewhere.timers()]

    def watched(self) -> dict[int, Callable[[int], None]]:
        """The backplane wakes the poll; what has come is taken in `turn`."""
        fd = self.elsewhere.fd
        return {fd: lambda fd: None} if fd >= 0 else {}

    def handle_socket_error(self) -> None:
        """Take members out that are not there any more."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                _, _, _, peer = self.sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)
            except OSError:
                return
            self.send_all(self.out(self.hall.nobody_at(peer)))

    def stop(self) -> None:
        """Chat has no work that outlives a datagram."""

    def has_pending_work(self) -> bool:
        return False

    def reload(self) -> str:
        if self.gate is None or self.config.key is None:
            return ""
        try:
            keys = read_keys(self.config.key)
        except ConfigError as error:
            log.error("SIGHUP: the keys stay as they were: %s", error)
            return "the keys stay as they were"
        self.send_all(self.gate.renew(keys))
        return f"read {len(keys)} keys"

    def format_event(self, event: dict[str, Any]) -> str:
        return format_event(event)


def format_event(event: dict[str, Any]) -> str:
    """An event as a line to read."""
    if event["event"] == "listening":
        keys = f"; keys: {', '.join(event['keys'])}" if event["keys"] else ""
        backplane = f"; backplane: {event['backplane']}" if event["backplane"] != "memory" else ""
        metrics = f"; metrics: {event['metrics']}" if event["metrics"] else ""
        return f"listening on {event['endpoint']} (chat{keys}{backplane}{metrics})"
    state = "stopped chat" if event["event"] == "stopped" else "chat"
    return f"{state} on {event['endpoint']}: {numbers(event['statistics'])}"


def numbers(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{messages} messages, {datagrams} datagrams in, {replies} out".format(**statistics)
    names = (
        "elsewhere",
        "unpublished",
        "strangers",
        "replayed",
        "hints",
        "slowed",
        "amplification_blocked",
        "gone",
        "junk",
        "ignored",
        "unsent",
    )
    more = ", ".join(f"{statistics[name]} {name}" for name in names if statistics[name])
    return f"{first}; {more}" if more else first
