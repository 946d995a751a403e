"""Allow file: the commands that may run, one table each.

    [command.ping]
    argv = ["/usr/bin/ping", "-c", "{1}", "{2}"]  # program and arguments; {1}: first requested one
    arguments = ["[1-9]", "[a-z0-9.-]{1,253}"]    # a regular expression each, to match all of it
    environment = { LANG = "C.UTF-8" }            # besides PATH and FASTNET_EXECUTION
    directory = "/"
    user = "backup"                               # another user; only when the server runs as root
    time_limit_s = 10.0
    output_bytes_max = 65536                      # standard output and standard error together
    concurrent_max = 1
    keys = ["alice"]                              # the keys that may run it; default: every key
    dashes = false                                # may an argument begin with -

Facts. There is no shell, so no argument can become a second command; but many programs have options
that write files or run programs, and an argument that begins with "-" is an option wherever it
stands.
Decision: such an argument is refused unless `dashes` allows it; "--to={1}" is safe, as the dash is
not the argument's. Patterns know ASCII only: \\d is ten digits, \\w no letters of other scripts. A
file with one mistake is refused as a whole.

Facts. A pattern like (a+)+b makes Python's re try every way to part its text (catastrophic
backtracking), years of them for forty letters, and no other thread runs meanwhile. Which patterns
do that cannot be read off their form: ([a-z]+\\.)+ is harmless, .*.*.*.*b is not. But re checks
for signals while it searches, in the main thread, and a handler that raises ends the search.
Decision: no pattern is refused at the start, which would reject harmless ones and miss others; the
patterns of one request have EXEC_MATCH_S of processor time, counted by the kernel, and then the
request is refused. admission.py then denies that key for a while, so that many such requests do not
add up to the same.
Not taken: a process for each match (it would cost more than the commands); a library that never
backtracks (a large thing to trust for a few arguments).
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastnet.apps.exec.wire import Refusal
from fastnet.config.fields import suggestion
from fastnet.errors import ConfigError
from fastnet.limits import (
    EXEC_ARGUMENTS_MAX,
    EXEC_CONCURRENT_MAX,
    EXEC_MATCH_S,
    EXEC_OUTPUT_BYTES,
    EXEC_OUTPUT_BYTES_MAX,
    EXEC_TIME_LIMIT_MAX_S,
    EXEC_TIME_LIMIT_S,
)
from fastnet.security.keys import read_private
from fastnet.security.mac import KEY_ID

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)
PLACEHOLDER = re.compile(r"\{([0-9]+)\}", re.ASCII)
PATH = "/usr/local/bin:/usr/bin:/bin"
MISSING = "It is a TOML file with a table [command.NAME] for each command; docs/exec.md has one"


class Denied(Exception):
    """A request is refused.

    Args:
        refusal: Sent to the client.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class MatchTimeout(Denied):
    """Pattern matching exceeded its CPU budget."""


def denied(code: str, text: str) -> Denied:
    return Denied(Refusal(code, text))


@dataclass(frozen=True)
class Command:
    """One table of the allow file, checked."""

    name: str
    """The name by which clients request it."""
    argv: tuple[str, ...]
    """Program and arguments; {N} stands for argument N of the request."""
    arguments: tuple[re.Pattern[str], ...] = ()
    """A pattern for each argument of the request."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables besides PATH."""
    directory: str = "/"
    """Working directory."""
    user: str = ""
    """The user it runs as; "" is the server's."""
    time_limit_s: float = EXEC_TIME_LIMIT_S
    """Wall-clock time until SIGTERM."""
    output_bytes_max: int = EXEC_OUTPUT_BYTES
    """Limit of standard output and standard error together."""
    concurrent_max: int = 1
    """How many may run at the same time."""
    keys: tuple[str, ...] = ()
    """Ids of the keys that may run it; empty: every key."""
    dashes: bool = False
    """Whether an argument in place of an option may begin with a dash."""

    def fill(self, arguments: list[str]) -> list[str]:
        """The argument vector to execute. Raises Denied."""
        if len(arguments) != len(self.arguments):
            raise denied(
                "arguments", f"{self.name} takes {many(len(self.arguments))}, not {len(arguments)}"
            )
        self._match(arguments)
        argv = [
            PLACEHOLDER.sub(lambda found: arguments[int(found[1]) - 1], item) for item in self.argv
        ]
        for template, item in zip(self.argv, argv, strict=True):
            if item.startswith("-") and not template.startswith("-") and not self.dashes:
                raise denied(
                    "arguments",
                    f"an argument of {self.name} begins with - and could be taken for an option",
                )
        return argv

    def _match(self, arguments: list[str]) -> None:
        """Match every argument. Raises Denied, of which MatchTimeout is one."""
        number, pattern = 0, None
        try:
            with processor_time(EXEC_MATCH_S):
                for number, (pattern, text) in enumerate(
                    zip(self.arguments, arguments, strict=True), 1
                ):
                    if not pattern.fullmatch(text):
                        raise denied(
                            "arguments",
                            f"argument {number} of {self.name} does not match {pattern.pattern}",
                        )
        except TimeoutError:
            shown = pattern.pattern if pattern else ""
            what = f"argument {number} of {self.name} takes too long to match {shown}"
            raise MatchTimeout(Refusal("arguments", what)) from None


@contextmanager
def processor_time(limit_s: float) -> Iterator[None]:
    """Bound the processor time of the block. Only in the main thread.

    Raises TimeoutError in the block when `limit_s` of this process's user time has passed.
    """

    def over(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, over)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def many(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


Policy = dict[str, Command]


def permit(policy: Policy, key_id: str, argv: list[str]) -> tuple[Command, list[str]]:
    """Find the requested command and its argument vector.

    Args:
        policy: The allow file.
        key_id: The key that authenticated the request.
        argv: Name of the command and its arguments.
    Raises:
        Denied: no such command, another key, arguments that do not match.
    """
    command = policy.get(argv[0])
    if command is None:
        raise denied("command", f"there is no command {argv[0]!r} here")
    if command.keys and key_id not in command.keys:
        raise denied("key", f"{key_id} may not run {command.name}")
    return command, command.fill(argv[1:])


def read_policy(path: str, key_ids: list[str]) -> Policy:
    """Read and check an allow file.

    Args:
        path: The file; not writable by other users.
        key_ids: Ids of the known keys.
    Raises:
        ConfigError: names the TOML key of the mistake.
    """
    text = read_private(path, "allowed commands", 0o022, MISSING)
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}", "https://toml.io has the rules") from error
    for name in found:
        if name != "command":
            raise ConfigError(
                f"{path}: unknown table or key {name!r}", "Write [command.NAME] for each command"
            )
    tables = found.get("command", {})
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(
            f"{path} allows no command", "Write [command.NAME], and argv = [...] below it"
        )
    return {
        name: read_command(name, table, f"{path}: command.{name}", key_ids)
        for name, table in tables.items()
    }


def read_command(name: str, table: Any, where: str, key_ids: list[str]) -> Command:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: no command can have this name", "1 to 32 letters, digits and _ . -"
        )
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is not a table", f"Write [command.{name}] on a line of its own")
    for key in table:
        if key not in READERS:
            raise ConfigError(f"{where}.{key}: unknown key", suggestion(key, list(READERS)))
    if "argv" not in table:
        raise ConfigError(f"{where}.argv is missing", 'Write argv = ["/usr/bin/uptime"]')
    command = Command(
        name, **{key: READERS[key](value, f"{where}.{key}") for key, value in table.items()}
    )
    check_placeholders(command, where)
    for key_id in command.keys:
        if key_id not in key_ids:
            raise ConfigError(
                f"{where}.keys: there is no key {key_id!r}", suggestion(key_id, key_ids)
            )
    return command


def check_placeholders(command: Command, where: str) -> None:
    """Each argument has a placeholder and each placeholder an argument."""
    used = {int(number) for item in command.argv for number in PLACEHOLDER.findall(item)}
    count = len(command.arguments)
    for number in sorted(used):
        if not 1 <= number <= count:
            hint = f"arguments has {count} patterns; {{1}} is the first argument"
            raise ConfigError(f"{where}.argv: {{{number}}} has no pattern", hint)
    for number in range(1, count + 1):
        if number not in used:
            hint = f"Write {{{number}}} in argv where it belongs"
            raise ConfigError(f"{where}.arguments[{number - 1}] is used nowhere", hint)


def texts(value: Any, where: str, most: int = 256) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where} is not a list of texts", 'Write ["one", "two"]')
    if len(value) > most:
        raise ConfigError(f"{where} has {len(value)} items", f"At most {most}")
    for number, item in enumerate(value):
        if "\0" in item:
            raise ConfigError(
                f"{where}[{number}] has a NUL character", "No program can be given one"
            )
    return tuple(value)


def read_argv(value: Any, where: str) -> tuple[str, ...]:
    argv = texts(value, where)
    if not argv or not argv[0].startswith("/"):
        raise ConfigError(
            f"{where}[0] is not the full path of a program", 'Write argv = ["/usr/bin/uptime"]'
        )
    if PLACEHOLDER.search(argv[0]):
        raise ConfigError(
            f"{where}[0] depends on an argument",
            "The program itself is fixed; make a command for each",
        )
    if not (os.path.isfile(argv[0]) and os.access(argv[0], os.X_OK)):
        raise ConfigError(
            f"{where}[0]: {argv[0]} is not a program that can be run", f"Check it: ls -lL {argv[0]}"
        )
    return argv


def read_patterns(value: Any, where: str) -> tuple[re.Pattern[str], ...]:
    patterns = []
    for number, text in enumerate(texts(value, where, EXEC_ARGUMENTS_MAX)):
        try:
            patterns.append(re.compile(text, re.ASCII))
        except (re.error, OverflowError, RecursionError) as error:
            hint = "It is a regular expression of Python's re, which must match the whole argument"
            raise ConfigError(f"{where}[{number}]: {text!r}: {error}", hint) from error
    return tuple(patterns)


def read_environment(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is not a table", 'Write { LANG = "C.UTF-8" }')
    for name, text in value.items():
        if not isinstance(text, str) or "\0" in text:
            raise ConfigError(f"{where}.{name} is not a text without NUL", f'Write {name} = "..."')
        if not name or "=" in name or "\0" in name:
            raise ConfigError(f"{where}: no variable can be called {name!r}", "A name without =")
    return tuple(value.items())


def read_directory(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{where} is not a full path", 'Write directory = "/var/tmp"')
    if not os.path.isdir(value):
        raise ConfigError(f"{where}: {value} is not a folder", "Make it first, or name another one")
    return value


def read_user(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is not a text", 'Write user = "backup"')
    try:
        found = pwd.getpwnam(value)
    except (KeyError, ValueError):
        raise ConfigError(
            f"{where}: this host has no user {value!r}", "getent passwd lists them"
        ) from None
    if os.geteuid() not in (0, found.pw_uid):
        hint = f"Leave it out, or run the server as {value} or, with --allow-root, as root"
        raise ConfigError(f"{where}: only root can run a command as {value}", hint)
    return value


def number_reader(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(
            value, bool
        )
        if not is_number or not least <= value <= most:
            word = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{where} = {value!r} is not {word} from {least:g} to {most:.10g}")
        return kind(value)

    return read


def read_keys(value: Any, where: str) -> tuple[str, ...]:
    key_ids = texts(value, where)
    for key_id in key_ids:
        if not KEY_ID.fullmatch(key_id):
            raise ConfigError(
                f"{where}: {key_id!r} cannot be the id of a key",
                "1 to 32 letters, digits and _ . @ -",
            )
    if not key_ids:
        raise ConfigError(
            f"{where} is empty, so no key may run it", "Leave it out for every key, or name one"
        )
    return key_ids


def read_flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} = {value!r} is not true or false")
    return value


READERS: dict[str, Callable[[Any, str], Any]] = {
    "argv": read_argv,
    "arguments": read_patterns,
    "environment": read_environment,
    "directory": read_directory,
    "user": read_user,
    "time_limit_s": number_reader(float, 0.01, EXEC_TIME_LIMIT_MAX_S),
    "output_bytes_max": number_reader(int, 0, EXEC_OUTPUT_BYTES_MAX),
    "concurrent_max": number_reader(int, 1, EXEC_CONCURRENT_MAX),
    "keys": read_keys,
    "dashes": read_flag,
}
"""Keys of a command's table, and the function that checks each."""
