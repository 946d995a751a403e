"""Errors of accept(2) that do not make the listener unusable, in two sets.

Facts. accept(2) reports pending network errors of the new connection as its own (accept(2), "Error
handling"). Out of descriptors or memory it leaves the connection in the queue, so a level-triggered
listener stays readable and an immediate retry would spin.
Decision: a transient error is skipped; a lack of capacity pauses accepting for ACCEPT_PAUSE_S.
csrc/fn_accept.h has the same two lists.
"""

from __future__ import annotations

import errno

ACCEPT_CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""No descriptor or memory for another connection, which stays in the queue: wait, then retry."""

ACCEPT_TRANSIENT_ERRNOS = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
"""That one connection is gone: accept the next one."""
