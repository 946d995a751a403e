"""How a transfer went, as one frozen value with its units in the names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TransferReport:
    """One transfer, from this side.

    role: "send" or "recv". mode: "raw" or "fastnet/1". moved_bytes: file bytes that crossed the
    connection. confirmed_bytes: those that the receiver said it has under their final names; None
    when nobody can say so (raw). seconds: from the first byte's readiness to the end. cpu_seconds:
    user and system time of this process meanwhile; peer_cpu_seconds: the other side's, where it
    told. mover: which one ran here, as "splice-native", and mover_reason why. congestion: the
    algorithm of the connection, "" for none. message: last words of a raw peer, as it sent them.
    digest: algorithm and hexadecimal digest of a single file, or None. skipped_bytes: not sent,
    because already there. streams: connections that carried it.
    """

    role: str
    mode: str
    peer: str
    files: int
    moved_bytes: int
    seconds: float
    cpu_seconds: float
    mover: str
    mover_reason: str
    congestion: str = ""
    confirmed_bytes: int | None = None
    skipped_bytes: int = 0
    peer_cpu_seconds: float | None = None
    peer_mover: str | None = None
    peer_mover_reason: str | None = None
    message: str | None = None
    digest: str | None = None
    streams: int = 1

    @property
    def gb_per_s(self) -> float:
        """Gigabytes (10^9 bytes) a second."""
        return self.moved_bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the schema's version."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {"schema_version": SCHEMA_VERSION} | fields | {"gb_per_s": round(self.gb_per_s, 6)}
