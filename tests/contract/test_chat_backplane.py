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

from fastnet.apps.chat.backplane import (
    BACKPLANES,
    check_url,
    hide_password,
    open_backplane,
    redis_streams,
)
from fastnet.apps.chat.backplane.contract import MESSAGE, PRESENCE, RECONNECTED, Backplane, Entry
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
def connect(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens connections to one backplane."""
    if request.param == "memory":
        open_one: Callable[[], Backplane] = functools.partial(Memory, "memory", [])
    else:
        open_one = functools.partial(open_backplane, request.getfixturevalue("server").url)
    opened: list[Backplane] = []

    def open_connection() -> Backplane:
        opened.append(open_one())
        return opened[-1]

    yield open_connection
    for connection in opened:
        connection.close()


def started(connection: Backplane) -> Backplane:
    connection.start()
    return connection


def take(connection: Backplane, count: int, most: int = 64) -> list[Entry]:
    """`count` entries, not counting the publisher's own, or fail."""
    taken: list[Entry] = []
    while len(taken) < count:
        found = connection.take(most)
        if not found:
            assert connection.fd >= 0, f"only {taken}"
            assert select.select([connection.fd], [], [], DEADLINE_S)[0], f"only {taken}"
        taken += found
    return taken


@pytest.mark.parametrize("connect", ROWS, indirect=True)
def test_B1_what_is_published_arrives_everywhere_in_order(connect: Open) -> None:
    one, two, three = started(connect()), started(connect()), started(connect())
    expected = []
    for i in range(150):
        topic = MESSAGE if i % 10 else PRESENCE
        one.publish(topic, i + 1, f"entry {i} é")
        expected.append((topic, f"entry {i} é"))
        if topic == PRESENCE:  # else the next one could replace it
            for connection in (two, three):
                assert take(connection, len(expected)) == expected
            expected = []
    for connection in (two, three):
        assert take(connection, len(expected), 7) == expected


@pytest.mark.parametrize("connect", ROWS, indirect=True)
def test_a_later_server_receives_the_kept_messages_and_no_presence(connect: Open) -> None:
    one, two = started(connect()), started(connect())
    for i in range(100):
        one.publish(MESSAGE if i % 2 else PRESENCE, i + 1, f"{i}")
    messages = [entry for topic, entry in take_messages(two, 50)]
    assert connect().start() == messages == [f"{i}" for i in range(1, 100, 2)]


def take_messages(connection: Backplane, count: int) -> list[Entry]:
    taken: list[Entry] = []
    while len(taken) < count:
        taken += [each for each in take(connection, 1) if each[0] == MESSAGE]
    return taken


@pytest.mark.parametrize("connect", ROWS, indirect=True)
def test_B2_taking_without_entries_does_not_block(connect: Open) -> None:
    connection = started(connect())
    started_s = time.monotonic()
    assert connection.take(10) == []
    assert time.monotonic() - started_s < 2
    connection.close()
    connection.close()


@needs_redis
def test_B2_a_hanging_redis_does_not_block_publish_and_take(server: RedisServer) -> None:
    connection = started(open_backplane(server.url))
    server.pause()
    try:
        started_s = time.monotonic()
        for i in range(1000):
            connection.publish(MESSAGE, i + 1, f"{i}")
            connection.take(10)
        assert time.monotonic() - started_s < 10
    finally:
        server.resume()
        connection.close()


@needs_redis
@pytest.mark.parametrize("how", ["killed", "hung", "emptied"])
def test_B3_B5_after_an_outage_all_entries_arrive_on_both_sides(how: str, tmp_path: Path) -> None:
    with redis_server(tmp_path, keeps=how != "emptied") as server:
        one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
        one.publish(MESSAGE, 1, "before")
        assert take(two, 1) == [(MESSAGE, "before")]
        server.pause() if how == "hung" else server.end()
        for i in range(200):
            one.publish(MESSAGE, i + 2, f"{i}")
            one.publish(PRESENCE, i + 300, f"presence {i}")
        if how == "hung":
            server.resume()
        else:
            server.start()
        taken: list[Entry] = []
        while (MESSAGE, "199") not in taken:
            taken += take(two, 1)
        messages = [entry for topic, entry in taken if topic == MESSAGE and entry != "before"]
        assert list(dict.fromkeys(messages)) == [f"{i}" for i in range(200)]
        assert how == "hung" or (RECONNECTED, "") in taken
        two.publish(MESSAGE, 1, "and back")
        eventually(lambda: (MESSAGE, "and back") in one.take(64), "the other direction")
        one.close()
        two.close()


@needs_redis
def test_B3_the_queue_drops_the_oldest_and_keeps_the_last_presence(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "CHAT_BACKLOG_MAX", 10)
    one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
    server.pause()
    dropped = sum(
        one.publish(MESSAGE, i + 1, f"{i}") + one.publish(PRESENCE, i + 500, f"presence {i}")
        for i in range(100)
    )
    server.resume()
    taken: list[Entry] = []
    while (PRESENCE, "presence 99") not in taken:
        taken += take(two, 1)
    assert [entry for topic, entry in taken if topic == MESSAGE][-9:] == [
        f"{i}" for i in range(91, 100)
    ]
    assert dropped >= 91 - 9
    assert len([entry for topic, entry in taken if topic == PRESENCE]) <= 2
    one.close()
    two.close()


@needs_redis
def test_B4_entries_that_are_not_taken_are_not_read(server: RedisServer) -> None:
    one, two = started(open_backplane(server.url)), started(open_backplane(server.url))
    for i in range(1000):
        one.publish(MESSAGE, i + 1, f"{i}")
    eventually(
        lambda: server.ask(b"XLEN fastnet:chat:message") == b":1000\r\n", "all in the stream"
    )
    assert isinstance(two, redis_streams.Redis)
    assert len(two._arrived) <= 2 * redis_streams.BATCH
    assert [entry for _, entry in take(two, 1000)] == [f"{i}" for i in range(1000)]
    one.close()
    two.close()


@needs_redis
def test_the_streams_are_bounded(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(redis_streams.KEPT_ENTRIES, MESSAGE, 100)
    connection = started(open_backplane(server.url))
    for i in range(2000):
        connection.publish(MESSAGE, i + 1, f"{i}")
    eventually(
        lambda: b"1999" in server.ask(b"XREVRANGE fastnet:chat:message + - COUNT 1"), "the last one"
    )
    length = int(server.ask(b"XLEN fastnet:chat:message")[1:])
    assert 100 <= length < 400  # Redis trims whole nodes
    assert CHAT_STREAM_ENTRIES > 100
    connection.close()


@needs_redis
def test_an_outage_and_its_end_are_logged_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    connection = started(open_backplane(server.url))
    server.end()
    eventually(lambda: "continues" in caplog.text, "the warning")
    server.start()
    assert take(connection, 1) == [(RECONNECTED, "")]
    connection.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert re.fullmatch(
        rf"chat: {re.escape(server.url)}: .*; this server continues with its own members", lines[0]
    )
    assert re.fullmatch(
        rf"chat: {re.escape(server.url)} is reachable again after [\d.]+ s", lines[1]
    )


def test_an_unreachable_redis_is_an_error_at_the_start() -> None:
    with pytest.raises(
        NetworkError, match=r"connection refused\. Start it first, or check host and port"
    ):
        open_backplane("redis://127.0.0.1:1/0").start()


@needs_redis
def test_a_password_is_required_and_never_in_an_error(server: RedisServer) -> None:
    server.ask(b"CONFIG SET requirepass secret")
    with pytest.raises(NetworkError, match="Put a password into FASTNET_BACKPLANE"):
        open_backplane(server.url).start()
    wrong = server.url.replace("//", "//:wrongword@")
    with pytest.raises(NetworkError, match="Put a password") as caught:
        open_backplane(wrong).start()
    assert "wrongword" not in str(caught.value)
    started(open_backplane(server.url.replace("//", "//:secret@"))).close()


@needs_redis
def test_a_redis_key_of_another_type_is_an_error(server: RedisServer) -> None:
    server.ask(b"SET fastnet:chat:message x")
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
def test_an_invalid_backplane_url_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Write memory or redis://HOST\[:PORT\]/\[DB\]"):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["memory", "redis://h", "redis://h:6380/3", "redis://u:p@[::1]:6379/", "redis://:p@h"]
)
def test_a_valid_backplane_url_is_displayed_without_its_password(url: str) -> None:
    check_url(url)
    assert "p@" not in hide_password(url)


def test_a_failed_start_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    connection = open_backplane("redis://127.0.0.1:1/0")
    with pytest.raises(NetworkError):
        connection.start()
    connection.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_the_document_has_every_row() -> None:
    document = (ROOT / "docs" / "chat.md").read_text()
    for name, row in BACKPLANES.items():
        assert f"| `{name}` | {row.about} |" in document
