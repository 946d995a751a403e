"""`fastnet chat serve` and `fastnet chat join` as processes, with textbook programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastnet.apps.chat import wire
from fastnet.endpoint import Endpoint
from tests.support.chat import joined, serving, textbook
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, fastnet, finish, running
from tests.support.clients import while_flooded
from tests.support.lossy_network import Lossy


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as (_, endpoint):
        yield endpoint


def test_chat1_and_textbook_members_receive_each_others_messages(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada") as ada, textbook(endpoint, b"online\0\0\0") as nc:
        where = "{}--{}".format(*nc.getsockname())
        assert nc.recv(600) == f"{where}#online".encode()
        assert ada.line("err") == f"* {where} is online"
        nc.send(b"hi\n")
        assert nc.recv(600) == f"{where}#hi".encode()
        assert ada.line() == f"{where}: hi"
        ada.send_line("hello")
        assert ada.line() == "ada: hello"
        assert re.fullmatch(rb"127\.0\.0\.1--\d+#hello", nc.recv(600))
        nc.send(b"offline")
        assert nc.recv(600) == wire.HINT.encode()
        assert ada.line("err") == f"* {where} is offline"


def test_a_message_from_outside_is_answered_with_the_hint(endpoint: Endpoint) -> None:
    with textbook(endpoint, b"hello") as nc:
        assert nc.recv(600) == wire.HINT.encode()


def test_a_pipe_sends_its_lines_and_leaves(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada") as ada:
        done = finish(
            "chat",
            "join",
            "--server",
            endpoint,
            "--name",
            "bot",
            stdin=None,
            input="one\n\ntwo\nlast",
        )
        assert (done.returncode, done.stdout) == (0, "bot: one\nbot: two\nbot: last\n")
        assert [ada.line() for _ in range(3)] == ["bot: one", "bot: two", "bot: last"]
        assert [ada.line("err") for _ in range(2)] == ["* bot is online", "* bot is offline"]


def test_an_empty_input_joins_and_leaves(endpoint: Endpoint) -> None:
    done = finish("chat", "join", "--server", endpoint, "--name", "bot")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "* you are bot, 1 online\n")


def test_lines_above_the_rate_limit_are_delayed_and_not_lost(endpoint: Endpoint) -> None:
    lines = [f"line {i}" for i in range(30)]
    started_s = time.monotonic()
    done = finish(
        "chat", "join", "--server", endpoint, "--name", "bot", stdin=None, input="\n".join(lines)
    )
    assert done.stdout.splitlines() == [f"bot: {line}" for line in lines]
    assert time.monotonic() - started_s > 1.5  # a burst of 20, then 10 at 5 per second


def test_commands_of_the_client_are_not_sent_as_messages(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada") as ada, textbook(endpoint, b"online") as nc:
        nc.recv(600)
        assert ada.line("err").endswith(" is online")
        ada.send_line("/who")
        assert ada.line("err") == "* 2 online: ada, {}--{}".format(*nc.getsockname())
        ada.send_line("/help")
        assert "/who and /quit" in ada.line("err")
        ada.send_line("//slash")
        assert ada.line() == "ada: /slash"
        ada.send_line("/quit")
        assert ada.end()[0] == 0


def test_a_name_in_use_and_an_invalid_name_are_refused(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada"):
        done = finish("chat", "join", "--server", endpoint, "--name", "ADA")
        assert done.returncode == 5
        assert "the name ada is in use. Choose another --name." in done.stderr
    done = finish("chat", "join", "--server", endpoint, "--name", "a b")
    assert (done.returncode, "letters and digits" in done.stderr) == (2, True)


def test_a_joining_member_receives_the_history_of_its_room(endpoint: Endpoint) -> None:
    lines = "one\ntwo\n"
    assert (
        finish(
            "chat",
            "join",
            "--server",
            endpoint,
            "--name",
            "a",
            "--room",
            "ops",
            stdin=None,
            input=lines,
        ).returncode
        == 0
    )
    with joined(endpoint, "b", "--room", "ops") as late, joined(endpoint, "c") as other:
        assert [late.line(), late.line()] == ["a (earlier): one", "a (earlier): two"]
        late.send_line("three")
        assert late.line() == "b: three"
        other.send_line("here")
        assert other.line() == "c: here"


def test_json_events_are_one_a_line(endpoint: Endpoint) -> None:
    done = finish(
        "chat",
        "join",
        "--server",
        endpoint,
        "--name",
        "a",
        "--json",
        stdin=None,
        input="hé\n/who\n",
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"event": "welcome", "sender": "a", "online": 1} in events
    assert {"event": "message", "sender": "a", "text": "hé"} in events
    assert {"event": "who", "online": 1, "names": ["a"]} in events


def test_a_closed_port_is_offline_at_the_first_message_to_it(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada") as ada:
        with textbook(endpoint, b"online") as nc:
            nc.recv(600)
            where = "{}--{}".format(*nc.getsockname())
            assert ada.line("err") == f"* {where} is online"
        ada.send_line("still there?")
        assert ada.line("err") == f"* {where} is offline"


def test_over_a_lossy_network_each_message_is_displayed_once(endpoint: Endpoint) -> None:
    with Lossy(endpoint, 11, loss=0.25) as network, joined(endpoint, "ada") as ada:
        lines = "".join(f"{i}\n" for i in range(15))
        done = finish(
            "chat", "join", "--server", network.endpoint, "--name", "bot", stdin=None, input=lines
        )
        assert done.returncode == 0, done.stderr
        assert [ada.line() for _ in range(15)] == [f"bot: {i}" for i in range(15)]
        assert len(set(done.stdout.splitlines())) == len(done.stdout.splitlines())
        assert network.lost > 0


def test_a_client_joins_a_restarted_server_again(endpoint: Endpoint) -> None:
    with serving() as (first, where), contextlib.ExitStack() as stack:
        ada = stack.enter_context(joined(where, "ada"))
        assert first.end()[0] == 0
        stack.enter_context(serving(port=where.port))
        ada.send_line("still here")
        assert ada.line() == "ada: still here"


def test_a_client_gives_up_when_the_server_does_not_answer(endpoint: Endpoint) -> None:
    with serving() as (server, where), joined(where, "ada", "--timeout", "3") as ada:
        server.end()
        ada.send_line("hello?")
        code, _, error = ada.end()
        assert (code, error) == (
            4,
            f"fastnet: {where}: no answer within 3 s; 1 message was not accepted. The host is "
            "down, a firewall drops the packets, or it needs a longer --timeout.\n",
        )


def test_a_refused_connection_is_an_immediate_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = finish("chat", "join", "--server", f"127.0.0.1:{port}", "--name", "a")
    assert (done.returncode, "connection refused" in done.stderr) == (4, True)


def test_plain_on_a_terminal_replaces_a_typed_line_by_the_message(endpoint: Endpoint) -> None:
    keyboard, fd = os.openpty()
    arguments = fastnet("chat", "join", "--server", endpoint, "--name", "ada", "--plain")
    process = subprocess.Popen(arguments, stdin=fd, stdout=fd, stderr=fd, env=ENVIRONMENT)
    os.close(fd)
    try:
        screen = b""

        def read_until(text: bytes) -> None:
            nonlocal screen
            while text not in screen:
                assert select.select([keyboard], [], [], DEADLINE_S)[0], screen
                screen += os.read(keyboard, 4096)

        read_until(b"* you are ada, 1 online\r\n")
        os.write(keyboard, b"hello\n")
        read_until(b"hello\r\n\x1b[1A\r\x1b[2Kada: hello\r\n")
        os.write(keyboard, b"\x04")
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def test_an_interrupted_client_leaves(endpoint: Endpoint) -> None:
    with joined(endpoint, "ada") as ada, joined(endpoint, "bob") as bob:
        assert ada.line("err") == "* bob is online"
        bob.process.send_signal(signal.SIGINT)
        assert bob.end()[0] == 130
        assert ada.line("err") == "* bob is offline"


def test_a_flood_of_invalid_and_forged_datagrams_has_no_effect(endpoint: Endpoint) -> None:
    with serving() as (server, where), textbook(where) as sock, joined(where, "ada") as ada:
        sock.setblocking(False)
        forged = wire.pack({"type": "message", "cookie": "0" * 24, "id": 1, "text": "forged"})

        def flood() -> None:
            for data in (
                b"hello",
                os.urandom(200),
                wire.PREFIX + b"{",
                forged,
                b"",
                bytes(5000),
                b"x" * 60000,
            ):
                with contextlib.suppress(OSError):
                    sock.send(data)

        with while_flooded(flood, 60):
            for i in range(5):
                ada.send_line(f"{i}")
                assert ada.line() == f"ada: {i}"
        memory = int(
            re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())[0]
        )
        assert memory < 100_000
        ada.send_line("/quit")
        ada.end()
        assert server.end()[1].splitlines()[-1].startswith(f"stopped chat on {where}: 5 messages, ")


def test_two_servers_do_not_answer_each_others_hints() -> None:
    with serving() as (one, first), serving() as (two, second):
        with textbook(first, b"hello") as nc:
            hint = nc.recv(600)
        with textbook(second, hint, b"x" * 10) as nc:
            assert nc.recv(600) == hint  # to the x; the hint itself was not answered
        assert "1 hints" in one.end()[1]
        assert "1 hints, 1 malformed" in two.end()[1]


def test_sigusr1_logs_the_statistics_and_sigterm_prints_them(endpoint: Endpoint) -> None:
    with serving() as (server, where):
        assert (
            finish(
                "chat", "join", "--server", where, "--name", "a", stdin=None, input="x\n"
            ).returncode
            == 0
        )
        server.send(signal.SIGUSR1)
        assert "1 messages, " in server.line("err", "chat on udp://")
        code, out, _ = server.end()
        assert (code, "1 messages, " in out) == (0, True)


def test_the_counters_are_exported_to_prometheus() -> None:
    with running("chat", "serve", "--port", "0", "--metrics", "0", "--json") as server:
        event = server.event()
        where = Endpoint.parse(event["endpoint"])
        with joined(where, "ada") as ada:
            ada.send_line("hello")
            assert ada.line() == "ada: hello"
            with urllib.request.urlopen(event["metrics"], timeout=10) as answer:
                page = answer.read().decode()
        labels = f'{{service="chat",endpoint="{where}"}}'
        assert f"fastnet_chat_messages_total{labels} 1\n" in page
        assert f"fastnet_chat_online{labels} 1\n" in page
        assert "# TYPE fastnet_chat_online gauge\n" in page
        assert "# HELP fastnet_chat_unauthenticated_total Datagrams without a valid MAC.\n" in page
        assert server.end()[0] == 0


def test_over_ipv6_an_address_keeps_its_colons() -> None:
    with serving("--host", "::1") as (_, where), textbook(where, b"online") as nc:
        assert nc.recv(600) == f"::1--{nc.getsockname()[1]}#online".encode()
        with joined(where, "ada") as ada:
            ada.send_line("hi")
            assert ada.line() == "ada: hi"


@pytest.mark.parametrize("arguments", [["chat"], ["chat", "serve"], ["chat", "join"]], ids=" ".join)
def test_each_command_has_help(arguments: list[str]) -> None:
    done = finish(*arguments, "--help")
    assert (done.returncode, done.stdout.startswith("Usage: fastnet chat")) == (0, True)
