"""The chat's hall (hall.py) on a socket (deskserver.py).

Facts. With IP_RECVERR the kernel queues the ICMP answer "nobody listens at that port" together with the address it is about
(ip(7)); without, an unconnected socket only learns that some earlier datagram failed.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fastnet.access import AccessList
from fastnet.chat.hall import Hall, Statistics
from fastnet.config import ProcessConfig, option
from fastnet.daemon import launch
from fastnet.deskserver import DeskConfig, DeskServer, Outgoing, Peer
from fastnet.errors import EXIT_OK
from fastnet.limits import CHAT_DATAGRAM_BYTES_MAX, CHAT_RATE, DATAGRAMS_PER_TURN
from fastnet.process import Tell, from_root

PORT = 7513
"""Next to exec's."""

IP_RECVERR = 11
IPV6_RECVERR = 25
"""linux/in.h and linux/in6.h; Python has no name for them."""

THIS_HOST = ("127.0.0.0/8", "::1")


@dataclass(frozen=True)
class ChatConfig(DeskConfig):
    """A chat server. Raises ConfigError."""

    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    rate: int = option(CHAT_RATE, "Messages a second that a member may send for long.", "N", least=1)
    trust: tuple[str, ...] = option(
        (), "Nobody forges addresses of this network: textbook programs there may just listen.", "CIDR"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        AccessList.parse(self.trust)


def run(config: ChatConfig, process: ProcessConfig, tell: Tell) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon. Returns the exit code; raises FastnetError."""
    if process.daemon:
        process = from_root(process, "pidfile", "log_file", "error_log")
        tell(launch(lambda to_launcher: ChatServer(config, to_launcher).run(process)))
        return EXIT_OK
    return ChatServer(config, tell).run(process)


class ChatServer(DeskServer):
    """One socket and one hall."""

    config: ChatConfig
    hall: Hall
    datagram_bytes_max = CHAT_DATAGRAM_BYTES_MAX

    def __init__(self, config: ChatConfig, tell: Tell) -> None:
        super().__init__(config, Statistics(), tell)

    def open(self, stack: ExitStack) -> None:
        trusted = AccessList.parse((*THIS_HOST, *self.config.trust))
        self.hall = Hall(trusted, float(self.config.rate))
        self.statistics = self.hall.statistics

    def opened(self) -> None:
        """Ask for ICMP answers with their addresses."""
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)

    def about(self) -> dict[str, Any]:
        return {"service": "chat"}

    def hear(self, datagram: bytes, peer: Peer) -> Outgoing:
        return self.hall.hear(datagram, peer)

    def turn(self) -> Outgoing:
        return self.hall.turn()

    def deadlines(self) -> list[float]:
        return self.hall.deadlines()

    def refused(self) -> None:
        """Take members out that are not there any more."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                _, _, _, peer = self.sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)
            except OSError:
                return
            self.send_all(self.hall.nobody_at(peer))

    def words(self, event: dict[str, Any]) -> str:
        return words(event)


def words(event: dict[str, Any]) -> str:
    """An event as a line to read."""
    if event["event"] == "listening":
        return f"listening on {event['endpoint']} (chat)"
    state = "stopped chat" if event["event"] == "stopped" else "chat"
    return f"{state} on {event['endpoint']}: {numbers(event['statistics'])}"


def numbers(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{messages} messages, {datagrams} datagrams in, {replies} out".format(**statistics)
    names = ("hints", "slowed", "withheld", "gone", "junk", "ignored", "unsent")
    more = ", ".join(f"{statistics[name]} {name}" for name in names if statistics[name])
    return f"{first}; {more}" if more else first
