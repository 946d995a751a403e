"""Session ids of a listener: further connections of a transfer find their session by them.

Decision: an id is random and known here before the peer learns it, because the peer may use it
before its session has been made.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fastnet.apps.transfer.session.session import TransferSession

SESSION_ID_BYTES = 16


class SessionTable:
    """From the session id to the session, or to its promise.

    Methods may be called in any thread.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Future[TransferSession]] = {}
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """A fresh id, whose session is to be published or removed."""
        # imported here: a side that connects has no table, and loading takes as long as a handshake
        from concurrent.futures import Future

        session_id = os.urandom(SESSION_ID_BYTES).hex()
        with self._lock:
            self._sessions[session_id] = Future()
        return session_id

    def publish(self, session_id: str, session: TransferSession) -> None:
        """The session of this id exists."""
        self._sessions[session_id].set_result(session)

    def remove(self, session_id: str) -> None:
        """The session of this id is over, or will not exist."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            session.cancel()

    def has(self, session_id: str) -> bool:
        """Whether this listener issued the id, and its session is not over."""
        with self._lock:
            return session_id in self._sessions

    def wait_for(self, session_id: str, timeout_s: float) -> TransferSession | None:
        """The session of an id; None when it ended, or was not published in time."""
        from concurrent.futures import CancelledError

        with self._lock:
            session = self._sessions.get(session_id)
        try:
            return None if session is None else session.result(timeout_s)
        except (CancelledError, TimeoutError):
            return None
