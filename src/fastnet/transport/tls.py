"""TLS for transfers: certificates, pinning, handshake with a deadline, channel binding.

Facts. A certificate that no authority signed authenticates no one by itself, but a peer that knows
its fingerprint needs no authority. Python takes an end without close_notify for a proper one unless
told otherwise (suppress_ragged_eofs). TLS 1.3 servers send tickets that a client which only writes
never reads, and closing with unread input resets the connection. A handshake waits for the peer
several times.
Decision: the listener is the TLS server; without a certificate it makes one for itself, keeps it
and shows its fingerprint, which the other side pins. An end without close_notify is an error,
tickets are not sent, TLS is 1.2 at least. A handshake is steps that never wait; `shake` does them
all with a deadline.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import re
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from fastnet.errors import ConfigError, FastnetError, NetworkError, printable, reason
from fastnet.limits import MOVER_SLICE_S
from fastnet.security.certificate import certificate_in, own_certificate

TCP_ULP = 31
"""From linux/tcp.h; Python has no name for it."""

FINGERPRINT = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class TlsOptions:
    """Paths of PEM files, or None. cert, key: ours.

    Without key it is in the file of cert. ca: who may sign theirs.

    fingerprint: "sha256:" and 64 hexadecimal digits, colons between them or not: the one
    certificate that is taken.
    """

    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    fingerprint: str | None = None


class Context(ssl.SSLContext):
    """A context with our own certificate and the only fingerprint it accepts.

    The certificate is DER, empty for none; the fingerprint is "" for any.
    """

    certificate = b""
    pin = ""


def server_context(options: TlsOptions, folder: str) -> Context:
    """The context of a listener.

    folder: where a certificate of our own is kept, made when `options` have none. Raises
    ConfigError.
    """
    if options.fingerprint is not None:
        hint = "Give it to the side that connects; --ca says whose certificates the listener takes"
        raise ConfigError("the listener has no fingerprint to check", hint)
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    if options.cert is None and options.key is not None:
        raise ConfigError(
            "there is a key without a certificate", "Give --cert too, or leave --key out"
        )
    load_certificate(context, options.cert or own_certificate(folder), options.key)
    if options.ca is not None:
        load_authorities(context, options.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(options: TlsOptions) -> Context:
    """For the side that connects. Raises ConfigError.

    Without ca and fingerprint it takes what this host's authorities have signed for the name that
    was dialled.
    """
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    if options.fingerprint is not None:
        context.pin = parse_fingerprint(options.fingerprint)
    if options.ca is not None:
        load_authorities(context, options.ca)
    elif context.pin:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    if options.cert is not None:
        load_certificate(context, options.cert, options.key)
    return context


def new_context(protocol: int) -> Context:
    context = Context(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= getattr(ssl, "OP_ENABLE_KTLS", 0)
    return context


def load_certificate(context: Context, cert: str, key: str | None) -> None:
    """Raises ConfigError, also for a key with a password: there is no prompt for it."""
    where = printable(cert if key is None else f"{cert} with {key}")
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
        context.certificate = certificate_in(cert)
    except (OSError, ValueError) as error:
        hint = (
            "They are PEM files that can be read, "
            "the key belongs to the first certificate and has no password"
        )
        raise ConfigError(f"cannot use the certificate {where}: {why(error)}", hint) from error


def load_authorities(context: Context, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        said = (
            why(error)
            if isinstance(error, ssl.SSLError)
            else reason(error)
            if isinstance(error, OSError)
            else "not a path"
        )
        message = f"cannot use the authorities in {printable(path)}: {said}"
        raise ConfigError(message, "It is a PEM file with the certificates that sign") from error


def parse_fingerprint(text: str) -> str:
    """The form of fingerprint_of. Raises ConfigError."""
    kind, _, digits = text.strip().lower().partition(":")
    plain = f"{kind}:{digits.replace(':', '')}"
    if not FINGERPRINT.fullmatch(plain):
        hint = "It is sha256: and 64 hexadecimal digits; the listener shows its own when it starts"
        raise ConfigError(f"'{printable(text)}' is no fingerprint", hint)
    return plain


def fingerprint_of(der: bytes) -> str:
    """The name by which a certificate is pinned."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def begin(sock: socket.socket, context: Context, server_side: bool, host: str) -> ssl.SSLSocket:
    """A non-blocking socket whose handshake has not begun; `sock` is used up.

    Raises NetworkError.
    """
    sock.setblocking(False)
    try:
        sock.getpeername()  # ssl would leave its socket open when this one is reset already
        return context.wrap_socket(
            sock,
            server_side=server_side,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=None if server_side else host or None,
        )
    except (OSError, ValueError) as error:
        sock.close()
        raise failed(host, error) from error


def shake(secure: ssl.SSLSocket, host: str, timeout_s: float, look: Callable[[], None]) -> None:
    """The whole handshake. look: called whenever waiting has taken MOVER_SLICE_S.

    May raise.

    host: the other side, as dialled. Raises NetworkError when it does not do, in time, or is not
    who it should be.
    """
    ends, poll = monotonic() + timeout_s, select.poll()
    while events := step(secure, host):
        poll.register(secure, events)
        left_s = ends - monotonic()
        if left_s <= 0:
            hint = "Check that the other side uses TLS too (--tls), and that it is awake"
            raise NetworkError(f"no TLS handshake with {shown(host)} within {timeout_s:g} s", hint)
        poll.poll(min(left_s, MOVER_SLICE_S) * 1000)
        look()


def step(secure: ssl.SSLSocket, host: str) -> int:
    """Go on with a handshake, without waiting.

    Returns what to poll for before the next step, 0 when it is done.

    Raises NetworkError.
    """
    try:
        secure.do_handshake()
    except ssl.SSLWantReadError:
        return select.POLLIN
    except ssl.SSLWantWriteError:
        return select.POLLOUT
    except (OSError, ValueError) as error:
        raise failed(host, error) from error
    check_pin(secure, host)
    return 0


def check_pin(secure: ssl.SSLSocket, host: str) -> None:
    assert isinstance(secure.context, Context)
    pin = secure.context.pin
    if not pin:
        return
    found = fingerprint_of(secure.getpeercert(binary_form=True) or b"")
    if not hmac.compare_digest(found, pin):
        hint = (
            "Either its certificate was renewed, or this is another host; ask its owner. "
            f"Expected {pin}"
        )
        raise NetworkError(
            f"the certificate of {shown(host)} is not the one expected: it has {found}", hint
        )


def binding(secure: ssl.SSLSocket) -> bytes:
    """Channel binding: SHA-256 of the server's certificate.

    Both sides know it and a man in the middle cannot present it (RFC 5929, tls-server-end-point).
    """
    assert isinstance(secure.context, Context)
    der = secure.context.certificate if secure.server_side else secure.getpeercert(binary_form=True)
    return hashlib.sha256(der or b"").digest()


def failed(host: str, error: OSError | ValueError) -> FastnetError:
    """What went wrong in a handshake, with its hint."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = (
            "Pin it with --tls-fingerprint (the listener shows its own), "
            "or name the authority that signed it with --ca"
        )
        return NetworkError(
            f"the certificate of {shown(host)} is not trusted: {error.verify_message}", hint
        )
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)) or number == errno.ENOTCONN:
        hint = "Check that it uses TLS too (--tls); its own words say more"
        return NetworkError(f"{shown(host)} ended the TLS handshake", hint)
    if isinstance(error, ssl.SSLError):
        hint = "Check that the other side uses TLS too (--tls)"
        return NetworkError(f"the TLS handshake with {shown(host)} failed: {why(error)}", hint)
    return NetworkError(
        f"the TLS handshake with {shown(host)} failed: {why(error)}", "Check the address", number
    )


def wanted(error: OSError) -> int:
    """What to poll for before TLS can go on, 0 when `error` is no wait."""
    if isinstance(error, ssl.SSLWantReadError):
        return select.POLLIN
    return select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else 0


def is_end(error: OSError) -> bool:
    """Whether the connection ended without TLS having said so."""
    return isinstance(error, ssl.SSLEOFError)


def is_fault(error: OSError) -> bool:
    """Whether it is the connection that failed."""
    return isinstance(error, ssl.SSLError)


def holds(secure: ssl.SSLSocket) -> bool:
    """Whether something was decrypted and not read yet."""
    return secure.pending() > 0


def shown(host: str) -> str:
    return printable(host) or "the other side"


def why(error: OSError | ValueError) -> str:
    """OpenSSL's words, or the system's, in lower case."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return reason(error) if isinstance(error, OSError) else printable(str(error))


def kernel_tls() -> str:
    """ "" when the kernel could encrypt what sendfile(2) sends, or why not."""
    if not hasattr(ssl, "OP_ENABLE_KTLS"):
        why_not = "Python before 3.12 cannot ask OpenSSL for kernel TLS"
    elif ssl.OPENSSL_VERSION_INFO < (3,):
        why_not = "OpenSSL before 3.0 has no kernel TLS"
    else:
        why_not = ""
    try:
        attach_tls()
    except OSError as error:
        cause = (
            "the kernel module tls is not loaded"
            if isinstance(error, FileNotFoundError)
            else reason(error)
        )
        return f"{cause}; {why_not}" if why_not else cause
    return why_not


def attach_tls() -> None:
    """Ask a connection's kernel side for TLS, as OpenSSL would."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
