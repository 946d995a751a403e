"""The files of the repository, by kind, for tests that read source."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fastnet"
FOLDERS = ("src", "tests", "bench", "tools", "docs")
MODULES = sorted(SOURCE.rglob("*.py"))
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CYTHON = sorted([*SOURCE.rglob("*.pyx"), *SOURCE.rglob("*.pxd")])
HEADERS = sorted((ROOT / "csrc").glob("*.h"))
C_SOURCES = sorted([*HEADERS, *(ROOT / "bench").rglob("*.c"), *(ROOT / "tests").rglob("*.c")])
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    """The path as the repository writes it."""
    return str(path.relative_to(ROOT))
