"""Chat servers joined by streams of a Redis or Valkey server.

Facts. Redis has two ways to pass things on. A channel (PUBLISH) forgets what nobody was listening
to at that moment; a stream (XADD, Redis 5.0) keeps entries under rising ids, and XREAD from an id
both waits for new ones and gives what was missed. An XADD whose answer is lost may have happened.
Decision: two streams and no channel. One thread reads both from the last ids it saw, so an outage
is a long pause and nothing more; another writes, and repeats what was not answered: entries are
numbered, and readers skip what they had. Both keep trying, at longer and longer intervals, and say
so once. The streams are trimmed, so nothing grows.
Cost: two connections and two threads a server, and a wake-up of the poll by eventfd(2) for each
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

from fastnet.apps.chat.backplane import shown
from fastnet.apps.chat.backplane.contract import BACK, HERE, SAID, Taken
from fastnet.errors import NetworkError, printable, reason
from fastnet.limits import (
    CHAT_BACKLOG_MAX,
    CHAT_HERE_ENTRIES,
    CHAT_LAST_WORDS_S,
    CHAT_REDIS_PATIENCE_S,
    CHAT_REDIS_REST_MAX_S,
    CHAT_REDIS_REST_S,
    CHAT_STREAM_ENTRIES,
)

log = logging.getLogger("fastnet")

STREAMS = {topic: f"fastnet:chat:{topic}" for topic in (SAID, HERE)}
KEPT = {SAID: CHAT_STREAM_ENTRIES, HERE: CHAT_HERE_ENTRIES}
TOPICS = {stream.encode(): topic for topic, stream in STREAMS.items()}
BATCH = 64
BLOCK_MS = 250


class Redis:
    """One server's end: what the threads share is guarded by one condition."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = shown(url)
        self.fd = -1
        self._ids = dict.fromkeys(STREAMS.values(), "0-0")
        self._waiting: deque[tuple[str, int, str]] = deque()
        self._arrived: deque[Taken] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._is_closing = False
        self._away: set[str] = set()
        """Which of the threads cannot reach Redis."""
        self._away_since_s = 0.0
        self._threads: list[threading.Thread] = []

    def start(self) -> list[str]:
        client = self._client()
        try:
            kept = client.xrevrange(STREAMS[SAID], count=CHAT_STREAM_ENTRIES)
            newest = client.xrevrange(STREAMS[HERE], count=1)
        except (RedisError, OSError) as error:
            raise NetworkError(
                f"no backplane at {self.name}: {words(error)}", hint(error)
            ) from None
        finally:
            client.close()
        for topic, found in ((SAID, kept), (HERE, newest)):
            if found:
                self._ids[STREAMS[topic]] = found[0][0].decode()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(
                target=self._keep_trying, args=(each,), name=f"redis {each.__name__}", daemon=True
            )
            for each in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()
        return [entry_of(fields) for _, fields in reversed(kept)]

    def publish(self, topic: str, number: int, entry: str) -> int:
        with self._changed:
            if topic == HERE:
                self._waiting = deque(each for each in self._waiting if each[0] != HERE)
            self._waiting.append((topic, number, entry))
            dropped = max(0, len(self._waiting) - CHAT_BACKLOG_MAX)
            for _ in range(dropped):
                self._waiting.popleft()
            self._changed.notify_all()
        return dropped

    def take(self, most: int) -> list[Taken]:
        with self._changed:
            taken = [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            if not self._arrived:
                with suppress(BlockingIOError):
                    os.eventfd_read(self.fd)
                self._changed.notify_all()
        return taken

    def close(self) -> None:
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # In the threads

    def _client(self) -> Any:
        """A connection of its own, that is made at the first command and never tries twice by
        itself.
        """
        patience_s = CHAT_REDIS_PATIENCE_S
        return redis.Redis.from_url(
            self.url,
            protocol=2,
            socket_timeout=patience_s,
            socket_connect_timeout=patience_s,
            retry=Retry(NoBackoff(), 0),
        )

    def _keep_trying(self, work: Callable[[Any], None]) -> None:
        """Do a thread's work, until the end, on one connection after another."""
        rest_s = CHAT_REDIS_REST_S
        while not self._is_over():
            since_s, client = time.monotonic(), self._client()
            try:
                work(client)
            except (RedisError, OSError) as error:
                self._is_away(work.__name__, error)
                if time.monotonic() - since_s > CHAT_REDIS_REST_MAX_S:
                    rest_s = CHAT_REDIS_REST_S
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, rest_s)
                rest_s = min(CHAT_REDIS_REST_MAX_S, 2 * rest_s)
            finally:
                client.close()

    def _is_over(self) -> bool:
        with self._changed:
            return self._is_closing

    def _read(self, client: Any) -> None:
        self._check_ids(client)
        self._is_back("_read")
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or not self._arrived)
                if self._is_closing:
                    return
            found = client.xread(dict(self._ids), count=BATCH, block=BLOCK_MS)
            if not found:
                continue
            entries = []
            for stream, items in found:
                for identity, fields in items:
                    entries.append(
                        (
                            int(identity.partition(b"-")[0]),
                            number_of(fields),
                            TOPICS[stream],
                            entry_of(fields),
                        )
                    )
                self._ids[stream.decode()] = items[-1][0].decode()
            # Those of one millisecond stand in the order of who wrote them.
            self._arrive([(topic, entry) for _, _, topic, entry in sorted(entries)])

    def _arrive(self, taken: list[Taken]) -> None:
        with self._changed:
            self._arrived.extend(taken)
        os.eventfd_write(self.fd, 1)

    def _check_ids(self, client: Any) -> None:
        """A Redis that has lost its streams begins at ids that may be lower than those we know."""
        for stream, known in self._ids.items():
            newest = client.xrevrange(stream, count=1)
            if not newest or parts(newest[0][0].decode()) < parts(known):
                self._ids[stream] = "0-0"

    def _write(self, client: Any) -> None:
        """Entries leave the queue when they are answered for; while closing, until the queue is
        empty.
        """
        client.ping()
        give_up_s = float("inf")
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_back("_write")
                self._changed.wait_for(lambda: self._is_closing or self._waiting)
                batch = list(self._waiting)[:BATCH]
                if self._is_closing:
                    give_up_s = min(give_up_s, time.monotonic() + CHAT_LAST_WORDS_S)
                if not batch or time.monotonic() > give_up_s:
                    return
            pipeline = client.pipeline(transaction=False)
            for topic, number, entry in batch:
                fields = {"number": number, "entry": entry}
                pipeline.xadd(STREAMS[topic], fields, maxlen=KEPT[topic], approximate=True)
            pipeline.execute()
            with self._changed:
                written = {number for _, number, _ in batch}
                self._waiting = deque(each for each in self._waiting if each[1] not in written)

    def _is_away(self, part: str, error: Exception) -> None:
        with self._changed:
            if not self._away and not self._is_closing:
                self._away_since_s = time.monotonic()
                log.warning("chat: %s: %s; who is on this server goes on", self.name, words(error))
            self._away.add(part)

    def _is_back(self, part: str) -> None:
        with self._changed:
            was_away = bool(self._away)
            self._away.discard(part)
            if was_away and not self._away:
                log.info(
                    "chat: %s is back after %.1f s",
                    self.name,
                    time.monotonic() - self._away_since_s,
                )
                self._arrive([(BACK, "")])


def hint(error: Exception) -> str:
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return "Put a password into FASTNET_BACKPLANE: redis://USER:PASSWORD@HOST"
    if isinstance(error, ResponseError):
        return "It takes Redis 5.0 or Valkey, and a user that may use streams"
    return "Start it first, or check host and port"


def entry_of(fields: dict[bytes, bytes]) -> str:
    return fields.get(b"entry", b"").decode("utf-8", "replace")


def number_of(fields: dict[bytes, bytes]) -> int:
    number = fields.get(b"number", b"")
    return int(number) if number.isdigit() and len(number) < 20 else 0


def parts(identity: str) -> tuple[int, ...]:
    return tuple(map(int, identity.split("-")))


def words(error: Exception) -> str:
    """What the system or Redis says, in one line."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno:
        return reason(cause)
    return printable(" ".join(str(error).split()).rstrip(".")) or type(error).__name__


Backplane = Redis
