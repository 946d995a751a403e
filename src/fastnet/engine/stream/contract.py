"""Contract of a stream engine: readiness, connections, bounds and shutdown of a loop.

An engine is a module with one function, `run(context)`. It

 E1. returns only when the server stops: every connection is then closed and counted, and every
     thread or child it made has ended;
 E2. accepts from all listeners of the context, at most `accept_burst` connections before
     established connections are handled;
 E3. pauses accepting, counted and never fatal, when descriptors, memory or `max_connections` are
     used up;
 E4. rejects a peer that `access` does not allow, before the service is called;
 E5. gives the service every byte once, in order, and sends every item once, in order, whatever the
     chunks;
 E6. never blocks on one peer at the expense of another, unless that is its model (iterative, a full
     pool);
 E7. stops reading from a peer that does not read, if the service answers input;
 E8. closes a connection idle for `idle_timeout_s`; after our FIN, received bytes do not reset that
     timeout;
 E9. closes a connection on any error of its socket, counts it by reason, and serves the others;
E10. on DRAIN empties the accept queue, accepts no more, and lets established connections finish; on
     NOW closes all;
E11. holds no Python object of another thread: it is stopped through `stop` and read through
     `counters`;
E12. leaves the listeners open; their creator closes them.

The sentences are cited by tests/contract.
"""

from __future__ import annotations

from typing import Protocol

from fastnet.engine.context import LoopContext


class Engine(Protocol):
    """The module of one row."""

    def run(self, context: LoopContext) -> None:
        """Serve until `context.stop` is raised. Raises OSError if it cannot serve at all."""
