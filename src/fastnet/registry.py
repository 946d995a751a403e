"""Registry of the implementations of an axis: rows by name, and the choice among them.

An axis package (engine, service, transport, load) holds one file per value and backend,
`epoll_py.py` and `epoll_c.pyx`, and its `__init__` holds one Registry. Other code looks a value up
by name; the names are written down nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import NamedTuple, TypeVar

from fastnet.errors import UnsupportedError

BACKENDS = ("native", "python")

DOCTOR_HINT = "`fastnet doctor` lists what works here and why the rest does not"

BUILD_NOTE = os.path.join(os.path.dirname(__file__), "_native_build.json")
"""Written by setup.py: why an extension was not built, by module."""


@dataclass(frozen=True)
class Row:
    """One value of an axis."""

    about: str
    """What it is, for help texts and tables in documents."""
    python: str = ""
    """Name of the pure-Python module in the axis package; "" if there is none."""
    native: str = ""
    """Name of the compiled module; "" if there is none."""
    needs: Callable[[], str] | None = None
    """Probes the host; returns why the value cannot work here, or "" if it can."""

    def module(self, backend: str) -> str:
        return self.native if backend == "native" else self.python


R = TypeVar("R", bound=Row)


class Selection(NamedTuple):
    """A row and a backend that work here."""

    name: str
    backend: str
    reason: str
    """Why the first candidate was not selected, or ""."""


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

    def choose(
        self,
        names: Iterable[str],
        backend: str = "auto",
        *,
        purpose: str = "",
        why_not: Callable[[str, str], str] | None = None,
    ) -> Selection:
        """Select the first candidate that works here, native ones before pure-Python ones.

        Args:
            names: Candidates, best first.
            backend: "native", "python", or "auto" for either.
            purpose: Start of the error message, such as "cannot move a file".
            why_not: Takes the place of `why_not` of this table, for conditions beyond its rows.
        Raises:
            UnsupportedError: No candidate works; the message has the reason of the first one.
        """
        candidates = tuple(names)
        refused: list[str] = []
        for form in BACKENDS if backend == "auto" else (backend,):
            for name in candidates:
                if len(candidates) > 1 and not self._rows[name].module(form):
                    continue  # among alternatives, a missing form needs no explanation
                cause = (why_not or self.why_not)(name, form)
                if not cause:
                    return Selection(name, form, refused[0] if refused else "")
                refused.append(f"no {form} {name}: {cause}")
        cause = refused[0] if refused else f"there is no {backend} form"
        raise UnsupportedError(f"{purpose}: {cause}" if purpose else cause, DOCTOR_HINT)


def build_note(module: str) -> str:
    """The build's reason for an extension that is missing, or ""."""
    try:
        with open(BUILD_NOTE, encoding="utf-8") as file:
            notes = json.load(file)
    except (OSError, ValueError):
        return ""
    note: str = notes.get(module) or notes.get("*") or ""
    return f"not built: {note}" if note else ""
