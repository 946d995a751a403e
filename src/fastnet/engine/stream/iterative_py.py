"""One connection after another. The twin of iterative_c.pyx, which has the argument."""

from __future__ import annotations

from fastnet.engine.stream._accept_py import Acceptor
from fastnet.engine.stream._blocking_py import serve
from fastnet.engine.stream.contract import Work


def run(work: Work) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    acceptor = Acceptor(work)
    while True:
        try:
            accepted = acceptor.next()
        except EOFError:
            return
        if accepted is not None:
            serve(work, work.counters.row(0), *accepted)
