"""Command-line options generated from config fields."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from fastnet.config.fields import (
    Choice,
    CountOrWord,
    Kind,
    build,
    from_environment,
    kind_of,
    options,
)
from fastnet.config.server import SETTINGS
from fastnet.service import SERVICES

SIGNALS = """\b
Signals: INT and TERM stop accepting and let connections finish for up to
--drain seconds; a second one stops immediately. HUP reopens log files.
USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration, 4 network (address in use,
not permitted), 7 not supported here, 130 interrupted while draining."""
"""The end of the help text of serving commands."""


def parameter(config: type[Any], each: dataclasses.Field[Any]) -> click.Option:
    """The click option of a field; its default is None, so that only given values count."""
    kind = kind_of(config, each)
    value_type = kind.value_type
    name = each.name.replace("_", "-")
    help = each.metadata["help"]
    if each.default not in (None, "", ()) and value_type is not bool:
        help += (
            f"  [default: {each.default:g}]"
            if value_type is float
            else f"  [default: {each.default}]"
        )
    if value_type is bool:
        flags = f"--{name}/--no-{name}" if each.default else f"--{name}"
        return click.Option([flags, each.name], is_flag=True, default=None, help=help)
    return click.Option(
        [f"--{name}", each.name],
        type=argument_type(kind),
        multiple=value_type is tuple,
        metavar=None if isinstance(kind, Choice) else kind.unit,
        help=help,
    )


def argument_type(kind: Kind) -> Any:
    """The click type of a kind."""
    if isinstance(kind, Choice):
        return click.Choice(kind.choices)
    if isinstance(kind, CountOrWord):
        return NumberOrWord(kind.word)
    return str if kind.value_type is tuple else kind.value_type


class NumberOrWord(click.types.IntParamType):
    """A click type: a whole number, or one word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == self.word else super().convert(value, param, ctx)


def parameters(config: type[Any], leave_out: tuple[str, ...] = ()) -> list[click.Parameter]:
    """The click options of a config class, in order."""
    return [parameter(config, each) for each in options(config) if each.name not in leave_out]


def collect(config: type[Any], typed: dict[str, Any], fixed: dict[str, Any]) -> Any:
    """A config object from the command line, over the environment, over the defaults.

    Args:
        typed: Values by option; None and () were not given.
        fixed: Values that the command sets.
    Raises:
        ConfigError: A value is not valid.
    """
    names = {each.name for each in options(config)}
    given = {
        name: value
        for name, value in typed.items()
        if name in names and value is not None and value != ()
    }
    return build(config, from_environment(config, os.environ) | given | fixed, "")


def other_settings(service: str) -> tuple[str, ...]:
    """Names of the settings that only other services have."""
    own = {each.name for each in SERVICES[service].settings}
    return tuple(name for name in SETTINGS if name not in own)
