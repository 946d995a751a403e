"""Exec client protocol: authentic replies, retransmission, and that it ends."""

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
from tests.support.exec import CLIENT, SECRETS, ExecNetwork, shell


@pytest.fixture
def network(tmp_path: Path) -> Iterator[ExecNetwork]:
    made = ExecNetwork(
        tmp_path, big=shell("seq 60000", output_bytes_max=400_000), wait=shell("sleep 30")
    )
    yield made
    made.close()


BIG = "".join(f"{i}\n" for i in range(1, 60001)).encode()

FINAL = Reply(wire.STATUS, bytes(16), 1, wire.pack_status(Status(wire.EXITED, 0)))


def test_a_forged_reply_is_not_believed(network: ExecNetwork) -> None:
    client = network.request("big")
    client.next_datagram()
    mine = Reply(wire.STATUS, client.nonce, 1, FINAL.body)
    assert not client.receive_datagram(wire.pack_reply(mine, SECRETS["bob"]))
    assert not client.receive_datagram(wire.pack_reply(FINAL, SECRETS["alice"]))
    assert not client.receive_datagram(
        wire.pack_reply(Reply(wire.STATUS, client.nonce, 2, FINAL.body), SECRETS["alice"])
    )
    assert not client.is_over
    assert client.receive_datagram(wire.pack_reply(mine, SECRETS["alice"]))
    assert client.is_over


@pytest.mark.parametrize("at", range(0, 25 + 22 + 32, 3))
def test_a_reply_with_one_changed_bit_is_not_believed(network: ExecNetwork, at: int) -> None:
    client = network.request("big")
    client.next_datagram()
    datagram = bytearray(
        wire.pack_reply(Reply(wire.STATUS, client.nonce, 1, FINAL.body), SECRETS["alice"])
    )
    datagram[at] ^= 0x40
    assert not client.receive_datagram(bytes(datagram))
    assert client.status is None


def test_an_old_status_does_not_undo_the_end(network: ExecNetwork) -> None:
    client = network.request("wait")
    network.exchange(client)
    running = network.exchange(client)[1]
    for execution in network.protocol.executions():
        execution.kill()
    network.protocol.handle_timer()
    network.exchange(client)
    assert client.has_ended
    client.receive_datagram(running)
    assert client.has_ended


def test_a_repeated_challenge_does_not_make_the_client_repeat_itself(network: ExecNetwork) -> None:
    client = network.request("big")
    challenge = network.exchange(client)[1]
    assert client.is_due
    client.next_datagram()
    client.receive_datagram(challenge)
    assert not client.is_due


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.6))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_output_is_whole_whatever_is_lost_doubled_and_late(
    network: ExecNetwork, seed: int, loss: float
) -> None:
    chance = random.Random(seed)
    client, ran, late = network.request("big"), network.protocol.statistics.ran, []
    for _ in range(20_000):
        if client.is_over:
            break
        datagram = client.next_datagram(timed_out=chance.random() < 0.5)
        for _ in range(chance.choice((1, 1, 2))):
            if chance.random() >= loss:
                late += network.receive(datagram, CLIENT)
        network.end_commands()
        chance.shuffle(late)
        for _ in range(chance.randrange(len(late) + 1)):
            reply = late.pop()
            if chance.random() >= loss:
                client.receive_datagram(reply)
    assert client.result.output == BIG
    assert network.protocol.statistics.ran == ran + 1
    network.receive(client.done_datagram(), CLIENT)


def test_the_window_doubles_without_loss_and_halves_after_a_loss(
    network: ExecNetwork,
) -> None:
    client = network.request("big")
    sizes = []
    while not client.is_over:
        network.exchange(client)
        network.end_commands()
        sizes.append(len(client.requested_parts))
    assert max(sizes) == EXEC_PARTS_PER_FETCH
    again = network.request("big")
    while not again.parts:
        network.exchange(again)
        network.end_commands()
    before = again.window
    again.next_datagram(timed_out=True)
    assert again.window == before // 2


@pytest.mark.parametrize(
    "body",
    [
        wire.pack_part(0, b"short"),
        wire.pack_part(0, bytes(5000))[:-1],
        (10**6).to_bytes(4) + bytes(1152),
        b"\0",
    ],
)
def test_a_part_that_does_not_fit_the_result_is_not_taken(
    network: ExecNetwork, body: bytes
) -> None:
    client = network.request("big")
    for _ in range(3):
        network.exchange(client)
        network.end_commands()
    assert client.has_ended
    known = dict(client.parts)
    client.receive_datagram(
        wire.pack_reply(Reply(wire.PART, client.nonce, 1, body), SECRETS["alice"])
    )
    assert client.parts == known


def test_a_server_cannot_announce_more_than_any_server_keeps(network: ExecNetwork) -> None:
    client = network.request("big")
    client.next_datagram()
    body = wire.pack_status(Status(wire.EXITED, 0, 2**32 - 1, 2**32 - 1))
    assert not client.receive_datagram(
        wire.pack_reply(Reply(wire.STATUS, client.nonce, 1, body), SECRETS["alice"])
    )


def test_the_first_refusal_stays(network: ExecNetwork) -> None:
    client = network.complete(network.request("nothing"))
    body = wire.pack_refused(Refusal("busy", "later"))
    client.receive_datagram(
        wire.pack_reply(Reply(wire.REFUSED, client.nonce, 1, body), SECRETS["alice"])
    )
    assert client.refusal is not None
    assert client.refusal.code == "command"


@pytest.mark.parametrize(
    "words", [["a" * 1200], ["x"] * 256, ["a\0b"]], ids=["long", "many", "NUL"]
)
def test_arguments_that_fit_no_datagram_are_an_error_before_sending(
    network: ExecNetwork, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"too long|cannot be sent"):
        network.request(*words)
