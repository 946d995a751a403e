"""Report of one transfer, a frozen value with units in the names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TransferReport:
    """One transfer, from this side."""

    role: str
    """ "send" or "recv"."""
    mode: str
    """ "raw" or "fastnet/1"."""
    peer: str
    """Address of the other side."""
    files: int
    """Files complete."""
    moved_bytes: int
    """File bytes that crossed the connections."""
    seconds: float
    """From the plan to the end."""
    cpu_seconds: float
    """User and system time of this process meanwhile."""
    mover: str
    """Mover and backend that ran here, as "splice-native"."""
    mover_reason: str
    """Why this mover."""
    congestion: str = ""
    """TCP congestion control of the connection, "" for none."""
    confirmed_bytes: int | None = None
    """File bytes that the receiver has under their final names; None in raw mode."""
    skipped_bytes: int = 0
    """File bytes not sent, because the receiver had them."""
    peer_cpu_seconds: float | None = None
    """`cpu_seconds` of the other side, if it reported them."""
    peer_mover: str | None = None
    """`mover` of the other side, if it reported it."""
    peer_mover_reason: str | None = None
    """`mover_reason` of the other side, if it reported it."""
    message: str | None = None
    """Final message of a raw peer, as it was sent."""
    digest: str | None = None
    """Algorithm and hexadecimal digest of a single file, or None."""
    streams: int = 1
    """Data connections used."""

    @property
    def gb_per_s(self) -> float:
        """Gigabytes (10^9 bytes) a second."""
        return self.moved_bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the schema's version."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {"schema_version": SCHEMA_VERSION} | fields | {"gb_per_s": round(self.gb_per_s, 6)}
