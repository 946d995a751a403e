"""Every public name, limit and command is documented where it stands."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import click
import pytest

import fastnet
from fastnet import limits
from fastnet.cli.main import COMMANDS, Commands
from tests.support.tree import name_of


def test_every_public_name_is_there_and_documented() -> None:
    assert len(set(fastnet.__all__)) == len(fastnet.__all__)
    for name in fastnet.__all__:
        if name != "__version__":
            assert getattr(fastnet, name).__doc__, name


@pytest.mark.parametrize("path", sorted(Path(limits.__file__).parent.glob("*.py")), ids=name_of)
def test_every_limit_is_documented_below_its_name(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("KIB", "MIB"):
                continue
            assert isinstance(after, ast.Expr), f"{name} has no docstring"
            assert isinstance(after.value, ast.Constant), f"{name} has no docstring"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name: str) -> None:
    group = Commands(name="fastnet")
    command = group.get_command(click.Context(group), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    assert f"fastnet {name}" in text.partition("Usage:")[2].partition("\n")[2], text
