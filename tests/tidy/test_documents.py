"""Documents: examples run, links lead to files, tables have every row."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tree import DOCUMENTS, ROOT, name_of

MAY_SLEEP = {"connect_peers.py", "clients.py", "idle_clients.py", "cli_process.py", "leaks.py"}
"""Helpers that poll every few milliseconds until a deadline."""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_no_test_waits_by_the_clock(path: Path) -> None:
    if path.name not in MAY_SLEEP and path != Path(__file__):
        assert not re.search(r"(?<!def )\bsleep\(", path.read_text())


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_the_python_in_the_documents_runs(path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            check=True,
            timeout=30,
            stdout=subprocess.DEVNULL,
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_in_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_table_has_every_engine() -> None:
    from fastnet.engine.stream import ENGINES

    readme = (ROOT / "README.md").read_text()
    for name, row in ENGINES.items():
        assert f"| `{name}` | {row.about} |" in readme


def test_the_table_of_movers_has_every_row() -> None:
    from fastnet.mover import MOVERS

    document = (ROOT / "docs" / "transfer.md").read_text()
    for name, row in MOVERS.items():
        can = ["yes" if each else "no" for each in (row.sends, row.receives)]
        assert f"| `{name}` | {can[0]} | {can[1]} | {row.about} |" in document


def test_the_table_of_datagram_engines_has_every_row() -> None:
    from fastnet.engine.datagram import DATAGRAMS

    document = (ROOT / "docs" / "datagrams.md").read_text()
    for name, row in DATAGRAMS.items():
        assert f"| `{name}` | {row.about} | " in document


def test_the_tables_of_the_benchmarks_are_rendered_from_their_results() -> None:
    from bench import render

    document = render.DOCUMENT.read_text()
    assert document == render.rendered(document), "run python -m bench.render"
    named = set(render.MARK.findall(document))
    assert named == {path.stem for path in render.RESULTS.glob("*.json")}


def test_the_glossary_is_in_order_and_has_each_term_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)[1:]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.casefold)
