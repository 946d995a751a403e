"""Who makes the traffic. One row a discipline; contract.py says what each must do."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.registry import Registry, Row


@dataclass(frozen=True)
class LoadRow(Row):
    """dials: it makes its connections itself. datagrams: it loads endpoints of datagrams, and
    others do not.
    """

    dials: bool = False
    datagrams: bool = False


LOADS: Registry[LoadRow] = Registry(
    "fastnet.load",
    {
        "closed": LoadRow(
            python="closed_py",
            native="closed_c",
            about="a connection starts a message when one has come back",
        ),
        "churn": LoadRow(
            python="churn_py",
            native="churn_c",
            about="a connection for each message, made and ended",
            dials=True,
        ),
        "datagrams": LoadRow(
            python="datagrams_py",
            native="datagrams_c",
            about="a socket starts a datagram when one has come back or is lost",
            datagrams=True,
        ),
    },
)
