"""Doctor: what this host and this build support, as facts in sections, with hints.

Each fact is looked up on its own; one that fails reports the reason and does not end the report.
Nothing is changed, and no address but loopback is used.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnet import limits
from fastnet._version import __version__
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.errors import FastnetError
from fastnet.mover import MOVERS
from fastnet.probes import FEATURES, why_not
from fastnet.registry import BACKENDS, Registry, build_note
from fastnet.server.selection import choose
from fastnet.service import SERVICES

SCHEMA = 1

SYSCTL = "/proc/sys/net"

DESCRIPTORS_GOOD = 65_536
SOCKET_BUFFER_GOOD = 4 * limits.MIB
LOCAL_PORTS_GOOD = 28_000
SYN_BACKLOG_GOOD = 1024


@dataclass(frozen=True)
class Fact:
    """One line of the report."""

    name: str
    value: str
    good: bool = True
    """Whether it is as it should be."""
    hint: str = ""
    """The consequence if it is not, or how to change it."""


Section = list[Fact]


def examine() -> dict[str, Section]:
    """The report, by section."""
    return {
        "python": facts(python_version, free_threading, click_version),
        "fastnet": facts(lambda: Fact("version", __version__), build, automatic_choice),
        "engines": table(ENGINES),
        "datagrams": table(DATAGRAMS),
        "services": table(SERVICES),
        "movers": table(MOVERS),
        "kernel": facts(kernel),
        "features": [feature(name) for name in FEATURES],
        "limits": facts(
            descriptors, *(lambda row=row: sysctl(*row) for row in SYSCTLS), local_ports, congestion
        ),
    }


def as_document(sections: dict[str, Section]) -> dict[str, Any]:
    """The report as a JSON document."""
    return {"schema": SCHEMA} | {
        name: {
            fact.name: {"value": fact.value, "good": fact.good, "hint": fact.hint}
            for fact in section
        }
        for name, section in sections.items()
    }


def facts(*lookups: Callable[[], Fact]) -> Section:
    return [safely(lookup) for lookup in lookups]


def safely(lookup: Callable[[], Fact]) -> Fact:
    """A fact, or the reason why its lookup failed."""
    try:
        return lookup()
    except Exception as error:
        name = getattr(lookup, "__name__", "fact").replace("_", " ")
        return Fact(name, f"unknown: {error}", False)


def python_version() -> Fact:
    return Fact(
        "version",
        f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
    )


def free_threading() -> Fact:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return Fact(
            "free threading",
            "no",
            hint="pure-Python loops run one at a time; native ones in parallel",
        )
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    return Fact("free threading", "built in, but the GIL is on" if enabled else "yes", not enabled)


def click_version() -> Fact:
    from importlib.metadata import version

    return Fact("click", version("click"))


def build() -> Fact:
    note = build_note("*")
    return Fact(
        "extensions",
        note or "built",
        not note,
        "Serving works in pure Python, slower" if note else "",
    )


def automatic_choice() -> Fact:
    """What `auto` selects."""
    try:
        found = choose("auto", "auto", "echo")
    except FastnetError as error:
        return Fact("auto", "nothing works", False, str(error))
    return Fact(
        "auto", f"engine {found.engine}, backend {found.backend}", not found.reason, found.reason
    )


def table(rows: Registry[Any]) -> Section:
    """The backends with which each row works, and the reasons for the others."""
    section = []
    for name in rows:
        forms = [backend for backend in BACKENDS if rows[name].module(backend)]
        missing = {backend: rows.why_not(name, backend) for backend in forms}
        value = ", ".join(backend for backend in forms if not missing[backend]) or "absent"
        hint = "; ".join(f"no {backend}: {why}" for backend, why in missing.items() if why)
        section.append(Fact(name, value, not hint, hint))
    return section


def kernel() -> Fact:
    system = os.uname()
    return Fact("release", f"{system.sysname} {system.release} {system.machine}")


def feature(name: str) -> Fact:
    probe, loss = FEATURES[name]
    why = why_not(probe)
    return Fact(name, why or "works", not why, loss if why else "")


def descriptors() -> Fact:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    texts = [
        "unlimited" if number == resource.RLIM_INFINITY else str(number) for number in (soft, hard)
    ]
    good = hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_GOOD
    hint = (
        f"a server holds at most {hard - limits.SPARE_DESCRIPTORS} connections; "
        "raise it with LimitNOFILE= or ulimit -Hn"
    )
    return Fact(
        "RLIMIT_NOFILE",
        f"soft {texts[0]}, hard {texts[1]} (servers use the hard one)",
        good,
        "" if good else hint,
    )


SYSCTLS = (
    (
        "core/somaxconn",
        limits.BACKLOG,
        "a --backlog above this is cut to it; connections beyond it are dropped in a burst",
    ),
    (
        "ipv4/tcp_max_syn_backlog",
        SYN_BACKLOG_GOOD,
        "half-open connections beyond this are dropped or get SYN cookies",
    ),
    ("core/rmem_max", SOCKET_BUFFER_GOOD, "a larger --rcvbuf is silently cut to this"),
    ("core/wmem_max", SOCKET_BUFFER_GOOD, "a larger --sndbuf is silently cut to this"),
    (
        "ipv4/tcp_rmem",
        SOCKET_BUFFER_GOOD,
        "one connection receives at most this many bytes a round trip",
    ),
    (
        "ipv4/tcp_wmem",
        SOCKET_BUFFER_GOOD,
        "one connection sends at most this many bytes a round trip",
    ),
)
"""Path below /proc/sys/net, least value of its largest number, and the consequence of less."""


def sysctl(path: str, least: int, loss: str) -> Fact:
    name = path.rpartition("/")[2]
    try:
        text = read(path)
    except OSError as error:
        return Fact(name, f"unknown: {error.strerror}", False)
    good = max(int(word) for word in text.split()) >= least
    return Fact(
        name, text, good, "" if good else f"{loss}; sysctl net.{path.replace('/', '.')} changes it"
    )


def local_ports() -> Fact:
    first, last = (int(word) for word in read("ipv4/ip_local_port_range").split())
    count = last - first + 1
    hint = (
        f"a client has at most {count} connections to one endpoint; "
        "sysctl net.ipv4.ip_local_port_range changes it"
    )
    good = count >= LOCAL_PORTS_GOOD
    return Fact("ip_local_port_range", f"{first} {last}", good, "" if good else hint)


def congestion() -> Fact:
    current, known = (
        read("ipv4/tcp_congestion_control"),
        read("ipv4/tcp_available_congestion_control"),
    )
    return Fact("congestion control", f"{current} (available: {', '.join(known.split())})")


def read(path: str) -> str:
    with open(f"{SYSCTL}/{path}") as file:
        return " ".join(file.read().split())
