"""The client's side: what it believes, what it asks for again, and that it ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnet.apps.exec import wire
from fastnet.apps.exec.wire import Refusal, Reply, Status
from fastnet.errors import ConfigError
from fastnet.limits import EXEC_PARTS_PER_FETCH
from tests.support.exec import CLIENT, SECRETS, Bench, shell


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, big=shell("seq 60000", output_bytes_max=400_000), wait=shell("sleep 30"))
    yield made
    made.close()


BIG = "".join(f"{i}\n" for i in range(1, 60001)).encode()

FINAL = Reply(wire.STATUS, bytes(16), 1, wire.status_body(Status(wire.EXITED, 0)))


def test_a_forged_reply_is_not_believed(bench: Bench) -> None:
    asking = bench.ask("big")
    asking.next()
    mine = Reply(wire.STATUS, asking.nonce, 1, FINAL.body)
    assert not asking.receive_datagram(wire.pack_reply(mine, SECRETS["bob"]))
    assert not asking.receive_datagram(wire.pack_reply(FINAL, SECRETS["alice"]))
    assert not asking.receive_datagram(
        wire.pack_reply(Reply(wire.STATUS, asking.nonce, 2, FINAL.body), SECRETS["alice"])
    )
    assert not asking.is_over
    assert asking.receive_datagram(wire.pack_reply(mine, SECRETS["alice"]))
    assert asking.is_over


@pytest.mark.parametrize("at", range(0, 25 + 22 + 32, 3))
def test_a_reply_with_one_changed_bit_is_not_believed(bench: Bench, at: int) -> None:
    asking = bench.ask("big")
    asking.next()
    datagram = bytearray(
        wire.pack_reply(Reply(wire.STATUS, asking.nonce, 1, FINAL.body), SECRETS["alice"])
    )
    datagram[at] ^= 0x40
    assert not asking.receive_datagram(bytes(datagram))
    assert asking.status is None


def test_an_old_status_does_not_undo_the_end(bench: Bench) -> None:
    asking = bench.ask("wait")
    bench.exchange(asking)
    running = bench.exchange(asking)[1]
    for execution in bench.desk.executions():
        execution.kill()
    bench.desk.handle_timer()
    bench.exchange(asking)
    assert asking.has_ended
    asking.receive_datagram(running)
    assert asking.has_ended


def test_a_repeated_challenge_does_not_make_the_client_repeat_itself(bench: Bench) -> None:
    asking = bench.ask("big")
    challenge = bench.exchange(asking)[1]
    assert asking.is_due
    asking.next()
    asking.receive_datagram(challenge)
    assert not asking.is_due


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.6))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_output_is_whole_whatever_is_lost_doubled_and_late(
    bench: Bench, seed: int, loss: float
) -> None:
    chance = random.Random(seed)
    asking, ran, late = bench.ask("big"), bench.desk.statistics.ran, []
    for _ in range(20_000):
        if asking.is_over:
            break
        datagram = asking.next(is_repetition=chance.random() < 0.5)
        for _ in range(chance.choice((1, 1, 2))):
            if chance.random() >= loss:
                late += bench.desk.receive_datagram(datagram, CLIENT)
        bench.settle()
        chance.shuffle(late)
        for _ in range(chance.randrange(len(late) + 1)):
            reply = late.pop()
            if chance.random() >= loss:
                asking.receive_datagram(reply)
    assert asking.result.output == BIG
    assert bench.desk.statistics.ran == ran + 1
    bench.desk.receive_datagram(asking.thanks(), CLIENT)


def test_the_window_grows_while_nothing_is_lost_and_shrinks_when_something_is(bench: Bench) -> None:
    asking = bench.ask("big")
    sizes = []
    while not asking.is_over:
        bench.exchange(asking)
        bench.settle()
        sizes.append(len(asking.wanted))
    assert max(sizes) == EXEC_PARTS_PER_FETCH
    again = bench.ask("big")
    while not again.parts:
        bench.exchange(again)
        bench.settle()
    before = again.window
    again.next(is_repetition=True)
    assert again.window == before // 2


@pytest.mark.parametrize(
    "body",
    [
        wire.part_body(0, b"short"),
        wire.part_body(0, bytes(5000))[:-1],
        (10**6).to_bytes(4) + bytes(1152),
        b"\0",
    ],
)
def test_a_part_that_does_not_fit_the_result_is_not_taken(bench: Bench, body: bytes) -> None:
    asking = bench.ask("big")
    for _ in range(3):
        bench.exchange(asking)
        bench.settle()
    assert asking.has_ended
    known = dict(asking.parts)
    asking.receive_datagram(
        wire.pack_reply(Reply(wire.PART, asking.nonce, 1, body), SECRETS["alice"])
    )
    assert asking.parts == known


def test_a_server_cannot_announce_more_than_any_server_keeps(bench: Bench) -> None:
    asking = bench.ask("big")
    asking.next()
    body = wire.status_body(Status(wire.EXITED, 0, 2**32 - 1, 2**32 - 1))
    assert not asking.receive_datagram(
        wire.pack_reply(Reply(wire.STATUS, asking.nonce, 1, body), SECRETS["alice"])
    )


def test_the_first_refusal_stays(bench: Bench) -> None:
    asking = bench.complete(bench.ask("nothing"))
    body = wire.refused_body(Refusal("busy", "later"))
    asking.receive_datagram(
        wire.pack_reply(Reply(wire.REFUSED, asking.nonce, 1, body), SECRETS["alice"])
    )
    assert asking.refusal is not None
    assert asking.refusal.code == "command"


@pytest.mark.parametrize(
    "words", [["a" * 1200], ["x"] * 256, ["a\0b"]], ids=["long", "many", "NUL"]
)
def test_arguments_that_no_datagram_carries_are_an_error_before_anything_is_sent(
    bench: Bench, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"too long|cannot be sent"):
        bench.ask(*words)
