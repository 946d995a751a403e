"""Errors of connecting, as one sentence with a hint for each errno."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.transport.resolve import Address

HINTS = {
    errno.ECONNREFUSED: "Nothing listens there: check host and port, or start the server first",
    errno.ETIMEDOUT: "The host is down, a firewall drops the packets, "
    "or it needs a longer --timeout",
    errno.EHOSTUNREACH: "Check the address and the route to it: ip route get ADDRESS",
    errno.ENETUNREACH: "Check the address and the route to it: ip route get ADDRESS",
    errno.EACCES: "A firewall or the address forbids it; "
    "connecting to a broadcast address is not possible",
    errno.EPERM: "A firewall of this host forbids it",
    errno.EADDRNOTAVAIL: "This host has no address or no free port to connect from",
    errno.EAFNOSUPPORT: "This host does not have that address family; try the other IP version",
    errno.EMFILE: "This process has too many open files: raise ulimit -n",
    errno.ENFILE: "This host has too many open files",
}

UNIX_HINTS = {
    errno.ENOENT: "The server creates the socket file when it starts: "
    "check the path, or start the server first",
    errno.ECONNREFUSED: "No server has it open: the file is stale, or not a socket; "
    "start the server",
    errno.EACCES: "It needs write permission on the socket file and search permission "
    "on its folders",
    errno.EPROTOTYPE: "It is a socket of the other kind: unix:PATH is for streams, "
    "unixgram:PATH for datagrams",
    errno.EPERM: "That socket accepts datagrams of one peer only",
    errno.EMSGSIZE: "A datagram over a Unix socket must fit SO_SNDBUF; net.core.wmem_max bounds it",
    errno.EAGAIN: "The server does not accept: it is stopped or overloaded; "
    "try again or set a longer --timeout",
}


class Failure(NamedTuple):
    """One address, and why connecting to it failed."""

    address: Address
    error: OSError


def cannot_connect(
    endpoint: Endpoint, failures: Sequence[Failure], timeout_s: float = 0
) -> NetworkError:
    """One sentence for all addresses that failed; the hint is that of the last one."""
    causes = {
        str(address): no_answer(timeout_s) if timed_out(error) else reason(error)
        for address, error in failures
    }
    if len(set(causes.values())) == 1:
        why = next(iter(causes.values()))
        if len(causes) > 1:
            why = f"{why} (tried {', '.join(causes)})"
    else:
        why = ", ".join(f"{address}: {each}" for address, each in causes.items())
    code = failures[-1].error.errno if failures else None
    return NetworkError(
        f"cannot connect to {endpoint}: {why or 'no address'}", hint_of(endpoint, code), code
    )


def hint_of(endpoint: Endpoint, code: int | None) -> str:
    return (UNIX_HINTS if endpoint.is_local else HINTS).get(code or 0, "")


def timed_out(error: OSError) -> bool:
    return error.errno == errno.ETIMEDOUT


def no_answer(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s" if timeout_s else "no answer"
