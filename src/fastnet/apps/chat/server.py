"""Chat server: the sans-I/O protocols of the chat on a datagram server.

Facts. With IP_RECVERR the kernel queues the ICMP message "port unreachable" together with the
address that it is about (ip(7)); without it, an unconnected socket is notified only that some
earlier datagram failed.
Decision: datagrams pass three layers: MACs (authentication.py, with --key), membership
(server_protocol.py) and other servers (federation.py). MACs are added in `send_all`, through which
every datagram leaves, so that no layer can send one without.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastnet.apps.chat.authentication import ServerAuthenticator
from fastnet.apps.chat.backplane import check_url, hide_password, open_backplane
from fastnet.apps.chat.federation import Federation
from fastnet.apps.chat.members import ChatStatistics
from fastnet.apps.chat.server_protocol import ChatServerProtocol
from fastnet.config.fields import option
from fastnet.config.process import ProcessConfig
from fastnet.errors import ConfigError
from fastnet.limits import CHAT_DATAGRAM_BYTES_MAX, CHAT_RATE, DATAGRAMS_PER_TURN
from fastnet.process.supervisor import Event, OnEvents
from fastnet.security.keys import read_keys
from fastnet.transport.access import AccessList
from fastnet.udp.contract import Outgoing, Peer
from fastnet.udp.server import DatagramServer, DatagramServerConfig, run_datagram_server

log = logging.getLogger("fastnet")

PORT = 7513
"""The port after exec's."""

IP_RECVERR = 11
IPV6_RECVERR = 25
"""linux/in.h and linux/in6.h; Python has no name for them."""

LOCAL_NETWORKS = ("127.0.0.0/8", "::1")
"""Trusted without --trust."""

OPTIONAL_COUNTERS = (
    "remote_messages",
    "unpublished",
    "unauthenticated",
    "replayed",
    "hints",
    "rate_limited",
    "amplification_blocked",
    "disconnected",
    "malformed",
    "ignored",
    "unsent",
)
"""Counters that a line of statistics has only when they are not zero."""


@dataclass(frozen=True)
class ChatConfig(DatagramServerConfig):
    """Configuration of a chat server. Raises ConfigError."""

    port: int = option(PORT, "Port to bind; 0 picks a free one.", "PORT", least=0)
    key: str | None = option(
        None,
        "Admit only clients with a key of this file; textbook programs have none.",
        "FILE",
    )
    backplane: str = option(
        "memory", "Join all servers of this backplane to one chat: redis://HOST[:PORT]/[DB].", "URL"
    )
    rate: int = option(CHAT_RATE, "Messages per second of one member.", "N", least=1)
    trust: tuple[str, ...] = option(
        (),
        "Treat addresses of this network as validated: textbook programs there need not send "
        "anything to keep receiving (repeatable).",
        "CIDR",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        AccessList.parse(self.trust)
        check_url(self.backplane)


def run(config: ChatConfig, process: ProcessConfig, on_events: OnEvents) -> int:
    """Serve until a signal ends it, in the foreground or as a daemon.

    Args:
        config: What to serve.
        process: Daemon, pidfile, logs, metrics.
        on_events: Called with each list of events.
    Returns:
        The exit code.
    Raises:
        FastnetError: the server could not start, or failed.
    """
    config = replace(config, key=os.path.expanduser(config.key) if config.key else None)
    return run_datagram_server(ChatServer, config, process, on_events, paths=("key",))


class ChatServer(DatagramServer):
    """One socket and the chat's protocols."""

    config: ChatConfig
    service = "chat"
    datagram_bytes_max = CHAT_DATAGRAM_BYTES_MAX
    protocol: ChatServerProtocol
    federation: Federation
    authenticator: ServerAuthenticator | None = None

    def __init__(self, config: ChatConfig, on_events: OnEvents) -> None:
        super().__init__(config, ChatStatistics(), on_events)

    def open(self, stack: ExitStack) -> None:
        trusted = AccessList.parse((*LOCAL_NETWORKS, *self.config.trust))
        self.protocol = ChatServerProtocol(trusted, float(self.config.rate))
        self.statistics = self.protocol.statistics
        if self.config.key:
            self.authenticator = ServerAuthenticator(self.protocol, read_keys(self.config.key))
        self.federation = Federation(self.protocol, open_backplane(self.config.backplane))
        stack.callback(self.federation.close)
        self.federation.start()

    def on_bound(self) -> None:
        """Have ICMP errors queued with their addresses."""
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)

    def describe(self) -> dict[str, Any]:
        keys = sorted(self.authenticator.keys) if self.authenticator else []
        return {"keys": keys, "backplane": hide_password(self.config.backplane)}

    def receive_datagram(self, datagram: bytes, peer: Peer) -> Outgoing:
        return (self.authenticator or self.protocol).receive_datagram(datagram, peer)

    def handle_timer(self) -> Outgoing:
        return [*self.federation.handle_timer(), *self.protocol.handle_timer()]

    def send_all(self, outgoing: Outgoing) -> None:
        """Send datagrams, authenticated if the server has keys."""
        if self.authenticator is not None:
            outgoing = self.authenticator.authenticate(outgoing)
        super().send_all(outgoing)

    def timers(self) -> list[float]:
        return [*self.protocol.timers(), *self.federation.timers()]

    def watched(self) -> dict[int, Callable[[int], None]]:
        """The backplane's descriptor ends the poll; `handle_timer` then takes the entries."""
        fd = self.federation.fd
        return {fd: lambda fd: None} if fd >= 0 else {}

    def handle_socket_error(self) -> None:
        """Remove textbook members whose port is unreachable."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                _, _, _, peer = self.sock.recvmsg(0, 0, socket.MSG_ERRQUEUE)
            except OSError:
                return
            self.send_all(self.protocol.handle_port_unreachable(peer))

    def reload(self) -> str:
        if self.authenticator is None or self.config.key is None:
            return ""
        try:
            keys = read_keys(self.config.key)
        except ConfigError as error:
            log.error("SIGHUP: the keys are unchanged: %s", error)
            return "the keys are unchanged"
        self.send_all(self.authenticator.replace_keys(keys))
        return f"read {len(keys)} keys"

    def format_event(self, event: Event) -> str:
        return format_event(event)


def format_event(event: Event) -> str:
    """An event as one line of text."""
    if event["event"] == "listening":
        keys = f"; keys: {', '.join(event['keys'])}" if event["keys"] else ""
        backplane = f"; backplane: {event['backplane']}" if event["backplane"] != "memory" else ""
        metrics = f"; metrics: {event['metrics']}" if event["metrics"] else ""
        return f"listening on {event['endpoint']} (chat{keys}{backplane}{metrics})"
    state = "stopped chat" if event["event"] == "stopped" else "chat"
    return f"{state} on {event['endpoint']}: {format_statistics(event['statistics'])}"


def format_statistics(statistics: dict[str, int]) -> str:
    """Statistics in one line."""
    first = "{messages} messages, {datagrams} datagrams in, {replies} out".format(**statistics)
    more = [f"{statistics[each]} {each}" for each in OPTIONAL_COUNTERS if statistics[each]]
    return "; ".join([first, *([", ".join(more)] if more else [])])
