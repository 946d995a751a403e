"""Challenge-response with a shared secret (HMAC-SHA-256), for the fastnet/1 handshake.

Facts. Sending a secret reveals it. An HMAC over the peer's nonce proves possession without
revealing it, once. If both sides' digests were over the same text, a peer without the
token would send ours back and be believed (reflection). If the text were only glued together, two
sets of values could make the same text. A secret on the command line is in `ps`.
Decision: each side chooses a nonce and proves itself with HMAC-SHA-256, keyed with the token, over:
a label of this protocol, the role of the one who proves, the sender's nonce, the receiver's nonce,
and the binding of the TLS connection (empty without TLS); each preceded by its length. Roles
differ, so no proof serves the other way round; nonces are fresh, so none serves twice; with TLS
none serves on another connection, so a man in the middle cannot relay it. What it does not
do: without TLS the data that follow are neither hidden nor protected, and an eavesdropper
can try guesses of the token at leisure, so take a random one.
"""

from __future__ import annotations

import os
import stat

from fastnet.errors import ConfigError, printable, reason
from fastnet.limits import TOKEN_BYTES_MAX, TOKEN_BYTES_MIN

LABEL = b"fastnet/1 token proof"
ROLES = ("send", "recv")
NONCE_BYTES = 32
LENGTH_BYTES = 8
OTHERS = 0o077


def read_token(path: str) -> bytes:
    """The token in a file, without its final newline. Raises ConfigError.

    The file belongs to its owner alone, as ssh wants of keys; a pipe is fine, as from `--token-file
    <(pass show ...)`.
    """
    shown = printable(path)
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(TOKEN_BYTES_MAX + len(b"\r\n") + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a path"
        raise ConfigError(
            f"cannot read the token file {shown}: {why}", "Check the path and its permissions"
        ) from error
    if mode & OTHERS:
        message = (
            f"the token file {shown} is open to others than its owner "
            f"(mode {stat.S_IMODE(mode):04o})"
        )
        raise ConfigError(
            message, f"chmod 600 {quoted(shown)}, and take a new token if others may have read it"
        )
    token = token.removesuffix(b"\n").removesuffix(b"\r")
    if not TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_MAX:
        size = (
            f"only {len(token)} bytes"
            if len(token) < TOKEN_BYTES_MIN
            else f"more than {TOKEN_BYTES_MAX} bytes"
        )
        hint = f"Make one: (umask 077; head -c 32 /dev/urandom | base64 > {quoted(shown)})"
        raise ConfigError(f"the token in {shown} has {size}", hint)
    return token


def quoted(path: str) -> str:
    """For a shell."""
    import shlex  # here, because only a mistake needs it

    return shlex.quote(path)


def nonce() -> bytes:
    """What a side chooses anew for each connection."""
    return os.urandom(NONCE_BYTES)


def proof(token: bytes, role: str, mine: bytes, theirs: bytes, binding: bytes) -> bytes:
    """The MAC with which the side of `role` ("send" or "recv") proves to have the token.

    mine, theirs: the nonces, seen from the side that proves. To check a peer's proof, compute it
    from its side (its role, its nonce, then ours) and compare with `same`. binding: tls.binding(),
    or b"" without TLS.
    """
    if role not in ROLES:
        raise ValueError(f"{role!r} is no role")
    import hmac  # imported here: without a token OpenSSL is not loaded

    senders, receivers = (mine, theirs) if role == "send" else (theirs, mine)
    return hmac.digest(token, encode(LABEL, role.encode(), senders, receivers, binding), "sha256")


def encode(*values: bytes) -> bytes:
    """Values one after another, each preceded by its length.

    No two lists of values give the same bytes.
    """
    return b"".join(len(value).to_bytes(LENGTH_BYTES, "big") + value for value in values)


def same(a: bytes, b: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell how far they are."""
    import hmac

    return hmac.compare_digest(a, b)
