"""The example in each command's help runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from fastnet.cli.main import COMMANDS, fastnet
from fastnet.service import SERVICES
from tests.support.cli_process import ROOT, finish, running

COMMAND_LINE = re.compile(r"^\s*(?:Example: )?(fastnet .*)$", re.MULTILINE)

READS_INPUT = {
    "connect": "talks to a server; tests/cli/test_connect.py runs it",
    "send": "needs a receiver; tests/cli/test_transfer.py runs it",
    "chat": "needs a server; tests/process/test_chat.py runs it",
    "exec": "needs keys and commands; tests/process/test_exec.py runs it",
    "recv": "needs a sender; tests/cli/test_transfer.py runs it",
}
"""Commands whose examples need a peer, and where they are run."""


SERVERS = [*(name for name in SERVICES if name in COMMANDS), "dict"]


def examples(name: str) -> list[str]:
    """The command lines that a command's help gives as examples."""
    command = fastnet.get_command(click.Context(fastnet), name)
    assert command is not None
    text = "\n".join([command.epilog or "", command.help or ""])
    return [line for line in COMMAND_LINE.findall(text) if line.split()[1] == name]


def available() -> list[str]:
    return [
        name
        for name, (module, _) in COMMANDS.items()
        if (ROOT / "src" / f"{module.replace('.', '/')}.py").exists()
    ]


@pytest.mark.parametrize("name", available())
def test_every_command_has_an_example(name: str) -> None:
    assert examples(name)


@pytest.mark.parametrize("name", [*SERVERS, "up"])
def test_the_example_of_a_server_listens(name: str, tmp_path: Path) -> None:
    for example in examples(name):
        words = shlex.split(re.sub(r"--port \d+", "--port 0", example))[1:]
        if name == "up":
            text = re.sub(r"port = \d+", "port = 0", Path(ROOT, words[1]).read_text())
            copy = tmp_path / "example.toml"
            copy.write_text(text.replace(":7090", ":0").replace("@fastnet", f"@{tmp_path.name}"))
            words[1] = str(copy)
        with running(*words) as server:
            server.endpoint()
            assert server.end()[0] == 0


@pytest.mark.parametrize(
    "name", [name for name in available() if name not in (*SERVERS, "up", *READS_INPUT)]
)
def test_the_example_of_a_command_that_ends_succeeds(name: str) -> None:
    for example in examples(name):
        done = finish(*shlex.split(example)[1:])
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), *((name, "--help") for name in available())], ids=" ".join
)
def test_help_is_given_without_work(arguments: tuple[str, ...]) -> None:
    done = finish(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: fastnet")
