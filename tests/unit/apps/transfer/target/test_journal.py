"""The journal of a receiver and its neighbours in the package."""

from __future__ import annotations

from pathlib import Path

from fastnet.apps.transfer.target import journal


def test_nothing_of_a_transfer_reads_the_clock_that_jumps() -> None:
    folder = Path(journal.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "certificate.py":  # certificates have dates
            assert "time.time(" not in path.read_text(), path
            assert "datetime" not in path.read_text(), path
