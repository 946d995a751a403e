"""Exec server protocol: authentication, at most once, amplification, capacity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastnet.apps.exec import admission, server_protocol, wire
from fastnet.apps.exec.wire import Refusal
from fastnet.limits import EXEC_MATCH_PENALTY_S, EXEC_RESULT_S
from tests.support.exec import CHALLENGED, CLIENT, OTHER, SECRETS, ExecNetwork, kinds, shell


@pytest.fixture
def network(tmp_path: Path) -> Iterator[ExecNetwork]:
    made = ExecNetwork(
        tmp_path,
        mark=shell(f"echo x >> {tmp_path}/marks; echo done"),
        big=shell("seq 20000; seq 1000 >&2", output_bytes_max=200_000),
        wait=shell("sleep 30", concurrent_max=2),
        trap={"argv": ["/bin/echo", "{1}"], "arguments": ["(a+)+b"]},
    )
    yield made
    made.close()


def marks(network: ExecNetwork) -> int:
    """How often `mark` has run."""
    path = network.folder / "marks"
    return len(path.read_text()) // 2 if path.exists() else 0


def test_a_command_runs_once_and_its_output_arrives(network: ExecNetwork) -> None:
    client = network.complete(network.request("mark"))
    assert (client.result.status.state, client.result.output, marks(network)) == (
        wire.EXITED,
        b"done\n",
        1,
    )


def test_output_of_many_parts_arrives_whole_and_the_streams_stay_apart(
    network: ExecNetwork,
) -> None:
    result = network.complete(network.request("big")).result
    assert result.output == "".join(f"{i}\n" for i in range(1, 20001)).encode()
    assert result.error == "".join(f"{i}\n" for i in range(1, 1001)).encode()


def test_without_a_cookie_nothing_runs_and_the_reply_is_shorter(
    network: ExecNetwork,
) -> None:
    datagram, *replies = network.exchange(network.request("mark"))
    assert kinds(replies) == CHALLENGED
    assert len(replies[0]) < len(datagram)
    assert (len(network.protocol.records), marks(network)) == (0, 0)


def test_a_cookie_of_one_address_is_none_of_another(network: ExecNetwork) -> None:
    client = network.request("mark")
    network.exchange(client)
    stolen = client.next_datagram()
    for peer in (OTHER, (CLIENT[0], 40001)):
        assert kinds(network.receive(stolen, peer)) == CHALLENGED
    assert network.receive(stolen, CLIENT)
    network.end_commands()
    assert marks(network) == 1


@pytest.mark.parametrize("phase", range(1, 12))
def test_a_replayed_exchange_causes_challenges_only(network: ExecNetwork, phase: int) -> None:
    client, recorded = network.request("big"), []
    for _ in range(phase):
        if not client.is_over:
            recorded.append(network.exchange(client)[0])
            network.end_commands()
    for datagram in recorded:
        for peer in (CLIENT, OTHER):
            replies = network.receive(datagram, peer)
            assert sum(map(len, replies)) <= len(datagram)
            assert set(kinds(replies)) <= set(CHALLENGED)
    assert network.protocol.statistics.ran <= 1


def test_a_nonce_asked_again_gets_the_same_answer_and_does_not_run_again(
    network: ExecNetwork,
) -> None:
    nonce = os.urandom(16)
    first = network.complete(network.request("mark", nonce=nonce))
    again = network.request("mark", nonce=nonce)
    again.sequence = first.sequence
    network.complete(again)
    assert again.result == first.result
    assert marks(network) == 1


def test_a_nonce_with_other_arguments_is_refused(network: ExecNetwork) -> None:
    nonce = os.urandom(16)
    first = network.complete(network.request("mark", nonce=nonce))
    again = network.request("big", nonce=nonce)
    again.sequence = first.sequence
    network.complete(again)
    assert again.refusal is not None
    assert again.refusal.code == "reused"


def test_after_a_restart_a_copy_is_challenged_and_a_repetition_lost(
    network: ExecNetwork,
) -> None:
    client = network.request("mark")
    network.exchange(client)
    recorded = network.exchange(client)[0]
    network.end_commands()
    network.restart()
    assert kinds(network.receive(recorded, CLIENT)) == CHALLENGED
    network.complete(client)
    assert client.refusal is not None
    assert (client.refusal.code, marks(network)) == ("lost", 1)


def test_a_client_without_a_reply_does_not_run_it_twice_over_a_restart(
    network: ExecNetwork,
) -> None:
    client = network.request("mark")
    network.exchange(client)
    network.receive(client.next_datagram(), CLIENT)
    network.end_commands()
    network.restart()
    network.complete(client)
    assert client.refusal is not None
    assert (client.refusal.code, marks(network)) == ("lost", 1)


@pytest.mark.parametrize("off_s", [61, -61, 86400])
def test_a_wrong_clock_is_told_the_right_time(network: ExecNetwork, off_s: int) -> None:
    client = network.complete(network.request("mark", timestamp_s=network.clocks.day_s + off_s))
    assert client.refusal is not None
    assert (client.refusal.code, client.refusal.number) == (
        "clock",
        int(network.clocks.day_s * 1e6),
    )
    assert marks(network) == 0


def test_a_running_command_needs_no_right_clock(network: ExecNetwork) -> None:
    client = network.request("wait")
    network.exchange(client)
    network.exchange(client)
    network.clocks.advance(1000)
    network.clocks.day_s -= 5000
    assert kinds(network.exchange(client)[1:]) == CHALLENGED
    assert kinds(network.exchange(client)[1:]) == [wire.STATUS]


@pytest.mark.parametrize(
    "secret", [bytes(32), SECRETS["bob"]], ids=["none of ours", "of another id"]
)
def test_an_unauthenticated_request_gets_one_short_unknown_key(
    network: ExecNetwork, secret: bytes
) -> None:
    client = network.request("mark")
    client.secret = secret
    datagram, *replies = network.exchange(client)
    assert kinds(replies) == [wire.UNKNOWN_KEY]
    assert len(replies[0]) < len(datagram)
    assert client.saw_unknown_key
    assert not client.is_over


def test_a_flood_of_unauthenticated_requests_is_hardly_answered(network: ExecNetwork) -> None:
    client = network.request("mark")
    client.secret = bytes(32)
    answered = sum(len(network.receive(client.next_datagram(), CLIENT)) for _ in range(1000))
    assert answered == server_protocol.EXEC_UNKNOWN_KEY_REPLIES
    assert network.protocol.statistics.unauthenticated == 1000
    assert not network.protocol.records


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0" * 500, b"uptime\0\0", b"FNX1" + bytes(200), b"\xff" * 1233, b"FNX1\x81" * 30],
)
def test_junk_is_never_answered(network: ExecNetwork, junk: bytes) -> None:
    assert network.receive(junk, CLIENT) == []
    assert network.protocol.statistics.junk == 1


def test_replies_of_a_server_are_junk_to_a_server(network: ExecNetwork) -> None:
    client = network.request("big")
    for _ in range(6):
        for reply in network.exchange(client)[1:]:
            assert network.receive(reply, CLIENT) == []
        network.end_commands()


def test_a_command_at_its_bound_is_busy_and_stays_refused(network: ExecNetwork) -> None:
    waiting = [network.request("wait") for _ in range(3)]
    for client in waiting:
        network.exchange(client)
        network.exchange(client)
    assert waiting[2].refusal == Refusal("busy", "wait is running 2 of 2 allowed times")
    for execution in network.protocol.executions():
        execution.kill()
    network.protocol.handle_timer()
    assert kinds(network.exchange(waiting[2])[1:]) == [wire.REFUSED]
    assert network.complete(network.request("mark")).result


def test_a_full_disk_runs_nothing(network: ExecNetwork) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    network.nonces.add = full  # type: ignore[method-assign]
    client = network.complete(network.request("mark"))
    assert client.refusal is not None
    assert (client.refusal.code, marks(network)) == ("broken", 0)


def test_without_room_for_a_record_there_is_no_answer_and_later_there_is(
    network: ExecNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_protocol, "EXEC_RECORDS_MAX", 1)
    network.complete(network.request("mark"))
    client = network.request("mark")
    network.exchange(client)
    assert network.exchange(client)[1:] == []
    assert network.protocol.statistics.ignored == 1
    network.clocks.advance(EXEC_RESULT_S + 1)
    network.protocol.handle_timer()
    assert network.complete(network.request("mark")).result


def test_output_of_all_results_is_bounded(
    network: ExecNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "EXEC_KEPT_BYTES_MAX", 250_000)
    first = network.request("big")
    for _ in range(4):
        network.exchange(first)
        network.end_commands()
    second = network.complete(network.request("big"))
    assert second.refusal is not None
    assert second.refusal.code == "busy"
    network.receive(network.complete(first).done_datagram(), CLIENT)
    assert network.complete(network.request("big")).refusal is None


def test_the_final_status_is_sent_unasked_once_to_a_validated_address(
    network: ExecNetwork,
) -> None:
    client = network.request("mark")
    network.exchange(client)
    network.exchange(client)
    ((datagram, peer),) = network.end_commands()
    assert peer == CLIENT
    assert client.receive_datagram(datagram)
    assert client.has_ended
    assert network.protocol.handle_timer() == []


def test_a_stopping_server_refuses_new_commands_and_finishes_others(network: ExecNetwork) -> None:
    first = network.request("mark")
    network.exchange(first)
    network.exchange(first)
    network.protocol.stop()
    assert network.protocol.has_pending_work()
    refused = network.complete(network.request("mark")).refusal
    assert refused is not None
    assert refused.code == "stopping"
    network.complete(first)
    assert network.protocol.has_pending_work()
    network.receive(first.done_datagram(), CLIENT)
    assert not network.protocol.has_pending_work()


def test_a_revoked_key_is_unknown_immediately(network: ExecNetwork) -> None:
    client = network.request("wait")
    network.exchange(client)
    network.exchange(client)
    network.protocol.keys = {"bob": SECRETS["bob"]}
    assert kinds(network.exchange(client)[1:]) == [wire.UNKNOWN_KEY]
    for execution in network.protocol.executions():
        execution.kill()
    assert network.protocol.handle_timer() == []


def test_fetching_a_result_without_a_record_is_lost(network: ExecNetwork) -> None:
    client = network.request("mark")
    network.exchange(client)
    client.status = replace(wire.Status(wire.RUNNING))
    network.exchange(client)
    assert client.refusal is not None
    assert client.refusal.code == "lost"


def test_a_key_whose_argument_took_too_long_waits_and_others_do_not(network: ExecNetwork) -> None:
    def ask(key: str, *words: str) -> str:
        client = network.complete(network.request(*words, key=key))
        return client.refusal.code if client.refusal else "ran"

    assert ask("alice", "trap", "a" * 60) == "arguments"
    assert (ask("alice", "trap", "ab"), ask("alice", "mark")) == ("busy", "busy")
    assert (ask("bob", "trap", "ab"), ask("bob", "mark")) == ("ran", "ran")
    network.clocks.advance(EXEC_MATCH_PENALTY_S)
    assert (ask("alice", "trap", "ab"), ask("alice", "mark")) == ("ran", "ran")


def test_a_key_that_fills_the_records_leaves_room_for_others(
    network: ExecNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_protocol, "EXEC_RECORDS_MAX", 8)

    def ask(key: str) -> bool:
        client = network.request("nothing", key=key)
        for _ in range(2):
            network.exchange(client)
        return client.refusal is not None

    assert [ask("alice") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [ask("bob") for _ in range(4)] == [True] * 2 + [False] * 2
    assert network.protocol.statistics.ignored == 4
