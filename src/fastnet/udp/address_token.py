"""Address token (cookie): shows that a peer receives datagrams at its address.

Facts. The source address of a datagram can be forged. A server that sends a token to that address
and answers only requests that return it answers validated addresses only (RFC 9000 section 8, RFC
9147 section 5.1).
Decision: a token is a MAC over the address and the number of the current period, so issued tokens
cost the server no memory. It is valid in its period and the one after it. The secret is random
and made when the server starts: a datagram recorded before a restart has no valid token.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from typing import Any

from fastnet.security.mac import MAC_BYTES, mac


class AddressToken:
    """Issues and verifies the address tokens of one server.

    Args:
        period_s: A token is valid for this long at least, and for twice as long at most.
        size: Bytes of a token, at most MAC_BYTES.
    """

    def __init__(self, period_s: float, size: int) -> None:
        assert 0 < size <= MAC_BYTES
        self._period_s = period_s
        self._size = size
        self._secret = secrets.token_bytes(MAC_BYTES)

    def issue(self, address: Sequence[Any], now_s: float, context: bytes = b"") -> bytes:
        """The token of an address.

        Args:
            address: Host and port, as recvfrom(2) reports them; further items do not count.
            now_s: Monotonic seconds.
            context: What the token is bound to besides the address, such as a client's nonce.
        """
        return self._token(address, int(now_s // self._period_s), context)

    def verify(
        self, token: bytes, address: Sequence[Any], now_s: float, context: bytes = b""
    ) -> bool:
        """Whether `token` was issued to this address and context, in this period or the last."""
        period = int(now_s // self._period_s)
        return any(
            hmac.compare_digest(token, self._token(address, each, context))
            for each in (period, period - 1)
        )

    def _token(self, address: Sequence[Any], period: int, context: bytes) -> bytes:
        """Fields have fixed lengths or end with NUL: no two sets of values make the same bytes."""
        host, port = address[:2]
        fixed = period.to_bytes(8, "big", signed=True) + port.to_bytes(2, "big")
        return mac(self._secret, fixed + host.encode() + b"\0" + context)[: self._size]
