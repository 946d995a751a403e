"""A seam of fastnet is a small table; this is the shape of its rows and how a row becomes a module.

An axis package (engine, service, transport, load) holds one file a value and backend, `epoll_py.py`
and `epoll_c.pyx`, and its `__init__` holds one Table. Whoever needs a value asks the table by name;
nobody else writes the names down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TypeVar

BACKENDS = ("native", "python")

BUILD_NOTE = os.path.join(os.path.dirname(__file__), "_native_build.json")
"""Written by setup.py: why an extension was not built."""


@dataclass(frozen=True)
class Row:
    """One value of an axis. python, native: module names in the axis package, "" for a hole.

    needs: asks the host; returns why the value cannot work here, or "" if it can.
    """

    about: str
    python: str = ""
    native: str = ""
    needs: Callable[[], str] | None = None

    def module(self, backend: str) -> str:
        return self.native if backend == "native" else self.python


R = TypeVar("R", bound=Row)


class Registry(Mapping[str, R]):
    """Rows by name, in the order of preference where there is one."""

    def __init__(self, package: str, rows: dict[str, R]) -> None:
        self.package = package
        self._rows = rows

    def __getitem__(self, name: str) -> R:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, name: str, backend: str) -> ModuleType:
        """Import the module of a row. Raises ImportError when that extension was not built."""
        return import_module(f"{self.package}.{self._rows[name].module(backend)}")

    def why_not(self, name: str, backend: str) -> str:
        """Why this row cannot be used with this backend here, or "" if it can."""
        row = self._rows[name]
        if not row.module(backend):
            return f"{name} has no {backend} form"
        if row.needs is not None and (missing := row.needs()):
            return missing
        try:
            self.load(name, backend)
        except ImportError as error:
            return build_note(f"{self.package}.{row.module(backend)}") or str(error)
        return ""


def build_note(module: str) -> str:
    """What the build said about an extension that is not there, or ""."""
    try:
        with open(BUILD_NOTE, encoding="utf-8") as file:
            notes = json.load(file)
    except (OSError, ValueError):
        return ""
    note: str = notes.get(module) or notes.get("*") or ""
    return f"not built: {note}" if note else ""
