"""One connection after another. The twin of iterative_c.pyx, which has the argument."""

from __future__ import annotations

from fastnet.engine._accept import Acceptor
from fastnet.engine._blocking import serve
from fastnet.engine.contract import Work


def run(work: Work) -> None:
    """Serve work's listeners until it is stopped (engine/contract.py)."""
    acceptor = Acceptor(work)
    while True:
        try:
            accepted = acceptor.next()
        except EOFError:
            return
        if accepted is not None:
            serve(work, work.counters.row(0), *accepted)
