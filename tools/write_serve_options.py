"""Write src/fastnet/config/serve_options.py from the options of ServerConfig.

    python -m tools.write_serve_options

A test keeps the file equal to what this prints, so an option has one definition.
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

from fastnet.config.fields import options
from fastnet.config.server import ServerConfig

TARGET = Path(__file__).resolve().parents[1] / "src/fastnet/config/serve_options.py"

GIVEN_BY_ENDPOINT = {"host", "port", "udp", "unix"}
"""What the endpoint of `fastnet.serve` says already."""

HEAD = '''"""Keyword options of `fastnet.serve`, as type checkers and editors see them.

Written by tools/write_serve_options.py from `fastnet.config.server.ServerConfig`, which checks
them; a test keeps the two equal.
"""

from __future__ import annotations

from typing import TypedDict


class ServeOptions(TypedDict, total=False):
    """Keyword options of :func:`fastnet.serve`; each is also an option of the command line."""
'''


def field_text(each: dataclasses.Field[object]) -> str:
    """One field with its docstring: the help text, the unit and the default."""
    unit, choices = each.metadata["unit"], each.metadata["choices"]
    parts = [each.metadata["help"]]
    if choices:
        parts.append(f"One of {', '.join(choices)}.")
    elif unit and unit.isupper():
        parts.append(f"Value: {unit}.")
    parts.append(f"Default: {each.default!r}.")
    lines = textwrap.wrap(" ".join(parts), 88)
    text = "\n    ".join([f'"""{lines[0]}', *lines[1:]])
    end = '"""' if len(lines) == 1 else '\n    """'
    return f"\n    {each.name}: {each.type}\n    {text}{end}\n"


def module_text() -> str:
    """The whole module."""
    chosen = [each for each in options(ServerConfig) if each.name not in GIVEN_BY_ENDPOINT]
    return HEAD + "".join(field_text(each) for each in chosen)


if __name__ == "__main__":
    TARGET.write_text(module_text())
