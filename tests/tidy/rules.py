"""The rules that are held file by file: each gives the offences of one file.

A limit serves the reader: when it would cut one machine in two, cut by concern.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from tests.support.tree import (
    C_SOURCES,
    CYTHON,
    DOCUMENTS,
    HEADERS,
    MODULES,
    PYTHON,
    ROOT,
    SOURCE,
    TESTS,
    name_of,
)
from tests.tidy.vocabulary import banned

COLUMNS_MAX = 100
FILE_LINES_MAX = 400
HEADER_LINES_MAX = 220
FUNCTION_LINES_MAX = 70
COMMAND_LINES_MAX = 150
FIRST_LINE_MAX = 88
TEST_NAME_MAX = 72

SHARED_BY_COMMANDS = {
    "endpoints",
    "options",
    "output",
    "signals",
    "transfer_options",
    "transfer_output",
}
"""What a command's module may import from cli beside the command line's own libraries."""

NOT_PARTICIPLES = {"testing", "framing", "closed", "forked", "string", "ring", "uring", "blocking"}
"""Stems that end like a participle and are nouns, or terms of the field ("closed loop")."""


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text())


QUOTED = re.compile(r"^```(\w*)$.*?^```$|^\s*\|.*?$", re.DOTALL | re.MULTILINE)
"""A fenced block of a document, with its language, or a row of a table."""


def without_quoted(part: re.Match[str]) -> str:
    """Code of ours stays; output and tables become empty lines."""
    return part[0] if part[1] in ("py", "python") else "\n" * part[0].count("\n")


def long_lines(path: Path) -> list[str]:
    """Lines over 100 columns.

    A row of a table and a bare link have no place to break; a document quotes output as it is.
    """
    text = path.read_text()
    if path.suffix == ".md":
        text = QUOTED.sub(without_quoted, text)
    return [
        f"{number}: {len(line)} columns"
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS_MAX and not re.fullmatch(r"\s*\S*https?://\S+", line)
    ]


def long_file(path: Path) -> list[str]:
    """A file over 400 lines, a header over 220."""
    most = HEADER_LINES_MAX if path.suffix == ".h" else FILE_LINES_MAX
    lines = len(path.read_text().splitlines())
    return [f"{lines} lines, at most {most}"] if lines > most else []


def long_function(path: Path) -> list[str]:
    """Functions of more than 70 lines."""
    if path.suffix != ".py":
        return long_native_function(path)
    return [
        f"{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]


def long_native_function(path: Path) -> list[str]:
    """The same for Cython, where a function ends at the next line that is not indented."""
    lines = path.read_text().splitlines()
    found = []
    for start, line in enumerate(lines):
        match = re.match(r"( *)(?:cdef|cpdef|def)\b[^=:]*?\b(\w+)\(", line)
        if not match:
            continue
        inside = re.compile(rf" {{{len(match[1]) + 1},}}|$|[ )]*\)")
        end = next(
            (i for i in range(start + 1, len(lines)) if not inside.match(lines[i])), len(lines)
        )
        length = len("\n".join(lines[start:end]).rstrip().splitlines())
        if length > FUNCTION_LINES_MAX:
            found.append(f"{start + 1}: {match[2]} has {length} lines")
    return found


def docstrings(path: Path) -> list[tuple[int, str]]:
    """Line and text of every docstring of a module, class or function."""
    if path.suffix != ".py":
        match = re.match(r'\s*(?:#.*\n)*r?"""(.*?)"""', path.read_text(), re.DOTALL)
        return [(1, match[1])] if match else []
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                found.append((node.body[0].lineno, text))
    return found


def bad_first_line(path: Path) -> list[str]:
    """Docstrings whose first line is over 88 columns or is not a sentence of its own."""
    found = []
    for number, text in docstrings(path):
        first, _, rest = text.partition("\n")
        if len(first) > FIRST_LINE_MAX:
            found.append(f"{number}: the first line of the docstring has {len(first)} columns")
        elif rest.strip() and rest.split("\n")[0].strip():
            found.append(f"{number}: no blank line after the docstring's first line")
    return found


def banned_words(path: Path) -> list[str]:
    """Words that tests/tidy/vocabulary.py lists."""
    return banned(path, name_of(path))


def long_test_name(path: Path) -> list[str]:
    """Names of tests over 72 characters."""
    return [
        f"{node.lineno}: {node.name} has {len(node.name)} characters"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and len(node.name) > TEST_NAME_MAX
    ]


def without_backend(stem: str) -> str:
    """`epoll` of `epoll_c`, `loop` of `_loop_py`."""
    return re.sub(r"_(py|c)$", "", stem).strip("_")


def participle_stem(path: Path) -> list[str]:
    """A module named by a participle: the noun that it makes is its name."""
    last = without_backend(path.stem).split("_")[-1]
    if last in NOT_PARTICIPLES or not re.search(r"(ing|[^e]ed|elsewhere)$", last):
        return []
    return [f"{path.stem!r} is a participle"]


def unmirrored(path: Path) -> list[str]:
    """A unit test that bears the name of no module at the same place in src/fastnet."""
    place = SOURCE / path.relative_to(ROOT / "tests" / "unit")
    stem = place.stem.removeprefix("test_")
    names = [f"{stem}{end}" for end in ("", ".py", ".pyx", "_py.py", "_c.pyx")]
    found = any((place.parent / name).exists() for name in names)
    return [] if found else [f"no {stem} in {name_of(place.parent)}"]


def command_too_long(path: Path) -> list[str]:
    """A module of the command line over 150 lines."""
    lines = len(path.read_text().splitlines())
    return [f"{lines} lines, at most {COMMAND_LINES_MAX}"] if lines > COMMAND_LINES_MAX else []


def imports_a_command(path: Path) -> list[str]:
    """A command's module that imports another one."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastnet.cli"):
            parts = (node.module or "").split(".")
            names = parts[2:3] or [alias.name for alias in node.names]
            found += [
                f"{node.lineno}: imports fastnet.cli.{name}"
                for name in names
                if name not in SHARED_BY_COMMANDS
            ]
    return found


@functools.cache
def classes() -> dict[str, list[Path]]:
    """Every class name of src with the files that define it."""
    found: dict[str, list[Path]] = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path)
    for path in CYTHON:
        for name in re.findall(r"^(?:cdef )?class (\w+)", path.read_text(), re.MULTILINE):
            if path.suffix == ".pyx":
                found.setdefault(name, []).append(path)
    return found


def class_defined_twice(path: Path) -> list[str]:
    """A class whose name another file has too.

    The twins of a module are one definition, and so are the rows of a folder with a contract.
    """
    found = []
    for name, paths in classes().items():
        others = {name_of(each) for each in paths if each.parent != path.parent}
        others |= {
            name_of(each)
            for each in paths
            if each.parent == path.parent
            and each != path
            and without_backend(each.stem) != without_backend(path.stem)
            and not (path.parent / "contract.py").exists()
        }
        if path in paths and others:
            found.append(f"class {name} is also in {', '.join(sorted(others))}")
        elif paths.count(path) > 1:
            found.append(f"class {name} is here twice")
    return found


UNITS = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
COMMANDS = sorted((SOURCE / "cli").glob("*.py"))
NATIVE = [*CYTHON, *C_SOURCES]
OTHER = [ROOT / "Makefile", ROOT / "pyproject.toml", *sorted((ROOT / ".ci").glob("*"))]

RULES = {
    "columns": ([*PYTHON, *NATIVE, *DOCUMENTS], long_lines),
    "file-lines": ([*PYTHON, *CYTHON, *HEADERS], long_file),
    "function-lines": ([*PYTHON, *CYTHON], long_function),
    "command-lines": (COMMANDS, command_too_long),
    "command-imports": ([p for p in COMMANDS if p.stem != "__init__"], imports_a_command),
    "first-line": ([*PYTHON, *CYTHON], bad_first_line),
    "words": ([*PYTHON, *NATIVE, *DOCUMENTS, *OTHER], banned_words),
    "test-names": (TESTS, long_test_name),
    "participles": ([*MODULES, *CYTHON, *HEADERS], participle_stem),
    "class-names": ([*MODULES, *CYTHON], class_defined_twice),
    "unit-mirror": (UNITS, unmirrored),
}
"""By name: the files that a rule holds for, and what it finds in one."""
