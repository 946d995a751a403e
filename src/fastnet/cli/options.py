"""Command-line options made from config fields, so that no option is written twice."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from fastnet.config.server import build, from_environment, options, value_type

SIGNALS = """\b
Signals: INT and TERM stop accepting and let connections finish for up to
--drain seconds; a second one stops at once. HUP opens log files anew.
USR1 logs the statistics.

\b
Exit codes: 0 stopped, 2 usage, 3 configuration, 4 network (address in use,
not permitted), 7 not supported here, 130 interrupted while draining."""
"""Ends the help text of serving commands."""


def parameter(config: type[Any], each: dataclasses.Field[Any]) -> click.Option:
    """The click option of one field. Its default is None: only what was typed is passed on."""
    kind = value_type(config, each.name)
    name = each.name.replace("_", "-")
    help = each.metadata["help"]
    if each.default not in (None, "", ()) and kind is not bool:
        help += (
            f"  [default: {each.default:g}]" if kind is float else f"  [default: {each.default}]"
        )
    if kind is bool:
        flags = f"--{name}/--no-{name}" if each.default else f"--{name}"
        return click.Option([flags, each.name], is_flag=True, default=None, help=help)
    choices = each.metadata["choices"]
    return click.Option(
        [f"--{name}", each.name],
        type=click.Choice(choices) if choices else argument_type(kind, each.metadata["word"]),
        multiple=kind is tuple,
        metavar=None if choices else each.metadata["unit"],
        help=help,
    )


def argument_type(kind: type[Any], word: str) -> Any:
    if word:
        return NumberOrWord(word)
    return str if kind is tuple else kind


class NumberOrWord(click.types.IntParamType):
    """A whole number, or one word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == self.word else super().convert(value, param, ctx)


def parameters(config: type[Any], leave_out: tuple[str, ...] = ()) -> list[click.Parameter]:
    """All options of a config class, in order."""
    return [parameter(config, each) for each in options(config) if each.name not in leave_out]


def collect(config: type[Any], typed: dict[str, Any], fixed: dict[str, Any]) -> Any:
    """A config object from what was typed, over the environment, over the defaults. Raises
    ConfigError.
    """
    names = {each.name for each in options(config)}
    given = {
        name: value
        for name, value in typed.items()
        if name in names and value is not None and value != ()
    }
    return build(config, from_environment(config, os.environ) | given | fixed, "")
