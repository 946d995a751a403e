"""Daytime (RFC 867): one line with the date and time, then FIN; input is discarded.

Facts. The RFC leaves the form open and suggests "Weekday, Month Day, Year Time-Zone". localtime(3)
takes a lock that a forked child may find held for ever.
Decision: that form in UTC, the same on every host and in both twins.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastnet.service.contract import END, Address, Conn, Item, Service

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def line(seconds: int) -> bytes:
    """The line for a time in seconds since 1970.

    Example: b"Saturday, November 21, 2026 09:05:07-UTC\\r\\n".
    """
    now = time.gmtime(seconds)
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    date = f"{WEEKDAYS[now.tm_wday]}, {MONTHS[now.tm_mon - 1]} {now.tm_mday}, {now.tm_year}"
    return f"{date} {clock}-UTC\r\n".encode()


class Daytime(Service):
    accepts_input = False

    def open(self, conn: Conn) -> Sequence[Item]:
        return (line(int(time.time())), END)

    def datagram(self, view: memoryview, peer: Address) -> Sequence[bytes | memoryview]:
        return (line(int(time.time())),)


def create() -> Service:
    return Daytime()
