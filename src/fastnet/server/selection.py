"""Selection of an engine and a backend for a service on a transport.

Decision: `auto` may fall back to the next row, and reports the reason; an engine or backend that is
requested by name and absent is an error, never replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES, EngineRow
from fastnet.registry import Registry
from fastnet.service import SERVICES
from fastnet.transport import TRANSPORTS


@dataclass(frozen=True)
class EngineChoice:
    """An engine and a backend that work here."""

    engine: str
    backend: str
    reason: str = ""
    """Why a faster one was not selected, or ""."""


def engines_for(transport: str) -> Registry[EngineRow]:
    """The engines that serve sockets of this transport."""
    return DATAGRAMS if TRANSPORTS[transport].datagrams else ENGINES


def no_form(service: str, backend: str, transport: str) -> str:
    """Why a service has no implementation for this backend and transport on any host, or ""."""
    if TRANSPORTS[transport].datagrams or backend in SERVICES[service].connections:
        return ""
    return f"{service} has no {backend} form for connections"


def choose(engine: str, backend: str, service: str, transport: str = "tcp") -> EngineChoice:
    """Resolve `auto` in engine and backend for a service.

    Raises:
        UnsupportedError: an engine or backend that was requested by name is absent.
    """
    table = engines_for(transport)

    def why_not(name: str, form: str) -> str:
        return (
            no_form(service, form, transport)
            or table.why_not(name, form)
            or SERVICES.why_not(service, form)
        )

    return EngineChoice(
        *table.choose(
            table if engine == "auto" else (engine,),
            backend,
            purpose=f"cannot serve {service}",
            why_not=why_not,
        )
    )
