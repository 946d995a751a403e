"""What is asked of every peer.

One row a scenario; the runner, its help and its table read them here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.limits import KIB, MIB


@dataclass(frozen=True)
class Scenario:
    """connections: open concurrently.

    in_flight: messages of message_bytes that each keeps on their way.

    load: a row of fastnet.load.LOADS. busy_poll_us: load and server look that long for input before
    they sleep.
    """

    connections: int
    message_bytes: int
    in_flight: int = 1
    load: str = "closed"
    transport: str = "tcp"
    busy_poll_us: int = 0
    about: str = ""


SCENARIOS = {
    "50x64": Scenario(50, 64, about="request and reply, the usual yardstick"),
    "1000x64": Scenario(1000, 64, about="many connections, each seldom ready"),
    "50x64x32": Scenario(
        50, 64, in_flight=32, about="pipelined: system calls are shared by messages"
    ),
    "50x16K": Scenario(50, 16 * KIB, in_flight=4, about="bulk: copying outweighs system calls"),
    "1x64": Scenario(1, 64, about="one client: the round trip itself"),
    "1x64spin": Scenario(
        1, 64, busy_poll_us=5000, about="the same with --busy-poll on both sides: no wake-ups"
    ),
    "4x1M": Scenario(4, MIB, about="messages larger than socket buffers"),
    "8x64x16u": Scenario(
        8,
        64,
        in_flight=16,
        load="datagrams",
        transport="udp",
        about="UDP, bursts of small datagrams",
    ),
    "1x1400x64u": Scenario(
        1,
        1400,
        in_flight=64,
        load="datagrams",
        transport="udp",
        about="UDP, one peer, full packets",
    ),
    "1000x64u": Scenario(
        1000, 64, load="datagrams", transport="udp", about="UDP, a datagram from each of many"
    ),
    "1x64u": Scenario(
        1, 64, load="datagrams", transport="udp", about="UDP, one client: the round trip itself"
    ),
    "1x64uspin": Scenario(
        1,
        64,
        load="datagrams",
        transport="udp",
        busy_poll_us=5000,
        about="the same with --busy-poll on both sides",
    ),
    "churn": Scenario(
        50, 64, load="churn", about="connect, one echo, close: a message is a connection"
    ),
}

CANONICAL = "50x64"
"""The scenario to name when one number is asked for."""

assert CANONICAL in SCENARIOS
