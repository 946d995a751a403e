"""What makes several chat servers one: one row a way. To add one, write its file and its row."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from fastnet.apps.chat.backplane.contract import Backplane
from fastnet.endpoint import PORT_MAX
from fastnet.errors import ConfigError, UnsupportedError
from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class BackplaneRow(Row):
    """written: how --backplane names it."""

    written: str = ""


def needs_redis() -> str:
    return (
        ""
        if find_spec("redis")
        else "the package redis is not installed (pip install 'fastnet-io[redis]')"
    )


BACKPLANES: Registry[BackplaneRow] = Registry(
    __name__,
    {
        "memory": BackplaneRow("this server alone", "memory", written="memory"),
        "redis": BackplaneRow(
            "all servers that name the same database of a Redis or Valkey server, through its streams",
            "redis_streams",
            needs=needs_redis,
            written="redis://HOST[:PORT]/[DB]",
        ),
    },
)


def check(url: str) -> None:
    """Raises ConfigError for what names no backplane."""
    hint = " or ".join(row.written for row in BACKPLANES.values())
    name, is_url, _ = url.partition("://")
    try:
        parts = urlsplit(url)
        is_good = (
            (bool(parts.hostname) and (parts.port is None or 0 < parts.port <= PORT_MAX))
            if is_url
            else True
        )
    except ValueError:
        is_good = False
    if name not in BACKPLANES or bool(is_url) != (name != "memory") or not is_good:
        raise ConfigError(f"no backplane is written {shown(url)}", f"Write {hint}")
    if is_url and not (parts.path.strip("/") or "0").isdecimal():
        raise ConfigError(f"{shown(url)} names no database by its number", f"Write {hint}")


def shown(url: str) -> str:
    """A backplane's name without the password that may be in it."""
    scheme, is_url, rest = url.partition("://")
    return f"{scheme}{is_url}{rest.rpartition('@')[2]}"


def open_backplane(url: str) -> Backplane:
    """One server's end of a backplane; not connected yet. Raises UnsupportedError."""
    name = url.partition("://")[0]
    if why := BACKPLANES.why_not(name, "python"):
        raise UnsupportedError(
            f"no backplane {name} here: {why}", "Install it, or leave --backplane out"
        )
    end: Backplane = BACKPLANES.load(name, "python").Backplane(url)
    return end
