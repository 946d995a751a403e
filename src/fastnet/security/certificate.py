"""Self-signed certificate of a listener: made once, kept, and known by its fingerprint.

Facts. It is signed by its own key only, so its names and dates prove nothing; a peer that pins
its fingerprint needs neither. A certificate made anew at each start would have a new fingerprint.
Decision: key and certificate in one file that only its owner may read, made under another name and
linked to its own, so that of two processes which start together one wins and both use that.
`cryptography` makes it, or the openssl command.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import ssl
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from fastnet.errors import ConfigError, printable, reason
from fastnet.limits import CERTIFICATE_DAYS, OPENSSL_S

FILE_NAME = "fastnet-tls.pem"
SUBJECT = "fastnet"
PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def own_certificate(folder: str) -> str:
    """The path of our own certificate and key in `folder`, made when it is not there.

    Raises ConfigError.
    """
    path = os.path.join(folder, FILE_NAME)
    if os.path.lexists(path):
        return path
    pem = make_pem()
    temporary = f"{path}.{secrets.token_hex(4)}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(pem)
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except (OSError, ValueError) as error:
        said = reason(error) if isinstance(error, OSError) else "not a path"
        message = f"cannot keep a certificate in {printable(folder)}: {said}"
        raise ConfigError(message, "Make that folder writable, or give --cert and --key") from error
    return path


def certificate_in(path: str) -> bytes:
    """The first certificate of a PEM file, DER. Raises OSError and ValueError."""
    with open(path, encoding="ascii", errors="replace") as file:
        found = PEM_CERTIFICATE.search(file.read())
    if found is None:
        raise ValueError("it has no certificate")
    return ssl.PEM_cert_to_DER_cert(found.group())


def make_pem() -> bytes:
    """A new key and a certificate for it.

    Raises ConfigError when there is nothing to make them with.
    """
    try:
        return with_cryptography()
    except ImportError:
        pass
    openssl = shutil.which("openssl")
    if openssl is None:
        hint = "pip install 'fastnet-io[tls]', or install openssl, or give --cert and --key"
        raise ConfigError("there is nothing here to make a certificate with", hint)
    return with_openssl(openssl)


def with_cryptography() -> bytes:
    """Raises ImportError where that is not installed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM)


def with_openssl(openssl: str) -> bytes:
    command = [
        *(
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-batch",
        ),
        *(
            "-keyout",
            "/dev/stdout",
            "-out",
            "/dev/stdout",
            "-days",
            str(CERTIFICATE_DAYS),
            "-subj",
            f"/CN={SUBJECT}",
        ),
        *("-addext", "subjectAltName=DNS:localhost"),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=OPENSSL_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        last = printable(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        hint = "pip install 'fastnet-io[tls]', or give --cert and --key"
        raise ConfigError(f"openssl made no certificate: {last}", hint) from error
    return done.stdout
