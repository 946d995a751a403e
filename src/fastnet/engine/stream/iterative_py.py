"""One connection after another. The pure twin of iterative_c.pyx, which has the argument."""

from __future__ import annotations

from fastnet.engine.context import LoopContext
from fastnet.engine.stream._accept_py import Acceptor
from fastnet.engine.stream._blocking_py import serve_connection


def run(context: LoopContext) -> None:
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    acceptor = Acceptor(context)
    while True:
        try:
            accepted = acceptor.next()
        except EOFError:
            return
        if accepted is not None:
            serve_connection(context, context.counters.row(0), *accepted)
