"""Backplanes, which join chat servers: to add one, write its file and its row."""

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
    """A backplane."""

    url_form: str = ""
    """Form of its URL, for --backplane."""


def needs_redis() -> str:
    """Why Redis cannot be used here; "" if it can."""
    return (
        ""
        if find_spec("redis")
        else "the package redis is not installed (pip install 'fastnet-io[redis]')"
    )


BACKPLANES: Registry[BackplaneRow] = Registry(
    __name__,
    {
        "memory": BackplaneRow("this server alone", "memory", url_form="memory"),
        "redis": BackplaneRow(
            "all servers with the same database of a Redis or Valkey server, by its streams",
            "redis_streams",
            needs=needs_redis,
            url_form="redis://HOST[:PORT]/[DB]",
        ),
    },
)


def check_url(url: str) -> None:
    """Raises ConfigError for a URL that names no backplane."""
    hint = " or ".join(row.url_form for row in BACKPLANES.values())
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
        raise ConfigError(f"{hide_password(url)} is no backplane", f"Write {hint}")
    if is_url and not (parts.path.strip("/") or "0").isdecimal():
        raise ConfigError(f"{hide_password(url)} has no database number", f"Write {hint}")


def hide_password(url: str) -> str:
    """A backplane's URL without the user and password that it may contain."""
    scheme, is_url, rest = url.partition("://")
    return f"{scheme}{is_url}{rest.rpartition('@')[2]}"


def open_backplane(url: str) -> Backplane:
    """One server's connection to a backplane; not started yet. Raises UnsupportedError."""
    name = url.partition("://")[0]
    if why := BACKPLANES.why_not(name, "python"):
        raise UnsupportedError(
            f"no backplane {name} here: {why}", "Install it, or leave --backplane out"
        )
    backplane: Backplane = BACKPLANES.load(name, "python").Backplane(url)
    return backplane
