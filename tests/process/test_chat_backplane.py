"""`fastnet chat serve --backplane redis://...`: several servers and a Redis as real processes."""

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
def test_members_of_two_servers_see_each_others_messages_once_and_who_is_online(
    redis: RedisServer,
) -> None:
    with (
        two_servers(redis) as ((one, a), (two, b)),
        joined(a, "ada") as ada,
        joined(b, "bob") as bob,
    ):
        assert ada.line("err") == "* bob is online"
        ada.say("from a")
        assert [ada.line(), bob.line()] == ["ada: from a"] * 2
        bob.say("from b")
        assert [ada.line(), bob.line()] == ["bob: from b"] * 2
        bob.say("/who")
        assert bob.line("err") == "* 2 online: bob, ada"
        with textbook(a, b"online", b"nc was here") as nc:
            where = "{}--{}".format(*nc.getsockname())
            assert bob.line("err") == f"* {where} is online"
            assert bob.line() == f"{where}: nc was here"
        bob.say("/quit")
        assert bob.end()[:2] == (0, "")
        assert ada.line("err").startswith(f"* {where}")
        assert "; 1 elsewhere" in one.end()[1]
        assert "; 2 elsewhere" in two.end()[1]


@needs_redis
def test_who_comes_to_another_server_is_told_what_was_said(redis: RedisServer) -> None:
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
def test_a_name_is_one_members_on_all_servers(redis: RedisServer) -> None:
    with two_servers(redis) as ((_, a), (_, b)), joined(a, "ada"), joined(b, "bob"):
        done = finish("chat", "join", "--server", b, "--name", "Ada")
        assert (done.returncode, "somebody is ada already" in done.stderr) == (5, True)


@needs_redis
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_redis_each_server_goes_on_and_with_it_again_nothing_is_missed_or_doubled(
    redis: RedisServer, how: str
) -> None:
    with two_servers(redis) as ((one, a), (_, b)), joined(a, "ada") as ada, joined(b, "bob") as bob:
        assert ada.line("err") == "* bob is online"
        redis.pause() if how == "hung" else redis.end()
        ada.say("lost?")
        assert ada.line() == "ada: lost?"
        bob.say("me too")
        assert bob.line() == "bob: me too"
        assert "; who is on this server goes on" in one.line("err", f"chat: {redis.url}: ")
        redis.go_on() if how == "hung" else redis.start()
        assert (ada.line(), bob.line()) == ("bob: me too", "ada: lost?")
        assert "is back after" in one.line("err", "back")
        ada.say("again")
        assert [ada.line(), bob.line()] == ["ada: again"] * 2
        for member in (ada, bob):
            member.say("/quit")
            assert member.end()[:2] == (0, "")


@needs_redis
def test_a_server_that_is_killed_takes_its_members_offline(redis: RedisServer) -> None:
    with (
        two_servers(redis) as ((_, a), (two, b)),
        joined(a, "ada") as ada,
        joined(b, "bob", "--timeout", "1"),
    ):
        assert ada.line("err") == "* bob is online"
        two.end(signal.SIGKILL)
        assert ada.line("err") == "* bob is offline"


@needs_redis
def test_a_server_that_stops_says_what_it_has_to_and_its_members_are_offline_at_once(
    redis: RedisServer,
) -> None:
    with two_servers(redis) as ((_, a), (two, b)), joined(a, "ada") as ada, joined(b, "bob") as bob:
        assert ada.line("err") == "* bob is online"
        bob.say("last words")
        assert bob.line() == "bob: last words"
        assert two.end()[0] == 0
        assert ada.line() == "bob: last words"
        assert ada.line("err") == "* bob is offline"


@needs_redis
def test_a_redis_that_hangs_does_not_keep_a_server_from_stopping(redis: RedisServer) -> None:
    with serving("--backplane", redis.url) as (server, where), joined(where, "ada") as ada:
        redis.pause()
        try:
            ada.say("hello")
            assert ada.line() == "ada: hello"
            assert server.end()[0] == 0
        finally:
            redis.go_on()


@needs_redis
def test_with_a_key_and_a_backplane_members_hear_each_other(
    redis: RedisServer, tmp_path: Path
) -> None:
    key = tmp_path / "keys"
    key.touch(0o600)
    key.write_text(f"us {bytes(range(32)).hex()}\n")
    with two_servers(redis, "--key", key) as ((_, a), (_, b)):
        with joined(a, "ada", "--key", key) as ada, joined(b, "bob", "--key", key) as bob:
            assert ada.line("err") == "* bob is online"
            ada.say("sealed")
            assert [ada.line(), bob.line()] == ["ada: sealed"] * 2


@needs_redis
def test_a_daemon_reaches_its_backplane(redis: RedisServer, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    words = ("chat", "serve", "--port", "0", "--backplane", redis.url)
    with daemon(pidfile, *words) as (_, said), serving("--backplane", redis.url) as (_, b):
        a = Endpoint.parse(said.split()[2])
        with joined(a, "ada") as ada, joined(b, "bob") as bob:
            assert ada.line("err") == "* bob is online"
            bob.say("hi")
            assert [ada.line(), bob.line()] == ["bob: hi"] * 2


def test_no_redis_at_the_start_is_a_clear_error_without_the_password() -> None:
    environment = ENVIRONMENT | {"FASTNET_BACKPLANE": "redis://me:hidden@127.0.0.1:1/0"}
    done = finish("chat", "serve", "--port", "0", env=environment)
    assert (done.returncode, done.stderr) == (
        4,
        "fastnet: no backplane at redis://127.0.0.1:1/0: connection refused. Start it first, or check host and port.\n",
    )


def test_without_the_package_redis_the_hint_is_told() -> None:
    code = "import sys; sys.modules['redis'] = None; from fastnet.cli import main; sys.exit(main())"
    words = [
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
        words, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=30
    )
    assert (done.returncode, "pip install 'fastnet-io[redis]'" in done.stderr) == (7, True), (
        done.stderr
    )
