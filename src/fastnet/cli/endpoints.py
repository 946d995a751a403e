"""Endpoints as a user types them: HOST:PORT, HOST PORT, a bare HOST, a path."""

from __future__ import annotations

import re
from dataclasses import replace

import click

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.transport import TRANSPORTS


def read_endpoint(text: str, port: str | None, udp: bool) -> Endpoint:
    """Parse `HOST:PORT` or `HOST PORT`. Raises click.UsageError and ConfigError."""
    if port is not None:
        if text.lower().startswith(("unix:", "unixgram:")):
            raise click.UsageError(f"{text} is a path, it has no port")
        text = f"{bracketed(text)}:{port}"
    endpoint = Endpoint.parse(text, default="udp" if udp else "tcp")
    if udp and endpoint.transport == "unix":
        return replace(endpoint, transport="unixgram")
    if udp and not TRANSPORTS[endpoint.transport].datagrams:
        raise ConfigError(f"--udp does not go with {endpoint}", "Leave one of them out")
    return endpoint


def read_server(text: str, port: int) -> Endpoint:
    """Parse `HOST:PORT`, or a `HOST` with this default port. Raises ConfigError."""
    has_port = "://" in text or re.fullmatch(r"[^:]*:[^:]*|\[.*\]:.*", text)
    endpoint = Endpoint.parse(text if has_port else f"{bracketed(text)}:{port}", default="udp")
    if endpoint.transport != "udp":
        raise ConfigError(f"this does not go over {endpoint.transport}", "Write HOST or HOST:PORT")
    return endpoint


def bracketed(host: str) -> str:
    """The host, in brackets if it is an IPv6 address, so that a port can follow."""
    is_bare_ipv6 = host.count(":") > 1 and "[" not in host and "://" not in host
    return f"[{host}]" if is_bare_ipv6 else host
