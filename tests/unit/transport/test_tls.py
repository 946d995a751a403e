"""TLS: who is on the other side, and what becomes of one who is not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from fastnet.errors import ConfigError, FastnetError, NetworkError
from fastnet.security import certificate
from fastnet.security.certificate import (
    FILE_NAME,
    certificate_in,
    own_certificate,
    with_cryptography,
    with_openssl,
)
from fastnet.transport.tls import (
    Context,
    TlsOptions,
    begin,
    binding,
    client_context,
    fingerprint_of,
    kernel_tls,
    server_context,
    shake,
)
from tests.support.clients import DEADLINE_S

SHORT_S = 0.2


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where one server's own certificate is."""
    place = str(tmp_path_factory.mktemp("tls"))
    own_certificate(place)
    return place


@pytest.fixture
def server(folder: str) -> Context:
    return server_context(TlsOptions(), folder)


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection over TCP: the accepting side and the one that dialled."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with accepted, client:
        yield accepted, client


Ends = list["ssl.SSLSocket | FastnetError"]


def wrap(
    sock: socket.socket, context: Context, server_side: bool, host: str, timeout_s: float
) -> ssl.SSLSocket:
    secure = begin(sock, context, server_side, host)
    try:
        shake(secure, host, timeout_s, lambda: None)
    except BaseException:
        secure.close()
        raise
    return secure


def both(pair: Pair, server, client: Context, host: str = "localhost") -> Ends:
    """Both sides' handshakes, concurrently: a socket or what was raised."""

    def one(
        sock: socket.socket, context: Context, server_side: bool
    ) -> ssl.SSLSocket | FastnetError:
        try:
            return wrap(sock, context, server_side, host, DEADLINE_S)
        except FastnetError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(one, pair[0], server, True),
            pool.submit(one, pair[1], client, False),
        ]
        return [each.result() for each in futures]


def close(ends: Ends) -> None:
    for each in ends:
        if isinstance(each, ssl.SSLSocket):
            each.close()


def pinned(server: Context) -> Context:
    return client_context(TlsOptions(fingerprint=fingerprint_of(server.certificate)))


def test_two_sides_that_know_the_fingerprint_understand_each_other(
    pair: Pair, server: Context
) -> None:
    ends = both(pair, server, pinned(server))
    try:
        accepted, client = ends
        assert isinstance(accepted, ssl.SSLSocket)
        assert isinstance(client, ssl.SSLSocket)
        assert accepted.gettimeout() == client.gettimeout() == 0
        assert client.version() == "TLSv1.3"
        assert client.send(b"hello") == 5
        accepted.settimeout(DEADLINE_S)
        assert accepted.recv(9) == b"hello"
        assert binding(accepted) == binding(client) == hashlib.sha256(server.certificate).digest()
    finally:
        close(ends)


def test_another_certificate_than_the_pinned_one_is_an_error_that_names_both(
    pair: Pair, server: Context
) -> None:
    other = "sha256:" + "0" * 64
    ends = both(pair, server, client_context(TlsOptions(fingerprint=other)))
    close(ends)
    assert isinstance(ends[1], NetworkError)
    assert fingerprint_of(server.certificate) in str(ends[1])
    assert other in str(ends[1])


def test_a_certificate_of_an_unknown_issuer_is_an_error_with_the_hint(
    pair: Pair, server: Context
) -> None:
    ends = both(pair, server, client_context(TlsOptions()))
    close(ends)
    assert isinstance(ends[1], NetworkError)
    assert "not trusted" in str(ends[1])
    assert "--tls-fingerprint" in str(ends[1])
    assert isinstance(ends[0], NetworkError)


@pytest.mark.parametrize(("host", "fits"), [("localhost", True), ("example.org", False)])
def test_with_an_authority_the_name_must_fit(
    pair: Pair, server: Context, folder: str, host: str, fits: bool
) -> None:
    client = client_context(TlsOptions(ca=os.path.join(folder, FILE_NAME)))
    ends = both(pair, server, client, host)
    close(ends)
    assert isinstance(ends[1], ssl.SSLSocket) is fits


def test_a_listener_with_an_authority_lets_in_only_whom_it_signed(
    pair: Pair, folder: str, tmp_path: Path
) -> None:
    mine = os.path.join(folder, FILE_NAME)
    server = server_context(TlsOptions(cert=mine, ca=mine), folder)
    pin = fingerprint_of(server.certificate)
    unpinned = own_certificate(str(tmp_path))
    ends = both(pair, server, client_context(TlsOptions(cert=unpinned, fingerprint=pin)))
    close(ends)
    assert isinstance(ends[0], NetworkError)


def test_a_listener_with_an_authority_lets_in_whom_it_signed(pair: Pair, folder: str) -> None:
    mine = own_certificate(folder)
    server = server_context(TlsOptions(cert=mine, ca=mine), folder)
    ends = both(
        pair,
        server,
        client_context(TlsOptions(cert=mine, fingerprint=fingerprint_of(server.certificate))),
    )
    close(ends)
    assert all(isinstance(each, ssl.SSLSocket) for each in ends)


def test_an_end_without_close_notify_is_an_error(pair: Pair, server: Context) -> None:
    """A connection that is cut on the path ends like a complete one, but for close_notify."""
    accepted, client = ends = both(pair, server, pinned(server))
    try:
        assert isinstance(accepted, ssl.SSLSocket)
        assert isinstance(client, ssl.SSLSocket)
        accepted.settimeout(DEADLINE_S)
        socket.socket.shutdown(client, socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            accepted.recv(9)
    finally:
        close(ends)


def test_a_client_that_only_writes_loses_nothing_when_it_closes(
    pair: Pair, server: Context
) -> None:
    """With unread tickets it would reset, and what is in its send buffer would be gone."""
    accepted, client = ends = both(pair, server, pinned(server))
    try:
        assert isinstance(accepted, ssl.SSLSocket)
        assert isinstance(client, ssl.SSLSocket)
        sent = received = 0
        with contextlib.suppress(ssl.SSLWantWriteError):
            while True:
                sent += client.send(bytes(1 << 14))
        client.close()
        accepted.settimeout(DEADLINE_S)
        with contextlib.suppress(ssl.SSLEOFError):
            while part := accepted.recv(1 << 16):
                received += len(part)
        assert received >= sent
    finally:
        close(ends)


@pytest.mark.parametrize("server_side", [True, False])
def test_a_silent_peer_costs_no_more_than_the_deadline(
    pair: Pair, server: Context, server_side: bool
) -> None:
    began_s = monotonic()
    with pytest.raises(NetworkError, match=r"no TLS handshake with example.org within 0.2 s"):
        wrap(
            pair[0], server if server_side else pinned(server), server_side, "example.org", SHORT_S
        )
    assert monotonic() - began_s < SHORT_S + DEADLINE_S / 2


def test_a_peer_that_dribbles_costs_no_more_than_the_deadline(pair: Pair, server: Context) -> None:
    stop = threading.Event()

    def dribble() -> None:
        pair[1].send(b"\x16\x03\x01\x02\x00\x01")
        while not stop.wait(0.01):
            pair[1].send(b"\x00")

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        with pytest.raises(NetworkError, match="within"):
            wrap(pair[0], server, True, "example.org", SHORT_S)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, b"\xff" * 100, b"SSH-2.0-x\r\n", b""]
)
@pytest.mark.parametrize("server_side", [True, False])
def test_a_peer_without_tls_is_an_error_that_says_so(
    pair: Pair, server: Context, server_side: bool, garbage: bytes
) -> None:
    pair[1].send(garbage)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(NetworkError, match="TLS") as caught:
        wrap(
            pair[0], server if server_side else pinned(server), server_side, "a\x1b[2Jb", DEADLINE_S
        )
    assert str(caught.value).isprintable()
    assert "--tls" in str(caught.value)


def test_a_peer_that_resets_is_an_error(pair: Pair, server: Context) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair[1].close()
    with pytest.raises(NetworkError):
        wrap(pair[0], server, True, "example.org", DEADLINE_S)


def test_no_older_version_is_spoken(pair: Pair, server: Context) -> None:
    old = pinned(server)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    ends = both(pair, server, old)
    close(ends)
    assert all(isinstance(each, NetworkError) for each in ends)


def test_a_certificate_of_ones_own_is_made_once_and_for_ones_own_eyes(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first = server_context(TlsOptions(), str(folder))
    assert os.listdir(folder) == [FILE_NAME]
    assert stat.S_IMODE(os.stat(folder / FILE_NAME).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert server_context(TlsOptions(), str(folder)).certificate == first.certificate


def test_processes_that_start_together_use_one_certificate(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: certificate_in(own_certificate(str(tmp_path))), range(8)))
    assert len(set(paths)) == 1
    assert os.listdir(tmp_path) == [FILE_NAME]


@pytest.mark.parametrize("maker", ["cryptography", "openssl"])
def test_either_maker_makes_one_that_works(pair: Pair, tmp_path: Path, maker: str) -> None:
    if maker == "cryptography":
        pytest.importorskip("cryptography")
        pem = with_cryptography()
    else:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("no openssl command")
        pem = with_openssl(openssl)
    path = tmp_path / "made.pem"
    path.write_bytes(pem)
    server = server_context(TlsOptions(cert=str(path)), "")
    ends = both(
        pair,
        server,
        client_context(TlsOptions(ca=str(path), fingerprint=fingerprint_of(server.certificate))),
    )
    close(ends)
    assert all(isinstance(each, ssl.SSLSocket) for each in ends), ends


def test_without_any_maker_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="fastnet-io"):
        own_certificate(str(tmp_path))


def test_an_openssl_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "openssl"
    script.write_text("#!/bin/sh\necho first >&2\necho no entropy today >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="no entropy today"):
        own_certificate(str(tmp_path))
    assert certificate.FILE_NAME not in os.listdir(tmp_path)


def test_a_folder_that_cannot_keep_a_certificate_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "a\0b"):
        with pytest.raises(ConfigError):
            server_context(TlsOptions(), folder)


def test_what_is_no_certificate_is_a_config_error(tmp_path: Path, folder: str) -> None:
    mine = own_certificate(folder)
    text = Path(mine).read_text()
    key_end = text.index("-----END PRIVATE KEY-----\n") + len("-----END PRIVATE KEY-----\n")
    files = {"key": text[:key_end], "cert": text[key_end:], "empty": "", "garbage": "\0\xff" * 50}
    paths = {name: tmp_path / name for name in files}
    for name, content in files.items():
        paths[name].write_text(content)
    wrong = [
        TlsOptions(cert=str(paths["cert"])),
        TlsOptions(cert=str(paths["key"])),
        TlsOptions(cert=str(paths["empty"])),
        TlsOptions(cert=str(paths["garbage"])),
        TlsOptions(cert=str(tmp_path)),
        TlsOptions(cert=str(tmp_path / "missing")),
        TlsOptions(cert="a\0b"),
        TlsOptions(key=str(paths["key"])),
        TlsOptions(cert=str(paths["cert"]), key=own_certificate(str(tmp_path / "other"))),
        TlsOptions(cert=mine, ca=str(paths["empty"])),
        TlsOptions(cert=mine, ca=str(tmp_path / "missing")),
        TlsOptions(cert=mine, ca="a\0b"),
        TlsOptions(cert=mine, fingerprint="sha256:" + "0" * 64),
    ]
    for options in wrong:
        with pytest.raises(ConfigError) as caught:
            server_context(options, folder)
        assert str(caught.value).isprintable()
        assert caught.value.hint
    assert server_context(
        TlsOptions(cert=str(paths["cert"]), key=str(paths["key"])), folder
    ).certificate


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_a_key_with_a_password_is_an_error_and_no_question(tmp_path: Path, folder: str) -> None:
    path = tmp_path / "locked"
    command = [
        "openssl",
        "pkey",
        "-in",
        own_certificate(folder),
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        str(path),
    ]
    subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
    with pytest.raises(ConfigError, match="no password"):
        server_context(TlsOptions(cert=own_certificate(folder), key=str(path)), folder)


def test_a_fingerprint_is_taken_as_openssl_prints_it(server: Context) -> None:
    plain = fingerprint_of(server.certificate)
    digits = plain.removeprefix("sha256:")
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()
    for text in (plain, f"SHA256:{colons}", f" sha256:{digits}\n"):
        assert client_context(TlsOptions(fingerprint=text)).pin == plain
    for text in (
        "",
        digits,
        "sha1:" + digits,
        plain[:-1],
        plain + "0",
        "sha256:" + "g" * 64,
        "\x1b[2J",
    ):
        with pytest.raises(ConfigError):
            client_context(TlsOptions(fingerprint=text))


def test_kernel_tls_is_there_or_the_reason_why_not() -> None:
    found = kernel_tls()
    assert found.isprintable()
    ulp = Path("/proc/sys/net/ipv4/tcp_available_ulp")
    if (
        ulp.exists()
        and "tls" not in ulp.read_text().split()
        and not os.path.exists("/sys/module/tls")
    ):
        assert found
    if not hasattr(ssl, "OP_ENABLE_KTLS"):
        assert "3.12" in found
