"""TOML configuration: one [process] table and a [[server]] table for each server.

Every message names the file, the number of the table and the key. Two servers on one address are
refused here, in any spelling of the address; names are resolved for that. Relative paths in the
file are relative to the working directory, as everywhere.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from typing import Any

from fastnet.config.fields import build, suggestion
from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError, reason
from fastnet.transport.resolve import bind_address

TABLES = ["process", "server"]


@dataclass(frozen=True)
class ConfigFile:
    """The content of a file."""

    process: dict[str, Any]
    """Values of ProcessConfig, checked, not yet merged with other sources."""
    servers: tuple[ServerConfig, ...]


def read(path: str) -> ConfigFile:
    """Read and validate a file. Raises ConfigError."""
    found = parse(path)
    for name in found:
        if name not in TABLES:
            raise ConfigError(f"{path}: unknown table or key {name!r}", suggestion(name, TABLES))
    process = found.get("process", {})
    if not isinstance(process, dict):
        raise ConfigError(f"{path}: process is not a table", "Write [process] on a line of its own")
    build(ProcessConfig, process, f"{path}: [process]")
    tables = found.get("server", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(
            f"{path}: server is not a list of tables", "Write [[server]], with two brackets"
        )
    if not tables:
        raise ConfigError(
            f"{path}: there is no server in it", 'Add [[server]] and below it service = "echo"'
        )
    servers = tuple(
        server(table, f"{path}: [[server]] number {i}") for i, table in enumerate(tables, 1)
    )
    check_endpoints(path, servers)
    return ConfigFile(process, servers)


def parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {reason(error)}", "Name a TOML file that this user may read"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 at byte {error.start}", "TOML files are UTF-8 text"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}", "https://toml.io has the rules") from error


def server(table: dict[str, Any], where: str) -> ServerConfig:
    if "service" not in table:
        raise ConfigError(f"{where}: service is missing", 'Write service = "echo", or another one')
    return build(ServerConfig, table, where)


@dataclass(frozen=True)
class BoundAddress:
    """The address that an endpoint binds on this host: equal for two spellings of one address."""

    transport: str
    where: str
    """A numeric address, or the real path of a socket file."""
    port: int

    @classmethod
    def of(cls, endpoint: Endpoint) -> BoundAddress:
        if endpoint.is_local:
            if endpoint.path.startswith("@"):
                # a stream and a datagram socket may have the same abstract address
                return cls(endpoint.transport, endpoint.path, 0)
            return cls("unix", os.path.realpath(endpoint.path), 0)
        try:
            host = str(bind_address(endpoint)[1][0]) if endpoint.host else ""
        except NetworkError:
            host = endpoint.host  # listening there reports the error
        return cls(endpoint.transport, host, endpoint.port)

    def clashes(self, other: BoundAddress) -> bool:
        """Whether binding both fails unless they are shared.

        The wildcard addresses, no host, 0.0.0.0 and ::, include the others.
        """
        if (self.transport, self.port) != (other.transport, other.port):
            return False
        both = {self.where, other.where}
        is_v6 = {":" in where for where in both}
        return (
            len(both) == 1
            or "" in both
            or (len(is_v6) == 1 and not both.isdisjoint(("0.0.0.0", "::")))
        )


def check_endpoints(path: str, servers: tuple[ServerConfig, ...]) -> None:
    """Refuse two servers on one address, which SO_REUSEPORT would let them share unnoticed."""
    taken: list[tuple[BoundAddress, int, ServerConfig]] = []
    for number, config in enumerate(servers, 1):
        endpoint = config.endpoint
        if not endpoint.is_local and endpoint.port == 0:
            continue
        address = BoundAddress.of(endpoint)
        for other, first, earlier in taken:
            shared = config.reuse_port and earlier.reuse_port and not endpoint.is_local
            if address.clashes(other) and not shared:
                at = (
                    endpoint
                    if endpoint == earlier.endpoint
                    else f"{earlier.endpoint}, the latter as {endpoint}"
                )
                hint = "Give one of them another path" if endpoint.is_local else PORT_HINT
                raise ConfigError(
                    f"{path}: [[server]] numbers {first} and {number} both listen on {at}", hint
                )
        taken.append((address, number, config))


PORT_HINT = "Give one of them another port, or both reuse_port = true to share it"
