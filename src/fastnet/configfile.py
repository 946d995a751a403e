"""A set of services from a TOML file: one [process] table and a [[server]] table for each server.

Every message names the file, the table by its number and the key, so that it can be found without counting lines.
Relative paths in the file are meant, as everywhere, from the folder the command is started in.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from fastnet.config import ProcessConfig, ServerConfig, build, suggestion
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, reason

TABLES = ["process", "server"]


@dataclass(frozen=True)
class ConfigFile:
    """What a file says. process: values of ProcessConfig, checked, not yet merged with other sources."""

    process: dict[str, Any]
    servers: tuple[ServerConfig, ...]


def read(path: str) -> ConfigFile:
    """Read and check a file. Raises ConfigError."""
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
        raise ConfigError(f"{path}: server is not a list of tables", "Write [[server]], with two brackets")
    if not tables:
        raise ConfigError(f"{path}: there is no server in it", 'Add [[server]] and below it service = "echo"')
    servers = tuple(server(table, f"{path}: [[server]] number {i}") for i, table in enumerate(tables, 1))
    check_endpoints(path, servers)
    return ConfigFile(process, servers)


def parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}", "Name a TOML file that this user may read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", "TOML files are UTF-8 text") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}", "https://toml.io has the rules") from error


def server(table: dict[str, Any], where: str) -> ServerConfig:
    if "service" not in table:
        raise ConfigError(f"{where}: service is missing", 'Write service = "echo", or another one')
    return build(ServerConfig, table, where)


def check_endpoints(path: str, servers: tuple[ServerConfig, ...]) -> None:
    """Refuse two servers in one place, before SO_REUSEPORT could let them share it unnoticed."""
    taken: dict[Endpoint, int] = {}
    for number, config in enumerate(servers, 1):
        endpoint = config.endpoint
        if not endpoint.is_local and endpoint.port == 0:
            continue
        first = taken.setdefault(endpoint, number)
        if first != number and not (config.reuse_port and servers[first - 1].reuse_port):
            cure = "Give one of them another port, or both reuse_port = true to share it"
            raise ConfigError(f"{path}: [[server]] numbers {first} and {number} both listen on {endpoint}", cure)
