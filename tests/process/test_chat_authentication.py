"""`fastnet chat serve --key` and `chat join --key` as processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from fastnet.apps.chat import wire
from fastnet.apps.chat.authentication import ClientAuthenticator
from fastnet.endpoint import Endpoint
from tests.support.chat import joined, serving, textbook
from tests.support.cli_process import ENVIRONMENT, finish, running
from tests.support.clients import while_flooded
from tests.support.lossy_network import Lossy

LINES = {"us": "us " + bytes(range(32)).hex(), "them": "them " + bytes(range(1, 33)).hex()}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write(tmp_path / "chat.keys", "us")


def write(path: Path, *names: str) -> Path:
    path.touch(0o600)
    path.write_text("".join(f"{LINES[name]}\n" for name in names))
    return path


def test_members_with_the_key_receive_each_others_messages(key: Path) -> None:
    with serving("--key", key) as (_, where), joined(where, "ada", "--key", key) as ada:
        done = finish(
            "chat",
            "join",
            "--server",
            where,
            "--name",
            "bot",
            "--key",
            key,
            stdin=None,
            input="one\ntwo\n",
        )
        assert (done.returncode, done.stdout) == (0, "bot: one\nbot: two\n")
        assert [ada.line(), ada.line()] == ["bot: one", "bot: two"]
        assert [ada.line("err"), ada.line("err")] == ["* bot is online", "* bot is offline"]


def test_the_key_may_come_from_the_environment(key: Path) -> None:
    with serving(env=ENVIRONMENT | {"FASTNET_KEY": str(key)}) as (server, where):
        done = finish(
            "chat",
            "join",
            "--server",
            where,
            "--name",
            "a",
            env=ENVIRONMENT | {"FASTNET_KEY": str(key)},
        )
        assert (done.returncode, done.stderr) == (0, "* you are a, 1 online\n")
        assert "0 messages" in server.end()[1]


def test_clients_without_the_key_receive_nothing(key: Path) -> None:
    with serving("--key", key) as (server, where), joined(where, "ada", "--key", key) as ada:
        with textbook(where, b"online", b"hello", b"offline") as nc:
            nc.settimeout(0.3)
            with pytest.raises(TimeoutError):
                nc.recv(600)
        done = finish("chat", "join", "--server", where, "--name", "eve", "--timeout", "0.5")
        assert (done.returncode, done.stdout) == (4, "")
        assert "no answer within 0.5 s" in done.stderr
        assert "or the server requires a --key" in done.stderr
        ada.send_line("/who")
        assert ada.line("err") == "* 1 online: ada"
        assert "unauthenticated datagrams; the last from 127.0.0.1 port" in server.line(
            "err", "chat: "
        )


def test_the_error_of_a_different_key_is_not_that_of_no_key(key: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.keys", "them")
    arguments = ("chat", "join", "--name", "a", "--timeout", "0.5", "--key", other)
    with serving("--key", key) as (_, where):
        done = finish(*arguments, "--server", where)
        assert (done.returncode, "client and server have different keys" in done.stderr) == (
            4,
            True,
        )
    with serving() as (_, where):
        done = finish(*arguments, "--server", where)
        assert (
            done.returncode,
            "the server that answers has another key. Check --key" in done.stderr,
        ) == (4, True)


def test_over_a_lossy_network_each_message_is_displayed_once(key: Path) -> None:
    with serving("--key", key) as (_, where), Lossy(where, 12, loss=0.25) as network:
        with joined(where, "ada", "--key", key) as ada:
            lines = "".join(f"{i}\n" for i in range(15))
            arguments = (
                "chat",
                "join",
                "--server",
                network.endpoint,
                "--name",
                "bot",
                "--key",
                key,
            )
            done = finish(*arguments, stdin=None, input=lines)
            assert done.returncode == 0, done.stderr
            assert [ada.line() for _ in range(15)] == [f"bot: {i}" for i in range(15)]
            assert network.lost > 0


def test_a_client_joins_a_restarted_server_with_the_key(key: Path) -> None:
    with contextlib.ExitStack() as stack:
        first, where = stack.enter_context(serving("--key", key))
        ada = stack.enter_context(joined(where, "ada", "--key", key))
        assert first.end()[0] == 0
        stack.enter_context(serving("--key", key, port=where.port))
        ada.send_line("still here")
        assert ada.line() == "ada: still here"


def test_a_flood_of_forged_and_recorded_datagrams_has_no_effect(key: Path) -> None:
    with (
        serving("--key", key) as (_, where),
        RecordingProxy(where) as proxy,
        joined(proxy.endpoint, "ada", "--key", key) as ada,
    ):
        ada.send_line("first")
        assert ada.line() == "ada: first"
        forged = ClientAuthenticator("us", bytes(32))

        def flood() -> None:
            leave = wire.pack({"type": "leave", "cookie": ""})
            with contextlib.suppress(OSError):
                for data in (
                    b"online",
                    b"offline",
                    forged.authenticate(leave),
                    os.urandom(90),
                    *proxy.recorded[:20],
                ):
                    proxy.back.send(data)  # From the address that is Ada's at the server.

        with while_flooded(flood, 20):
            for i in range(5):
                ada.send_line(f"{i}")
                assert ada.line() == f"ada: {i}"


class RecordingProxy:
    """A proxy between one client and the server; records the datagrams of the client."""

    def __init__(self, server: Endpoint) -> None:
        self.front, self.back = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.front.bind(("127.0.0.1", 0))
        self.back.connect((server.host, server.port))
        self.endpoint = Endpoint("udp", *self.front.getsockname())
        self.recorded: list[bytes] = []
        self.client: tuple[str, int] | None = None
        self.threads = [
            threading.Thread(target=each) for each in (self.forward, self.forward_replies)
        ]

    def forward(self) -> None:
        while data := self.front.recvfrom(2000):
            if data[0] == b"end":
                return
            self.client = data[1]
            self.recorded.append(data[0])
            with contextlib.suppress(OSError):
                self.back.send(data[0])

    def forward_replies(self) -> None:
        while True:
            try:
                data = self.back.recv(2000)
            except ConnectionRefusedError:
                continue
            if not data:
                return
            if self.client:
                self.front.sendto(data, self.client)

    def __enter__(self) -> RecordingProxy:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", self.front.getsockname())
        self.back.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.front.close()
        self.back.close()


def test_sighup_revokes_a_removed_key(key: Path, tmp_path: Path) -> None:
    both = write(tmp_path / "both.keys", "us", "them")
    other = write(tmp_path / "other.keys", "them")
    with serving("--key", both) as (server, where), joined(where, "ada", "--key", key) as ada:
        with joined(where, "bob", "--key", other, "--timeout", "0.5") as bob:
            assert ada.line("err") == "* bob is online"
            write(both, "us")
            server.send(signal.SIGHUP)
            assert ada.line("err") == "* bob is offline"
            bob.send_line("hello?")
            code, _, error = bob.end()
            assert (code, "no answer within 0.5 s" in error) == (4, True)
        both.write_text("invalid")
        server.send(signal.SIGHUP)
        assert "the keys are unchanged" in server.line("err", "SIGHUP: the keys")
        ada.send_line("fine")
        assert ada.line() == "ada: fine"


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0"), ("join", "--name", "a")], ids=["serve", "join"]
)
def test_an_invalid_key_file_is_an_error_with_a_hint(
    command: tuple[str, ...], key: Path, tmp_path: Path
) -> None:
    key.chmod(0o644)
    done = finish("chat", *command, "--key", key)
    assert (done.returncode, f"chmod go= {key}" in done.stderr) == (3, True)
    done = finish("chat", *command, "--key", tmp_path / "missing")
    assert (done.returncode, "Make one: (umask 077; fastnet exec key NAME" in done.stderr) == (
        3,
        True,
    )


def test_the_first_line_names_the_keys_and_no_secret(key: Path) -> None:
    with running("chat", "serve", "--port", "0", "--json", "--key", key) as server:
        assert server.event()["keys"] == ["us"]
        _, out, err = server.end()
        assert bytes(range(32)).hex() not in out + err
    with serving("--key", key) as (server, _):
        assert server.end()[0] == 0
