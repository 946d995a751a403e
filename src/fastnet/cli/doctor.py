"""`fastnet doctor`: report what this host and this build support."""

from __future__ import annotations

import json
import textwrap

import click

from fastnet.apps.doctor import as_document, examine

HELP = """What this host and this build support, and why not.

Every feature is probed by using it. A line marked ! has a hint below it; the exit code is 0 in any
case.
"""

WIDTH = 110


def commands() -> dict[str, click.Command]:
    return {"doctor": command}


@click.command("doctor", help=HELP, epilog="Example: fastnet doctor --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON document with a schema version.")
def command(as_json: bool) -> None:
    sections = examine()
    if as_json:
        click.echo(json.dumps(as_document(sections), indent=1))
        return
    width = max(len(fact.name) for section in sections.values() for fact in section)
    for name, section in sections.items():
        click.echo(name)
        for fact in section:
            click.echo(f"{' ' if fact.good else '!'} {fact.name:<{width}}  {fact.value}")
            if fact.hint:
                indent = " " * (width + 6)
                click.echo(
                    textwrap.fill(fact.hint, WIDTH, initial_indent=indent, subsequent_indent=indent)
                )
