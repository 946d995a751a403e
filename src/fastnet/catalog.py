"""Which rows work here: the choice of engine and backend, and the reason, in one place.

Decision: `auto` may fall back and says so; what is asked for by name and absent is an error, never silently replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.engine import ENGINES
from fastnet.errors import UnsupportedError
from fastnet.service import SERVICES
from fastnet.table import BACKENDS

CURE = "`fastnet doctor` lists what works here and why the rest does not"


@dataclass(frozen=True)
class Choice:
    """An engine and a backend that work here. reason: why not something faster, or ""."""

    engine: str
    backend: str
    reason: str = ""


def engines(backend: str) -> list[str]:
    """Those `auto` tries, in this order."""
    return [name for name in ENGINES if ENGINES[name].module(backend)]


def choose(engine: str, backend: str, service: str) -> Choice:
    """Settle `auto` in engine and backend for a service. Raises UnsupportedError for what is asked for and absent."""
    refused: list[str] = []
    for candidate in BACKENDS if backend == "auto" else (backend,):
        for name in engines(candidate) if engine == "auto" else (engine,):
            why = ENGINES.why_not(name, candidate) or SERVICES.why_not(service, candidate)
            if not why:
                return Choice(name, candidate, refused[0] if refused else "")
            refused.append(f"no {candidate} {name}: {why}")
    raise UnsupportedError(f"cannot serve {service}: {refused[0]}", CURE)
