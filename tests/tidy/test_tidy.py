"""The rules of the house, as tests: sizes, layers, exports, and documents whose examples work."""

from __future__ import annotations

import ast
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet
from fastnet import limits

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fastnet"
PYTHON = sorted(
    path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py")
)
CYTHON = sorted([*SOURCE.rglob("*.pyx"), *SOURCE.rglob("*.pxd")])
HEADERS = sorted((ROOT / "csrc").glob("*.h"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

FILE_LINES_MAX = 440
HEADER_LINES_MAX = 240
FUNCTION_LINES_MAX = 81

MAY_SLEEP = {"connect_peers.py", "clients.py", "idle_clients.py", "cli_process.py", "leaks.py"}
"""Helpers that look again every few milliseconds until a deadline."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    """Every module a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "fastnet":
            found |= {f"fastnet.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", PYTHON + CYTHON, ids=name_of)
def test_no_file_is_longer_than_a_reader_bears(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", HEADERS, ids=name_of)
def test_no_header_is_longer_than_one_concern(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= HEADER_LINES_MAX


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_every_function_fits_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", CYTHON, ids=name_of)
def test_every_native_function_fits_a_screen(path: Path) -> None:
    starts = [
        i
        for i, line in enumerate(path.read_text().splitlines())
        if re.match(r"(cdef|def|cpdef|cdef class) .*\(", line)
    ]
    ends = [*starts[1:], len(path.read_text().splitlines())]
    for start, end in zip(starts, ends, strict=False):
        assert end - start < FUNCTION_LINES_MAX


LAYERS = (
    {"cli", "__main__"},
    {"__init__", "aio", "api", "testing"},
    {"apps"},
    {"udp"},
    {"process"},
    {"server"},
    {"config", "load"},
    {"engine"},
    {"mover", "metrics"},
    {"transport", "service", "security"},
    {"errors", "endpoint", "registry", "probes", "ratelimit", "limits", "cdefs", "_version"},
)
"""From the outside in: a file imports only its own layer and what is further in."""

UPWARD_STILL = {
    ("config", "fastnet.apps.dictionary"),
    ("server", "fastnet.apps.dictionary.file"),
    ("probes", "fastnet.transport.tls"),
    ("probes", "fastnet.engine.stream.uring_c"),
}
"""Arrows that still point up; each is to go."""


def rank(name: str) -> int:
    """The layer of a module or package below fastnet."""
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "fastnet" and (layer, module) not in UPWARD_STILL:
            target = parts[1] if len(parts) > 1 else "__init__"
            assert rank(target) >= rank(layer), f"{layer} imports {module}"


@pytest.mark.parametrize("path", sorted((SOURCE / "service").glob("*.py")), ids=name_of)
def test_services_never_touch_a_socket(path: Path) -> None:
    assert not imports(path) & {"socket", "os", "select", "io"}


MODULES = sorted(
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("part", range(8))
def test_every_module_imports_alone_and_without_a_warning(part: int) -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n importlib.import_module(name)"
    for module in MODULES[part::8]:
        subprocess.run([sys.executable, "-W", "error", "-c", code, module], check=True, timeout=30)


def test_every_public_name_is_there_and_documented() -> None:
    assert len(set(fastnet.__all__)) == len(fastnet.__all__)
    for name in fastnet.__all__:
        if name != "__version__":
            assert getattr(fastnet, name).__doc__, name


@pytest.mark.parametrize("path", sorted(Path(limits.__file__).parent.glob("*.py")), ids=name_of)
def test_every_limit_says_what_it_is_for(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("KIB", "MIB"):
                continue
            assert isinstance(after, ast.Expr), f"{name} has no word beside it"
            assert isinstance(after.value, ast.Constant), f"{name} has no word beside it"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("path", HEADERS, ids=name_of)
def test_every_header_compiles_alone_without_a_warning(path: Path) -> None:
    strict = [
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        "-Wno-missing-field-initializers",
    ]
    source = f'#define _GNU_SOURCE\n#include "{path.name}"\n'  # as Python.h does
    command = ["cc", *strict, "-I", str(path.parent), "-x", "c", "-fsyntax-only", "-"]
    subprocess.run(command, input=source.encode(), check=True, timeout=60)


def test_every_header_has_one_file_of_declarations() -> None:
    declared = {path.stem for path in (SOURCE / "cdefs").glob("*.pxd")} - {"__init__"}
    assert declared == {path.stem.removeprefix("fn_") for path in HEADERS}


@pytest.mark.parametrize("path", sorted((SOURCE / "cdefs").glob("*.pxd")), ids=name_of)
def test_declarations_hold_no_code(path: Path) -> None:
    assert not re.search(r"^cdef (?!extern)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_no_test_waits_by_the_clock(path: Path) -> None:
    if path.name not in MAY_SLEEP and path != Path(__file__):
        assert "sleep(" not in path.read_text()


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
