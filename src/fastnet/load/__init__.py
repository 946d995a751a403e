"""Who makes the traffic. One row a discipline; contract.py says what each must do."""

from __future__ import annotations

LOADS = {
    "closed": {"python": "closed_py", "native": "closed_c"},
}
