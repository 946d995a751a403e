"""Message authentication: HMAC-SHA-256 at the end of a datagram (RFC 2104), and key ids.

Decision: the MAC of a datagram is its last MAC_BYTES bytes and covers all bytes before them. It
authenticates and hides nothing. The comparison takes the same time wherever the first difference
is, so that a forger learns nothing from it.
"""

from __future__ import annotations

import hmac
import re

KEY_ID = re.compile(r"[A-Za-z0-9_.@-]{1,32}", re.ASCII)
"""Form of a key id; a datagram carries it in clear."""

MAC_BYTES = 32
"""Length of a MAC: the output of SHA-256."""


def mac(secret: bytes, data: bytes) -> bytes:
    """The HMAC-SHA-256 of `data`, MAC_BYTES long."""
    return hmac.digest(secret, data, "sha256")


def is_authentic(datagram: bytes, secret: bytes) -> bool:
    """Whether the last MAC_BYTES of a datagram are the MAC of the bytes before them."""
    return hmac.compare_digest(mac(secret, datagram[:-MAC_BYTES]), datagram[-MAC_BYTES:])
