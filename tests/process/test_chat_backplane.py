"""`fastnet chat serve --backplane`: several servers and a Redis as processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from tests.support.chat import joined, serving, textbook
from tests.support.cli_process import ENVIRONMENT, ROOT, Running, daemon, finish
from tests.support.redis_server import RedisServer, needs_redis, redis_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@contextlib.contextmanager
def two_servers(
    redis: RedisServer, *options: object
) -> Iterator[tuple[tuple[Running, Endpoint], tuple[Running, Endpoint]]]:
    with (
        serving("--backplane", redis.url, *options) as one,
        serving("--backplane", redis.url, *options) as two,
    ):
        yield one, two


@needs_redis
def test_members_of_two_servers_share_messages_and_presence(
    redis: RedisServer,
) -> None:
    with (
        two_servers(redis) as ((one, a), (two, b)),
        joined(a, "ada") as ada,
        joined(b, "bob") as bob,
    ):
        assert ada.line("err") == "* bob is online"
        ada.send_line("from a")
        assert [ada.line(), bob.line()] == ["ada: from a"] * 2
        bob.send_line("from b")
        assert [ada.line(), bob.line()] == ["bob: from b"] * 2
        bob.send_line("/who")
        assert bob.line("err") == "* 2 online: bob, ada"
        with textbook(a, b"online", b"nc was here") as nc:
            where = "{}--{}".format(*nc.getsockname())
            assert bob.line("err") == f"* {where} is online"
            assert bob.line() == f"{where}: nc was here"
        bob.send_line("/quit")
        assert bob.end()[:2] == (0, "")
        assert ada.line("err").startswith(f"* {where}")
        assert "; 1 remote_messages" in one.end()[1]
        assert "; 2 remote_messages" in two.end()[1]


@needs_redis
def test_history_survives_a_restart_in_the_backplane(redis: RedisServer) -> None:
    with serving("--backplane", redis.url) as (server, where):
        assert (
            finish(
                "chat", "join", "--server", where, "--name", "a", stdin=None, input="one\ntwo\n"
            ).returncode
            == 0
        )
        server.end()
    with serving("--backplane", redis.url) as (_, where), joined(where, "b") as late:
        assert [late.line(), late.line()] == ["a (earlier): one", "a (earlier): two"]


@needs_redis
def test_a_name_is_unique_on_all_servers(redis: RedisServer) -> None:
    with two_servers(redis) as ((_, a), (_, b)), joined(a, "ada"), joined(b, "bob"):
        done = finish("chat", "join", "--server", b, "--name", "Ada")
        assert (done.returncode, "the name ada is in use" in done.stderr) == (5, True)


@needs_redis
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_after_an_outage_of_redis_each_message_arrives_once(redis: RedisServer, how: str) -> None:
    with two_servers(redis) as ((one, a), (_, b)), joined(a, "ada") as ada, joined(b, "bob") as bob:
        assert ada.line("err") == "* bob is online"
        redis.pause() if how == "hung" else redis.end()
        ada.send_line("lost?")
        assert ada.line() == "ada: lost?"
        bob.send_line("me too")
        assert bob.line() == "bob: me too"
        assert "; this server continues with its own members" in one.line(
            "err", f"chat: {redis.url}: "
        )
        redis.resume() if how == "hung" else redis.start()
        assert (ada.line(), bob.line()) == ("bob: me too", "ada: lost?")
        assert "is reachable again after" in one.line("err", "reachable again")
        ada.send_line("again")
        assert [ada.line(), bob.line()] == ["ada: again"] * 2
        for member in (ada, bob):
            member.send_line("/quit")
            assert member.end()[:2] == (0, "")


@needs_redis
def test_members_of_a_killed_server_go_offline(redis: RedisServer) -> None:
    with (
        two_servers(redis) as ((_, a), (two, b)),
        joined(a, "ada") as ada,
        joined(b, "bob", "--timeout", "1"),
    ):
        assert ada.line("err") == "* bob is online"
        two.end(signal.SIGKILL)
        assert ada.line("err") == "* bob is offline"


@needs_redis
def test_a_stopping_server_publishes_its_queue_and_its_members_leave(
    redis: RedisServer,
) -> None:
    with two_servers(redis) as ((_, a), (two, b)), joined(a, "ada") as ada, joined(b, "bob") as bob:
        assert ada.line("err") == "* bob is online"
        bob.send_line("final message")
        assert bob.line() == "bob: final message"
        assert two.end()[0] == 0
        assert ada.line() == "bob: final message"
        assert ada.line("err") == "* bob is offline"


@needs_redis
def test_a_hanging_redis_does_not_keep_a_server_from_stopping(redis: RedisServer) -> None:
    with serving("--backplane", redis.url) as (server, where), joined(where, "ada") as ada:
        redis.pause()
        try:
            ada.send_line("hello")
            assert ada.line() == "ada: hello"
            assert server.end()[0] == 0
        finally:
            redis.resume()


@needs_redis
def test_a_key_and_a_backplane_work_together(redis: RedisServer, tmp_path: Path) -> None:
    key = tmp_path / "keys"
    key.touch(0o600)
    key.write_text(f"us {bytes(range(32)).hex()}\n")
    with two_servers(redis, "--key", key) as ((_, a), (_, b)):
        with joined(a, "ada", "--key", key) as ada, joined(b, "bob", "--key", key) as bob:
            assert ada.line("err") == "* bob is online"
            ada.send_line("authenticated")
            assert [ada.line(), bob.line()] == ["ada: authenticated"] * 2


@needs_redis
def test_a_daemon_connects_to_its_backplane(redis: RedisServer, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    arguments = ("chat", "serve", "--port", "0", "--backplane", redis.url)
    with (
        daemon(pidfile, *arguments) as (_, first_line),
        serving("--backplane", redis.url) as (_, b),
    ):
        a = Endpoint.parse(first_line.split()[2])
        with joined(a, "ada") as ada, joined(b, "bob") as bob:
            assert ada.line("err") == "* bob is online"
            bob.send_line("hi")
            assert [ada.line(), bob.line()] == ["bob: hi"] * 2


def test_an_unreachable_redis_at_start_is_an_error_without_the_password() -> None:
    environment = ENVIRONMENT | {"FASTNET_BACKPLANE": "redis://me:hidden@127.0.0.1:1/0"}
    done = finish("chat", "serve", "--port", "0", env=environment)
    assert (done.returncode, done.stderr) == (
        4,
        "fastnet: no backplane at redis://127.0.0.1:1/0: connection refused. "
        "Start it first, or check host and port.\n",
    )


def test_without_the_package_redis_the_error_has_a_hint() -> None:
    code = "import sys; sys.modules['redis'] = None; from fastnet.cli import main; sys.exit(main())"
    arguments = [
        sys.executable,
        "-c",
        code,
        "chat",
        "serve",
        "--port",
        "0",
        "--backplane",
        "redis://127.0.0.1",
    ]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=30
    )
    assert (done.returncode, "pip install 'fastnet-io[redis]'" in done.stderr) == (7, True), (
        done.stderr
    )
