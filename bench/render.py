"""Render the tables of docs/benchmarks.md from bench/results: python -m bench.render.

Each result is a JSON file with the command that made it, its date, the version of fastnet, facts of
the host, and the rows of a table. The document has a mark for each, `<!-- results: NAME -->` to
`<!-- end -->`, and what stands between is replaced. A test keeps the document equal to the results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
MARK = re.compile(r"<!-- results: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def cell(value: Any) -> str:
    """A value as a table shows it: thousands are separated, text is kept."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def row(values: list[Any]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cell(value).replace('|', chr(92) + '|') for value in values)} |\n"


def table(result: dict[str, Any]) -> str:
    """The command, the facts of the host and the rows of one result."""
    text = f"```console\n$ {result['command']}\n"
    text += "".join(f"{name + ':':19} {value}\n" for name, value in result["host"].items())
    text += f"```\n\n{result['date']}, fastnet {result['fastnet']}."
    text += "".join(f" {note}." for note in result["notes"]) + "\n\n"
    columns = result["columns"]
    text += row(columns) + f"|{'---|' * len(columns)}\n"
    return text + "".join(row(values) for values in result["rows"])


def rendered(document: str) -> str:
    """The document with every table made anew."""

    def replace(match: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{match[1]}.json").read_text())
        return f"<!-- results: {match[1]} -->\n{table(result)}<!-- end -->"

    return MARK.sub(replace, document)


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text()))
