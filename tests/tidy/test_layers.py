"""Which module may import which: every module is in a layer, and imports go down the list."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.tree import CYTHON, MODULES, ROOT, SOURCE, name_of

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
    {
        "errors",
        "endpoint",
        "registry",
        "probes",
        "ratelimit",
        "limits",
        "cdefs",
        "_version",
        "_errno_c",
    },
)
"""From the outside in: a file imports only its own layer and what is further in."""

UPWARD_STILL = {
    ("service", "fastnet.engine.context_c"),
}
"""Imports that still point up; each is to go."""

NATIVE_IMPORT = re.compile(
    r"^\s*(?:from (fastnet[\w.]*) c?import (\(?[\w, ]+)|c?import (fastnet[\w.]*))", re.M
)


def rank(name: str) -> int:
    """The layer of a module or package directly below fastnet."""
    found = [number for number, layer in enumerate(LAYERS) if name in layer]
    assert len(found) == 1, f"fastnet.{name} is in {len(found)} layers"
    return found[0]


def module_of(path: Path) -> str:
    """`fastnet.engine.stream.epoll_c` of its file."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Every module that these nodes import; of `from fastnet import x` it is fastnet.x."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            if node.module.startswith("fastnet"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def native_imports(text: str) -> set[str]:
    """The same for Cython: `import` and `cimport`."""
    found: set[str] = set()
    for source, names, module in NATIVE_IMPORT.findall(text):
        found.add(module or source)
        if source == "fastnet":
            found |= {f"fastnet.{name.strip('( ')}" for name in names.split(",")}
    return found


def upward(layer: str, modules: Iterable[str]) -> list[str]:
    """Those of the modules that stand above the layer."""
    found = []
    for module in sorted(modules):
        parts = module.split(".")
        if parts[0] == "fastnet" and len(parts) > 1 and rank_or_root(parts[1]) < rank(layer):
            found.append(module)
    return found


def rank_or_root(name: str) -> int:
    """As `rank`; a public name such as fastnet.serve is the package's own."""
    exists = any((SOURCE / f"{name}{end}").exists() for end in ("", ".py", ".pyx", ".pxd"))
    return rank(name if exists else "__init__")


def all_imports(path: Path) -> set[str]:
    """What a Python or Cython file imports anywhere in it."""
    if path.suffix == ".py":
        return imports(ast.walk(ast.parse(path.read_text())))
    return native_imports(path.read_text())


@pytest.mark.parametrize("path", MODULES + CYTHON, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    layer = path.relative_to(SOURCE).parts[0].split(".")[0]
    known = {module for name, module in UPWARD_STILL if name == layer}
    found = [each for each in upward(layer, all_imports(path)) if not each.startswith(tuple(known))]
    assert not found, f"{layer} imports {', '.join(found)}"


def test_an_import_turned_upwards_is_found() -> None:
    source = "from fastnet.server.plan import make_plan\nfrom fastnet import serve\n"
    modules = imports(ast.walk(ast.parse(source)))
    assert upward("engine", modules) == [
        "fastnet.serve",
        "fastnet.server.plan",
        "fastnet.server.plan.make_plan",
    ]
    assert upward("cli", modules) == []
    assert upward("mover", native_imports("from fastnet.engine.context_c cimport Native\n"))


def test_every_exception_is_still_needed() -> None:
    used = {
        (layer, known)
        for path in MODULES + CYTHON
        for layer in [path.relative_to(SOURCE).parts[0].split(".")[0]]
        for module in upward(layer, all_imports(path))
        for name, known in UPWARD_STILL
        if name == layer and module.startswith(known)
    }
    assert used == UPWARD_STILL


APPLICATIONS = [path for path in MODULES if path.is_relative_to(SOURCE / "apps")]


@pytest.mark.parametrize("path", APPLICATIONS, ids=name_of)
def test_an_application_imports_no_other(path: Path) -> None:
    own = path.relative_to(SOURCE / "apps").parts[0].removesuffix(".py")
    others = {
        module.split(".")[2]
        for module in all_imports(path)
        if module.startswith("fastnet.apps.") and module.split(".")[2] != own
    }
    assert not others


def at_import(path: Path) -> set[str]:
    """Modules that are imported while this one is, so not in functions or for type checkers."""
    found: list[ast.stmt] = []
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            waiting += node.body
            waiting += getattr(node, "orelse", [])
        else:
            found.append(node)
    return imports(found)


def circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules that reach themselves."""
    reach = {module: set(targets) for module, targets in graph.items()}
    changed = True
    while changed:
        changed = False
        for module, targets in reach.items():
            more = set().union(*(reach.get(each, set()) for each in targets)) - targets
            if more:
                reach[module] = targets | more
                changed = True
    return {module for module, targets in reach.items() if module in targets}


def test_no_module_is_in_a_circle_of_imports() -> None:
    names = {module_of(path): path for path in MODULES}
    graph = {name: (at_import(path) & set(names)) - {name} for name, path in names.items()}
    assert circles(graph) == set()


def test_a_circle_of_three_modules_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {"a", "b", "c"}


SERVICES = [path for path in sorted((SOURCE / "service").glob("*.py")) if path.name[:2] != "_d"]
"""Not `_dictionary_file.py`, which reads the file that a service answers from."""


@pytest.mark.parametrize("path", SERVICES, ids=name_of)
def test_services_never_touch_a_socket(path: Path) -> None:
    assert not all_imports(path) & {"socket", "os", "select", "io"}


NAMES = [module_of(path) for path in MODULES if path.name != "__main__.py"]


@pytest.mark.parametrize("part", range(8))
def test_every_module_imports_alone_and_without_a_warning(part: int) -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n importlib.import_module(name)"
    for module in NAMES[part::8]:
        subprocess.run([sys.executable, "-W", "error", "-c", code, module], check=True, timeout=30)


def test_at_most_ten_modules_stand_loose_in_the_package() -> None:
    loose = [path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("_")]
    assert len(loose) <= 10, f"{ROOT}: {loose}"
