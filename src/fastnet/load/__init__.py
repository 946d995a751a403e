"""Traffic generators: one row a discipline; contract.py says what each must do."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class LoadRow(Row):
    """A discipline of load."""

    connects_itself: bool = False
    """It makes its own connections, like the one it is given as a model."""

    datagrams: bool = False
    """It loads datagram endpoints; the others load stream endpoints."""


LOADS: Registry[LoadRow] = Registry(
    "fastnet.load",
    {
        "closed": LoadRow(
            python="closed_py",
            native="closed_c",
            about="a connection sends a message when one has come back",
        ),
        "churn": LoadRow(
            python="churn_py",
            native="churn_c",
            about="a connection per message, opened and closed",
            connects_itself=True,
        ),
        "datagrams": LoadRow(
            python="datagrams_py",
            native="datagrams_c",
            about="a socket sends a datagram when one has come back or is lost",
            datagrams=True,
        ),
    },
)
