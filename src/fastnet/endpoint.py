"""Endpoint: transport and address of a socket, parsed from text and formatted back.

    HOST:PORT            tcp, or the default of the caller
    tcp://HOST:PORT      udp://HOST:PORT
    [::1]:PORT           an IPv6 address in brackets when a port follows (RFC 3986, 3.2.2)
    tcp://:PORT          every address of this host, IPv6 and IPv4
    unix:PATH            a socket file; unix:@NAME is in Linux's abstract namespace (unix(7)), which
                         leaves no file
    unixgram:PATH        the same for datagrams; nc calls it -uU

Nothing here does I/O: names are resolved where a socket is opened (transport/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastnet.errors import ConfigError

PORT_MAX = 65535
UNIX_PATH_BYTES_MAX = 107
"""sun_path has 108 bytes, and the last one must be NUL for a path (unix(7))."""

_SCHEME = re.compile(r"^(tcp|udp)://", re.IGNORECASE)
_LOCAL = re.compile(r"^(unix|unixgram):", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """The address of a socket. Raises ConfigError for a port or path that is out of range."""

    transport: str
    """"tcp", "udp", "unix" or "unixgram"."""
    host: str = ""
    """Name or address; "" is every address of this host."""
    port: int = 0
    path: str = ""
    """Of a Unix socket; @NAME is an abstract address."""

    def __post_init__(self) -> None:
        if self.is_local:
            check_path(self.path)
        elif not 0 <= self.port <= PORT_MAX:
            raise ConfigError(
                f"port {self.port} is out of range", f"Ports go from 0 (pick one) to {PORT_MAX}"
            )

    def __str__(self) -> str:
        if self.is_local:
            return f"{self.transport}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is a Unix socket, with a path instead of host and port."""
        return self.transport in ("unix", "unixgram")

    @classmethod
    def parse(cls, text: str, default: str = "tcp") -> Endpoint:
        """Parse a text. default: the transport of a bare HOST:PORT. Raises ConfigError."""
        if local := _LOCAL.match(text):
            return cls(local.group(1).lower(), path=text[local.end() :])
        scheme = _SCHEME.match(text)
        transport = scheme.group(1).lower() if scheme else default
        rest = text[scheme.end() :] if scheme else text
        if not scheme and "://" in text:
            raise ConfigError(
                f"unknown transport in {text!r}",
                "Write tcp://HOST:PORT, udp://HOST:PORT, unix:PATH or unixgram:PATH",
            )
        host, port = split_host_port(rest, text)
        return cls(transport, host, port)


def split_host_port(rest: str, text: str) -> tuple[str, int]:
    """Split HOST:PORT or [IPV6]:PORT. text: the whole endpoint, for the message."""
    hint = "Write HOST:PORT, [IPV6]:PORT or unix:PATH"
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise ConfigError(f"bad endpoint {text!r}", hint)
        digits = tail[1:]
    else:
        host, colon, digits = rest.rpartition(":")
        if not colon:
            raise ConfigError(f"endpoint {text!r} has no port", hint)
        if ":" in host:
            raise ConfigError(
                f"bad endpoint {text!r}", f"An IPv6 address needs brackets: [{host}]:{digits}"
            )
    if not (digits.isascii() and digits.isdigit()):
        raise ConfigError(f"bad port {digits!r} in {text!r}", hint)
    return host, int(digits)


def check_path(path: str) -> None:
    """Raise ConfigError for a socket path that bind(2) refuses."""
    if not path:
        raise ConfigError(
            "a unix endpoint needs a path", "Write unix:/run/user/1000/echo.sock or unix:@name"
        )
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > UNIX_PATH_BYTES_MAX:
        raise ConfigError(
            f"socket path of {size} bytes is too long",
            f"Linux takes at most {UNIX_PATH_BYTES_MAX} bytes (unix(7))",
        )
    if "\0" in path:
        raise ConfigError(
            "a socket path cannot hold a NUL byte", "Write unix:@name for the abstract namespace"
        )
