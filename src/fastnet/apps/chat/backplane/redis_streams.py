"""Backplane over two streams of a Redis or Valkey server.

Facts. Redis has two ways to distribute entries. A channel (PUBLISH) drops what no subscriber
receives at that moment; a stream (XADD, Redis 5.0) keeps entries under rising ids, and XREAD from
an id both blocks for new entries and returns missed ones. An XADD whose reply is lost may have been
executed.
Decision: two streams and no channel. One thread reads both from the last ids it has seen, so an
outage is a long pause and nothing more. Another thread writes, and repeats what was not
acknowledged: entries are numbered, and receivers skip duplicates. Both reconnect with exponential
backoff, and log the outage once. The streams are trimmed, so their size is bounded.
Cost: two connections and two threads per server, and a wake-up of the poll by eventfd(2) for each
batch.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from fastnet.apps.chat.backplane import hide_password
from fastnet.apps.chat.backplane.contract import MESSAGE, PRESENCE, RECONNECTED, Entry
from fastnet.errors import NetworkError, printable, reason
from fastnet.limits import (
    CHAT_BACKLOG_MAX,
    CHAT_FLUSH_S,
    CHAT_PRESENCE_ENTRIES,
    CHAT_REDIS_BACKOFF_MAX_S,
    CHAT_REDIS_BACKOFF_S,
    CHAT_REDIS_TIMEOUT_S,
    CHAT_STREAM_ENTRIES,
)

log = logging.getLogger("fastnet")

STREAMS = {topic: f"fastnet:chat:{topic}" for topic in (MESSAGE, PRESENCE)}
"""Key of each topic's stream."""

KEPT_ENTRIES = {MESSAGE: CHAT_STREAM_ENTRIES, PRESENCE: CHAT_PRESENCE_ENTRIES}
TOPICS = {stream.encode(): topic for topic, stream in STREAMS.items()}
BATCH = 64
"""Most entries of one XREAD, and of one pipeline of XADDs."""

BLOCK_MS = 250
"""Longest wait in one XREAD; close() takes at most this long for the reader."""


class Redis:
    """One server's connection; one condition guards what its threads share."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = hide_password(url)
        self.fd = -1
        self._last_ids = dict.fromkeys(STREAMS.values(), "0-0")
        self._queue: deque[tuple[str, int, str]] = deque()
        self._arrived: deque[Entry] = deque()
        self._condition = threading.Condition(threading.RLock())
        self._is_closing = False
        self._unreachable: set[str] = set()
        """Names of the threads that cannot reach Redis."""
        self._unreachable_since_s = 0.0
        self._threads: list[threading.Thread] = []

    def start(self) -> list[str]:
        client = self._client()
        try:
            kept = client.xrevrange(STREAMS[MESSAGE], count=CHAT_STREAM_ENTRIES)
            newest = client.xrevrange(STREAMS[PRESENCE], count=1)
        except (RedisError, OSError) as error:
            raise NetworkError(
                f"no backplane at {self.name}: {describe(error)}", hint_for(error)
            ) from None
        finally:
            client.close()
        for topic, found in ((MESSAGE, kept), (PRESENCE, newest)):
            if found:
                self._last_ids[STREAMS[topic]] = found[0][0].decode()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(
                target=self._run_with_reconnects,
                args=(each,),
                name=f"redis {each.__name__}",
                daemon=True,
            )
            for each in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()
        return [entry_text(fields) for _, fields in reversed(kept)]

    def publish(self, topic: str, number: int, entry: str) -> int:
        with self._condition:
            if topic == PRESENCE:
                self._queue = deque(each for each in self._queue if each[0] != PRESENCE)
            self._queue.append((topic, number, entry))
            dropped = max(0, len(self._queue) - CHAT_BACKLOG_MAX)
            for _ in range(dropped):
                self._queue.popleft()
            self._condition.notify_all()
        return dropped

    def take(self, most: int) -> list[Entry]:
        with self._condition:
            taken = [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            if not self._arrived:
                with suppress(BlockingIOError):
                    os.eventfd_read(self.fd)
                self._condition.notify_all()
        return taken

    def close(self) -> None:
        with self._condition:
            if self._is_closing:
                return
            self._is_closing = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # In the threads

    def _client(self) -> Any:
        """A client with one connection, opened by its first command; it never retries."""
        timeout_s = CHAT_REDIS_TIMEOUT_S
        return redis.Redis.from_url(
            self.url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def _run_with_reconnects(self, work: Callable[[Any], None]) -> None:
        """Call `work` with one client after another until closing, with exponential backoff."""
        backoff_s = CHAT_REDIS_BACKOFF_S
        while not self._should_stop():
            since_s, client = time.monotonic(), self._client()
            try:
                work(client)
            except (RedisError, OSError) as error:
                self._report_unreachable(work.__name__, error)
                if time.monotonic() - since_s > CHAT_REDIS_BACKOFF_MAX_S:
                    backoff_s = CHAT_REDIS_BACKOFF_S
                with self._condition:
                    self._condition.wait_for(lambda: self._is_closing, backoff_s)
                backoff_s = min(CHAT_REDIS_BACKOFF_MAX_S, 2 * backoff_s)
            finally:
                client.close()

    def _should_stop(self) -> bool:
        with self._condition:
            return self._is_closing

    def _read(self, client: Any) -> None:
        self._check_ids(client)
        self._report_reachable("_read")
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_closing or not self._arrived)
                if self._is_closing:
                    return
            found = client.xread(dict(self._last_ids), count=BATCH, block=BLOCK_MS)
            if not found:
                continue
            entries = []
            for stream, items in found:
                for entry_id, fields in items:
                    entries.append(
                        (
                            int(entry_id.partition(b"-")[0]),
                            entry_number(fields),
                            TOPICS[stream],
                            entry_text(fields),
                        )
                    )
                self._last_ids[stream.decode()] = items[-1][0].decode()
            # Entries of one millisecond are sorted by their publishers' numbers.
            self._arrive([(topic, entry) for _, _, topic, entry in sorted(entries)])

    def _arrive(self, taken: list[Entry]) -> None:
        with self._condition:
            self._arrived.extend(taken)
        os.eventfd_write(self.fd, 1)

    def _check_ids(self, client: Any) -> None:
        """A Redis that lost its streams may begin at lower ids: then read from the start."""
        for stream, known in self._last_ids.items():
            newest = client.xrevrange(stream, count=1)
            if not newest or parse_id(newest[0][0].decode()) < parse_id(known):
                self._last_ids[stream] = "0-0"

    def _write(self, client: Any) -> None:
        """Send queued entries; each leaves the queue when Redis has acknowledged it.

        While closing, until the queue is empty or CHAT_FLUSH_S has passed.
        """
        client.ping()
        deadline_s = float("inf")
        while True:
            with self._condition:
                if not self._queue:
                    self._report_reachable("_write")
                self._condition.wait_for(lambda: self._is_closing or self._queue)
                batch = list(self._queue)[:BATCH]
                if self._is_closing:
                    deadline_s = min(deadline_s, time.monotonic() + CHAT_FLUSH_S)
                if not batch or time.monotonic() > deadline_s:
                    return
            pipeline = client.pipeline(transaction=False)
            for topic, number, entry in batch:
                fields = {"number": number, "entry": entry}
                pipeline.xadd(STREAMS[topic], fields, maxlen=KEPT_ENTRIES[topic], approximate=True)
            pipeline.execute()
            with self._condition:
                written = {number for _, number, _ in batch}
                self._queue = deque(each for each in self._queue if each[1] not in written)

    def _report_unreachable(self, part: str, error: Exception) -> None:
        with self._condition:
            if not self._unreachable and not self._is_closing:
                self._unreachable_since_s = time.monotonic()
                log.warning(
                    "chat: %s: %s; this server continues with its own members",
                    self.name,
                    describe(error),
                )
            self._unreachable.add(part)

    def _report_reachable(self, part: str) -> None:
        with self._condition:
            was_away = bool(self._unreachable)
            self._unreachable.discard(part)
            if was_away and not self._unreachable:
                log.info(
                    "chat: %s is reachable again after %.1f s",
                    self.name,
                    time.monotonic() - self._unreachable_since_s,
                )
                self._arrive([(RECONNECTED, "")])


def hint_for(error: Exception) -> str:
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return "Put a password into FASTNET_BACKPLANE: redis://USER:PASSWORD@HOST"
    if isinstance(error, ResponseError):
        return "Use Redis 5.0 or later or Valkey, and a user with permission for streams"
    return "Start it first, or check host and port"


def entry_text(fields: dict[bytes, bytes]) -> str:
    return fields.get(b"entry", b"").decode("utf-8", "replace")


def entry_number(fields: dict[bytes, bytes]) -> int:
    number = fields.get(b"number", b"")
    return int(number) if number.isdigit() and len(number) < 20 else 0


def parse_id(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))


def describe(error: Exception) -> str:
    """The error of the system or of Redis, in one line."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno:
        return reason(cause)
    return printable(" ".join(str(error).split()).rstrip(".")) or type(error).__name__


Backplane = Redis
