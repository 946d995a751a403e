"""Which rows work here: the choice of engine and backend, and the reason, in one place.

Decision: `auto` may fall back and says so; what is asked for by name and absent is an error, never
silently replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES, EngineRow
from fastnet.errors import UnsupportedError
from fastnet.registry import BACKENDS, Registry
from fastnet.service import SERVICES
from fastnet.transport import TRANSPORTS

HINT = "`fastnet doctor` lists what works here and why the rest does not"


@dataclass(frozen=True)
class Choice:
    """An engine and a backend that work here. reason: why not something faster, or ""."""

    engine: str
    backend: str
    reason: str = ""


def engines_for(transport: str) -> Registry[EngineRow]:
    """Who waits on sockets of this transport."""
    return DATAGRAMS if TRANSPORTS[transport].datagrams else ENGINES


def no_form(service: str, backend: str, transport: str) -> str:
    """Why a service is not made for this, on whatever host, or ""."""
    if TRANSPORTS[transport].datagrams or backend in SERVICES[service].connections:
        return ""
    return f"{service} has no {backend} form for connections"


def choose(engine: str, backend: str, service: str, transport: str = "tcp") -> Choice:
    """Settle `auto` in engine and backend for a service. Raises UnsupportedError for what is asked
    for and absent.
    """
    refused: list[str] = []
    table = engines_for(transport)
    for candidate in BACKENDS if backend == "auto" else (backend,):
        for name in table if engine == "auto" else (engine,):
            if engine == "auto" and not table[name].module(candidate):
                continue  # a hole is no reason
            why = no_form(service, candidate, transport) or table.why_not(name, candidate)
            why = why or SERVICES.why_not(service, candidate)
            if not why:
                return Choice(name, candidate, refused[0] if refused else "")
            refused.append(f"no {candidate} {name}: {why}")
    raise UnsupportedError(f"cannot serve {service}: {refused[0]}", HINT)
