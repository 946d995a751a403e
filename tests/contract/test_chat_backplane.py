"""The contract of backplanes (apps/chat/backplane/contract.py), for each row."""

from __future__ import annotations

import functools
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastnet.apps.chat.backplane import BACKPLANES, check, open_backplane, redis_streams, shown
from fastnet.apps.chat.backplane.contract import BACK, HERE, SAID, Backplane, Taken
from fastnet.apps.chat.backplane.memory import Memory
from fastnet.errors import ConfigError, NetworkError
from fastnet.limits import CHAT_STREAM_ENTRIES
from tests.support.cli_process import DEADLINE_S, ROOT, eventually
from tests.support.redis_server import RedisServer, needs_redis, redis_server

ROWS = [pytest.param(name, marks=needs_redis if name == "redis" else ()) for name in BACKPLANES]
Open = Callable[[], Backplane]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens one end after another of one backplane."""
    if request.param == "memory":
        open_one: Callable[[], Backplane] = functools.partial(Memory, "memory", [])
    else:
        open_one = functools.partial(open_backplane, request.getfixturevalue("server").url)
    opened: list[Backplane] = []

    def open_end() -> Backplane:
        opened.append(open_one())
        return opened[-1]

    yield open_end
    for end in opened:
        end.close()


def started(end: Backplane) -> Backplane:
    end.start()
    return end


def take(end: Backplane, count: int, most: int = 64) -> list[Taken]:
    """So many entries that are not our own echo, or fail."""
    taken: list[Taken] = []
    while len(taken) < count:
        found = end.take(most)
        if not found:
            assert end.fd >= 0, f"only {taken}"
            assert select.select([end.fd], [], [], DEADLINE_S)[0], f"only {taken}"
        taken += found
    return taken


@pytest.mark.parametrize("ends", ROWS, indirect=True)
def test_B1_what_is_published_arrives_everywhere_in_order(ends: Open) -> None:
    one, two, three = started(ends()), started(ends()), started(ends())
    expected = []
    for i in range(150):
        topic = SAID if i % 10 else HERE
        one.publish(topic, i + 1, f"entry {i} é")
        expected.append((topic, f"entry {i} é"))
        if topic == HERE:  # else the next one could take its place
            for end in (two, three):
                assert take(end, len(expected)) == expected
            expected = []
    for end in (two, three):
        assert take(end, len(expected), 7) == expected


@pytest.mark.parametrize("ends", ROWS, indirect=True)
def test_who_comes_later_gets_what_was_said_and_not_who_was_there(ends: Open) -> None:
    one, two = started(ends()), started(ends())
    for i in range(100):
        one.publish(SAID if i % 2 else HERE, i + 1, f"{i}")
    said = [entry for topic, entry in take_said(two, 50)]
    assert ends().start() == said == [f"{i}" for i in range(1, 100, 2)]


def take_said(end: Backplane, count: int) -> list[Taken]:
    taken: list[Taken] = []
    while len(taken) < count:
        taken += [each for each in take(end, 1) if each[0] == SAID]
    return taken


@pytest.mark.parametrize("ends", ROWS, indirect=True)
def test_B2_taking_nothing_takes_no_time_and_closing_twice_is_closing(ends: Open) -> None:
    end = started(ends())
    started_s = time.monotonic()
    assert end.take(10) == []
    assert time.monotonic() - started_s < 2
    end.close()
    end.close()


@needs_redis
def test_B2_a_redis_that_hangs_holds_nobody_up(server: RedisServer) -> None:
    end = started(open_backplane(server.url))
    server.pause()
    try:
        started_s = time.monotonic()
        for i in range(1000):
            end.publish(SAID, i + 1, f"{i}")
            end.take(10)
        assert time.monotonic() - started_s < 10
    finally:
        server.go_on()
        end.close()


@needs_redis
@pytest.mark.parametrize("how", ["killed", "hung", "forgetful"])
def test_B3_B5_after_an_outage_everything_arrives_on_both_sides(how: str, tmp_path: Path) -> None:
    with redis_server(tmp_path, keeps=how != "forgetful") as server:
        one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
        one.publish(SAID, 1, "before")
        assert take(two, 1) == [(SAID, "before")]
        server.pause() if how == "hung" else server.end()
        for i in range(200):
            one.publish(SAID, i + 2, f"{i}")
            one.publish(HERE, i + 300, f"here {i}")
        if how == "hung":
            server.go_on()
        else:
            server.start()
        taken: list[Taken] = []
        while (SAID, "199") not in taken:
            taken += take(two, 1)
        said = [entry for topic, entry in taken if topic == SAID and entry != "before"]
        assert list(dict.fromkeys(said)) == [f"{i}" for i in range(200)]
        assert how == "hung" or (BACK, "") in taken
        two.publish(SAID, 1, "and back")
        eventually(lambda: (SAID, "and back") in one.take(64), "the other direction")
        one.close()
        two.close()


@needs_redis
def test_B3_the_oldest_of_too_many_are_dropped_and_of_here_only_the_last_is_kept(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "CHAT_BACKLOG_MAX", 10)
    one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
    server.pause()
    dropped = sum(
        one.publish(SAID, i + 1, f"{i}") + one.publish(HERE, i + 500, f"here {i}")
        for i in range(100)
    )
    server.go_on()
    taken: list[Taken] = []
    while (HERE, "here 99") not in taken:
        taken += take(two, 1)
    assert [entry for topic, entry in taken if topic == SAID][-9:] == [
        f"{i}" for i in range(91, 100)
    ]
    assert dropped >= 91 - 9
    assert len([entry for topic, entry in taken if topic == HERE]) <= 2
    one.close()
    two.close()


@needs_redis
def test_B4_what_nobody_takes_stays_where_it_is(server: RedisServer) -> None:
    one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
    for i in range(1000):
        one.publish(SAID, i + 1, f"{i}")
    eventually(lambda: server.ask(b"XLEN fastnet:chat:said") == b":1000\r\n", "all in the stream")
    assert isinstance(two, redis_streams.Redis)
    assert len(two._arrived) <= 2 * redis_streams.BATCH
    assert [entry for _, entry in take(two, 1000)] == [f"{i}" for i in range(1000)]
    one.close()
    two.close()


@needs_redis
def test_the_streams_are_bounded(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(redis_streams.KEPT, SAID, 100)
    end = started(open_backplane(server.url))
    for i in range(2000):
        end.publish(SAID, i + 1, f"{i}")
    eventually(
        lambda: b"1999" in server.ask(b"XREVRANGE fastnet:chat:said + - COUNT 1"), "the last one"
    )
    length = int(server.ask(b"XLEN fastnet:chat:said")[1:])
    assert 100 <= length < 400  # Redis trims whole nodes
    assert CHAT_STREAM_ENTRIES > 100
    end.close()


@needs_redis
def test_an_outage_is_told_once_and_its_end(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    end = started(open_backplane(server.url))
    server.end()
    eventually(lambda: "goes on" in caplog.text, "the warning")
    server.start()
    assert take(end, 1) == [(BACK, "")]
    end.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert re.fullmatch(
        rf"chat: {re.escape(server.url)}: .*; who is on this server goes on", lines[0]
    )
    assert re.fullmatch(rf"chat: {re.escape(server.url)} is back after [\d.]+ s", lines[1])


def test_no_redis_is_an_error_at_the_start() -> None:
    with pytest.raises(
        NetworkError, match=r"connection refused\. Start it first, or check host and port"
    ):
        open_backplane("redis://127.0.0.1:1/0").start()


@needs_redis
def test_a_password_is_asked_for_and_never_shown(server: RedisServer) -> None:
    server.ask(b"CONFIG SET requirepass secret")
    with pytest.raises(NetworkError, match="Put a password into FASTNET_BACKPLANE"):
        open_backplane(server.url).start()
    wrong = server.url.replace("//", "//:wrongword@")
    with pytest.raises(NetworkError, match="Put a password") as caught:
        open_backplane(wrong).start()
    assert "wrongword" not in str(caught.value)
    started(open_backplane(server.url.replace("//", "//:secret@"))).close()


@needs_redis
def test_a_key_of_another_kind_is_told(server: RedisServer) -> None:
    server.ask(b"SET fastnet:chat:said x")
    with pytest.raises(NetworkError, match="WRONGTYPE"):
        open_backplane(server.url).start()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis://",
        "memory://x",
        "http://x",
        "redis://h:0",
        "redis://h:99999",
        "redis://h/x",
        "kafka://h",
    ],
)
def test_what_names_no_backplane_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Write memory or redis://HOST\[:PORT\]/\[DB\]"):
        check(url)


@pytest.mark.parametrize(
    "url", ["memory", "redis://h", "redis://h:6380/3", "redis://u:p@[::1]:6379/", "redis://:p@h"]
)
def test_what_names_one_is_taken_and_shown_without_its_password(url: str) -> None:
    check(url)
    assert "p@" not in shown(url)


def test_no_descriptor_is_left_by_a_start_that_failed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    end = open_backplane("redis://127.0.0.1:1/0")
    with pytest.raises(NetworkError):
        end.start()
    end.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_the_document_has_every_row() -> None:
    document = (ROOT / "docs" / "chat.md").read_text()
    for name, row in BACKPLANES.items():
        assert f"| `{name}` | {row.about} |" in document
