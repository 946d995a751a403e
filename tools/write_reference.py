"""Write the pages of docs/reference that are made from the code.

`make docs` calls it before Sphinx reads the folder; what it writes is not kept in the repository.
"""

from __future__ import annotations

import pydoc
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

import fastnet
from fastnet import aio
from fastnet.cli.main import COMMANDS, Commands
from fastnet.config.fields import options
from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "generated"


def heading(text: str, line: str = "=") -> str:
    """A heading of reStructuredText."""
    return f"{text}\n{line * len(text)}\n\n"


def directives(module: str, names: Iterable[str]) -> str:
    """An autodoc directive for each function and each class."""
    text = ""
    for name in names:
        if name.startswith("_"):
            continue
        is_class = name[0].isupper()
        kind = "autoclass" if is_class else "autofunction"
        text += f".. {kind}:: {module}.{name}\n"
        text += "   :members:\n   :show-inheritance:\n\n" if is_class else "\n"
    return text


def library() -> str:
    """Every name that the package exports."""
    functions = [name for name in fastnet.__all__ if name[0].islower()]
    classes = [name for name in fastnet.__all__ if name[0].isupper()]
    intro = "Every public name, with the docstring that ``help()`` shows.\n\n"
    return (
        heading("Library")
        + intro
        + heading("Functions", "-")
        + directives("fastnet", functions)
        + heading("Types", "-")
        + directives("fastnet", classes)
    )


def asyncio_page() -> str:
    """The functions of fastnet.aio."""
    names = [name for name in fastnet.__all__ if name[0].islower() and hasattr(aio, name)]
    return heading("Library for asyncio") + directives("fastnet.aio", names)


def testing_page() -> str:
    """The conformance suites of fastnet.testing."""
    from fastnet import testing

    return heading("Conformance suites") + directives("fastnet.testing", testing.__all__)


def option_rows(config: type[Any]) -> str:
    """A table of the options of one configuration class."""
    text = ".. list-table::\n   :header-rows: 1\n   :widths: 22 14 64\n\n"
    text += "   * - Option\n     - Default\n     - Meaning\n"
    for each in options(config):
        metadata = each.metadata
        value = "|".join(metadata["choices"]) or metadata["unit"]
        meaning = re.sub(r"(http://\S+)", r"``\1``", metadata["help"]) + (
            f" Value: ``{value}``." if value else ""
        )
        text += f"   * - ``{each.name}``\n     - ``{each.default!r}``\n     - {meaning}\n"
    return text + "\n"


def options_page() -> str:
    """The settings of a server and of the process around it."""
    intro = """
        An option is written ``--max-connections 1000`` on the command line,
        ``max_connections = 1000`` in a TOML file (``fastnet up``), FASTNET_MAX_CONNECTIONS in the
        environment of a server command, and ``max_connections=1000`` in :func:`fastnet.serve`.

    """
    return (
        heading("Options of servers")
        + textwrap.dedent(intro).lstrip()
        + heading("A server", "-")
        + option_rows(ServerConfig)
        + heading("The process around it", "-")
        + option_rows(ProcessConfig)
    )


def commands_page() -> str:
    """The help text of every command, as the terminal shows it."""
    group = Commands(name="fastnet")
    text = heading("Commands")
    for name in COMMANDS:
        text += heading(f"fastnet {name}", "-")
        for title, command in with_subcommands(f"fastnet {name}", group, name):
            context = click.Context(command, info_name=title, terminal_width=88)
            shown = command.get_help(context)
            text += ".. code-block:: text\n\n" + textwrap.indent(shown, "   ") + "\n\n"
    return text


def with_subcommands(
    title: str, group: click.Group, name: str
) -> Iterable[tuple[str, click.Command]]:
    """A command and those below it."""
    command = group.get_command(click.Context(group), name)
    assert command is not None
    yield title, command
    if isinstance(command, click.Group):
        for each in command.list_commands(click.Context(command)):
            yield from with_subcommands(f"{title} {each}", command, each)


def serve_help() -> str:
    """What help(fastnet.serve) prints."""
    return pydoc.plaintext.document(fastnet.serve, "serve")


def write() -> None:
    """Write every page; a page that has not changed is left alone."""
    TARGET.mkdir(exist_ok=True)
    pages = {
        "library.rst": library(),
        "asyncio.rst": asyncio_page(),
        "testing.rst": testing_page(),
        "options.rst": options_page(),
        "commands.rst": commands_page(),
        "serve-help.txt": serve_help(),
    }
    for name, text in pages.items():
        path = TARGET / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    write()
