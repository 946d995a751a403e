"""Access list: networks of peers to accept (`--allow`) and to reject (`--deny`).

A peer in a denied network is rejected; if any network is allowed, a peer must be in one of those;
otherwise every peer is accepted. The order of the options does not matter. Peers on Unix sockets
have no address; file permissions guard them.
Facts. An IPv4 peer of a dual-stack listener appears as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
Decision: every network is kept in that form, so one comparison serves both families. IPv6 networks
shorter than that prefix, above all ::/0, contain no IPv4 peer. The native twin is csrc/fn_access.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from fastnet.errors import ConfigError

RECORD = struct.Struct("16sBB")
"""struct fn_network: 16 address bytes, prefix bits, 1 for allow."""

V4_PREFIX = bytes(10) + b"\xff\xff"
V4_PREFIX_BITS = 8 * len(V4_PREFIX)


@dataclass(frozen=True)
class AccessList:
    """Allowed and denied networks."""

    networks: tuple[tuple[int, int, bool], ...] = ()
    """Address as an integer, prefix bits of 128, whether it is allowed."""

    @classmethod
    def parse(cls, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AccessList:
        """Parse CIDR texts such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7. Raises ConfigError."""
        return cls(
            (*(network(text, True) for text in allow), *(network(text, False) for text in deny))
        )

    def allows(self, host: str) -> bool:
        """Whether a peer with this numeric address may connect."""
        address = int.from_bytes(address16(host))
        is_v4 = address >> 32 == int.from_bytes(V4_PREFIX)
        allowed = not any(allow for _, _, allow in self.networks)
        for value, bits, allow in self.networks:
            if is_v4 and bits < V4_PREFIX_BITS:
                continue
            if (value ^ address) >> (128 - bits) == 0:
                if not allow:
                    return False
                allowed = True
        return allowed

    def packed(self) -> bytes:
        """The networks as an array of struct fn_network."""
        return b"".join(
            RECORD.pack(value.to_bytes(16), bits, allow) for value, bits, allow in self.networks
        )


def network(text: str, allow: bool) -> tuple[int, int, bool]:
    try:
        parsed = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a network: {error}", "Write 10.0.0.0/8, 2001:db8::/32 or one address"
        ) from None
    packed = parsed.network_address.packed
    if parsed.version == 4:
        return int.from_bytes(V4_PREFIX + packed), 96 + parsed.prefixlen, allow
    return int.from_bytes(packed), parsed.prefixlen, allow


def address16(host: str) -> bytes:
    """A numeric address in network order, IPv4 as ::ffff:a.b.c.d."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return V4_PREFIX + address.packed if address.version == 4 else address.packed
