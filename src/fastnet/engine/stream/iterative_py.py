"""One connection after another. The twin of iterative_c.pyx, which has the argument."""

from __future__ import annotations

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor
from fastnet.engine.stream._blocking_py import serve


def run(context: LoopContext) -> None:
    """Serve work's listeners until it is stopped (engine/stream/contract.py)."""
    acceptor = Acceptor(context)
    while True:
        try:
            accepted = acceptor.next()
        except EOFError:
            return
        if accepted is not None:
            serve(context, context.counters.row(0), *accepted)
