"""Conformance suites: check your own service, engine or mover against the contract.

    from fastnet.testing import check_service

    def test_my_service():
        check_service(MyService, requests=[b"hello"])

Each function runs the checks of one contract and raises AssertionError with the number of the
sentence that is broken (S2 of service/contract.py, E5 of engine/stream/contract.py, M3 of
mover/contract.py). They need no test runner; the project's own tests call the same functions.
There is no contract for message framing yet, so there is no suite for one.
"""

from __future__ import annotations

from fastnet.testing.engine import check_engine
from fastnet.testing.mover import check_mover
from fastnet.testing.service import check_service

__all__ = ["check_engine", "check_mover", "check_service"]
