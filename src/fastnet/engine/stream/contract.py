"""What an engine is: the answer to "who waits?".

An engine is a module with one function, `run(work)`. It

 E1. returns only when the server stops: every connection is then closed and counted, and every
     thread or child it made has ended;
 E2. accepts from all listeners of `work`, at most `accept_burst` before established connections get
     a turn;
 E3. pauses accepting, counted and never fatal, when descriptors, memory or `max_connections` are
     used up;
 E4. turns away a peer that `access` does not allow, before the service hears of it;
 E5. hands the service every byte once, in order, and sends every item once, in order, whatever the
     chunks;
 E6. never waits for one peer at the expense of another, unless not doing so is its name (iterative,
     a full pool);
 E7. stops reading from a peer that does not read, if the service answers input;
 E8. closes a connection idle for `idle_timeout_s`; after our FIN, what still comes does not count
     as life;
 E9. ends a connection on any error of its socket, counts it by reason, and goes on;
E10. on DRAIN takes what is already queued, then no more, and lets established connections finish;
     on NOW closes all;
E11. holds no Python object of another thread: it is told to stop through `stop` and is read through
     `counters`;
E12. leaves the listeners open; who made them closes them.

The sentences are cited by tests/contract. Native engines get the same `Work`, unpacked by
engine/context_c.pyx.
"""

from __future__ import annotations

from typing import Protocol

from fastnet.engine.context import LoopContext


class Engine(Protocol):
    """The module of one row."""

    def run(self, context: LoopContext) -> None:
        """Serve until `context.stop` is raised. Raises OSError if it cannot serve at all."""
