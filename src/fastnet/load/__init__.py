"""Who makes the traffic. One row a discipline; contract.py says what each must do."""

from __future__ import annotations

from fastnet.table import Row, Table

LOADS = Table(
    "fastnet.load",
    {
        "closed": Row(
            python="closed_py", native="closed_c", about="a connection starts a message when one has come back"
        ),
    },
)
