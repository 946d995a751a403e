"""The server's judgement: who is believed, what runs once and what not at all, and how much an
unproven address gets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastnet.apps.exec import server_protocol as desk_module
from fastnet.apps.exec import wire
from fastnet.apps.exec.wire import Refusal
from fastnet.limits import EXEC_MATCH_REST_S
from tests.support.exec import CHALLENGED, CLIENT, OTHER, SECRETS, Bench, kinds, shell


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(
        tmp_path,
        mark=shell(f"echo x >> {tmp_path}/marks; echo done"),
        big=shell("seq 20000; seq 1000 >&2", output_bytes_max=200_000),
        wait=shell("sleep 30", concurrent_max=2),
        trap={"argv": ["/bin/echo", "{1}"], "arguments": ["(a+)+b"]},
    )
    yield made
    made.close()


def marks(bench: Bench) -> int:
    """How often `mark` has run."""
    path = bench.folder / "marks"
    return len(path.read_text()) // 2 if path.exists() else 0


def test_a_command_runs_once_and_its_output_arrives(bench: Bench) -> None:
    asking = bench.complete(bench.ask("mark"))
    assert (asking.result.status.state, asking.result.output, marks(bench)) == (
        wire.EXITED,
        b"done\n",
        1,
    )


def test_output_of_many_parts_arrives_whole_and_the_streams_stay_apart(bench: Bench) -> None:
    result = bench.complete(bench.ask("big")).result
    assert result.output == "".join(f"{i}\n" for i in range(1, 20001)).encode()
    assert result.error == "".join(f"{i}\n" for i in range(1, 1001)).encode()


def test_without_a_cookie_nothing_runs_and_the_reply_is_shorter_than_the_request(
    bench: Bench,
) -> None:
    datagram, *replies = bench.exchange(bench.ask("mark"))
    assert kinds(replies) == CHALLENGED
    assert len(replies[0]) < len(datagram)
    assert (len(bench.desk.records), marks(bench)) == (0, 0)


def test_a_cookie_of_one_address_is_none_of_another(bench: Bench) -> None:
    asking = bench.ask("mark")
    bench.exchange(asking)
    stolen = asking.next()
    for peer in (OTHER, (CLIENT[0], 40001)):
        assert kinds(bench.desk.receive_datagram(stolen, peer)) == CHALLENGED
    assert bench.desk.receive_datagram(stolen, CLIENT)
    bench.settle()
    assert marks(bench) == 1


@pytest.mark.parametrize("phase", range(1, 12))
def test_a_recorded_conversation_replayed_brings_nothing(bench: Bench, phase: int) -> None:
    asking, recorded = bench.ask("big"), []
    for _ in range(phase):
        if not asking.is_over:
            recorded.append(bench.exchange(asking)[0])
            bench.settle()
    for datagram in recorded:
        for peer in (CLIENT, OTHER):
            replies = bench.desk.receive_datagram(datagram, peer)
            assert sum(map(len, replies)) <= len(datagram)
            assert set(kinds(replies)) <= set(CHALLENGED)
    assert bench.desk.statistics.ran <= 1


def test_a_nonce_asked_again_gets_the_same_answer_and_does_not_run_again(bench: Bench) -> None:
    nonce = os.urandom(16)
    first = bench.complete(bench.ask("mark", nonce=nonce))
    again = bench.ask("mark", nonce=nonce)
    again.sequence = first.sequence
    bench.complete(again)
    assert again.result == first.result
    assert marks(bench) == 1


def test_a_nonce_with_other_arguments_is_refused(bench: Bench) -> None:
    nonce = os.urandom(16)
    first = bench.complete(bench.ask("mark", nonce=nonce))
    again = bench.ask("big", nonce=nonce)
    again.sequence = first.sequence
    bench.complete(again)
    assert again.refusal is not None
    assert again.refusal.code == "reused"


def test_after_a_restart_a_recorded_request_is_challenged_and_a_repeated_one_is_lost(
    bench: Bench,
) -> None:
    asking = bench.ask("mark")
    bench.exchange(asking)
    recorded = bench.exchange(asking)[0]
    bench.settle()
    bench.restart()
    assert kinds(bench.desk.receive_datagram(recorded, CLIENT)) == CHALLENGED
    bench.complete(asking)
    assert asking.refusal is not None
    assert (asking.refusal.code, marks(bench)) == ("lost", 1)


def test_a_client_that_never_heard_back_does_not_run_it_twice_over_a_restart(bench: Bench) -> None:
    asking = bench.ask("mark")
    bench.exchange(asking)
    bench.desk.receive_datagram(asking.next(), CLIENT)
    bench.settle()
    bench.restart()
    bench.complete(asking)
    assert asking.refusal is not None
    assert (asking.refusal.code, marks(bench)) == ("lost", 1)


@pytest.mark.parametrize("off_s", [61, -61, 86400])
def test_a_wrong_clock_is_told_the_right_time(bench: Bench, off_s: int) -> None:
    asking = bench.complete(bench.ask("mark", asked_s=bench.clocks.day_s + off_s))
    assert asking.refusal is not None
    assert (asking.refusal.code, asking.refusal.number) == ("clock", int(bench.clocks.day_s * 1e6))
    assert marks(bench) == 0


def test_a_running_command_needs_no_right_clock(bench: Bench) -> None:
    asking = bench.ask("wait")
    bench.exchange(asking)
    bench.exchange(asking)
    bench.clocks.advance(1000)
    bench.clocks.day_s -= 5000
    assert kinds(bench.exchange(asking)[1:]) == CHALLENGED
    assert kinds(bench.exchange(asking)[1:]) == [wire.STATUS]


@pytest.mark.parametrize(
    "secret", [bytes(32), SECRETS["bob"]], ids=["none of ours", "of another id"]
)
def test_what_our_key_did_not_sign_gets_one_short_hint(bench: Bench, secret: bytes) -> None:
    asking = bench.ask("mark")
    asking.secret = secret
    datagram, *replies = bench.exchange(asking)
    assert kinds(replies) == [wire.STRANGER]
    assert len(replies[0]) < len(datagram)
    assert asking.saw_stranger
    assert not asking.is_over


def test_a_flood_of_strangers_is_hardly_answered(bench: Bench) -> None:
    asking = bench.ask("mark")
    asking.secret = bytes(32)
    answered = sum(len(bench.desk.receive_datagram(asking.next(), CLIENT)) for _ in range(1000))
    assert answered == desk_module.EXEC_STRANGERS_ANSWERED
    assert bench.desk.statistics.strangers == 1000
    assert not bench.desk.records


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0" * 500, b"uptime\0\0", b"FNX1" + bytes(200), b"\xff" * 1233, b"FNX1\x81" * 30],
)
def test_junk_is_never_answered(bench: Bench, junk: bytes) -> None:
    assert bench.desk.receive_datagram(junk, CLIENT) == []
    assert bench.desk.statistics.junk == 1


def test_replies_of_a_server_are_junk_to_a_server(bench: Bench) -> None:
    asking = bench.ask("big")
    for _ in range(6):
        for reply in bench.exchange(asking)[1:]:
            assert bench.desk.receive_datagram(reply, CLIENT) == []
        bench.settle()


def test_a_command_at_its_bound_is_busy_and_stays_refused(bench: Bench) -> None:
    waiting = [bench.ask("wait") for _ in range(3)]
    for asking in waiting:
        bench.exchange(asking)
        bench.exchange(asking)
    assert waiting[2].refusal == Refusal("busy", "wait is running 2 of 2 allowed times")
    for execution in bench.desk.executions():
        execution.kill()
    bench.desk.handle_timer()
    assert kinds(bench.exchange(waiting[2])[1:]) == [wire.REFUSED]
    assert bench.complete(bench.ask("mark")).result


def test_a_full_disk_runs_nothing(bench: Bench) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    bench.nonces.add = full  # type: ignore[method-assign]
    asking = bench.complete(bench.ask("mark"))
    assert asking.refusal is not None
    assert (asking.refusal.code, marks(bench)) == ("broken", 0)


def test_without_room_for_a_record_there_is_no_answer_and_later_there_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "EXEC_RECORDS_MAX", 1)
    bench.complete(bench.ask("mark"))
    asking = bench.ask("mark")
    bench.exchange(asking)
    assert bench.exchange(asking)[1:] == []
    assert bench.desk.statistics.ignored == 1
    bench.clocks.advance(desk_module.EXEC_RESULT_S + 1)
    bench.desk.handle_timer()
    assert bench.complete(bench.ask("mark")).result


def test_output_of_all_results_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "EXEC_KEPT_BYTES_MAX", 250_000)
    first = bench.ask("big")
    for _ in range(4):
        bench.exchange(first)
        bench.settle()
    second = bench.complete(bench.ask("big"))
    assert second.refusal is not None
    assert second.refusal.code == "busy"
    bench.desk.receive_datagram(bench.complete(first).thanks(), CLIENT)
    assert bench.complete(bench.ask("big")).refusal is None


def test_the_end_of_a_command_is_told_unasked_once_to_an_address_that_proved_itself(
    bench: Bench,
) -> None:
    asking = bench.ask("mark")
    bench.exchange(asking)
    bench.exchange(asking)
    ((datagram, peer),) = bench.settle()
    assert peer == CLIENT
    assert asking.receive_datagram(datagram)
    assert asking.has_ended
    assert bench.desk.handle_timer() == []


def test_a_stopping_server_takes_no_command_and_finishes_those_it_has(bench: Bench) -> None:
    first = bench.ask("mark")
    bench.exchange(first)
    bench.exchange(first)
    bench.desk.is_stopping = True
    assert bench.desk.has_pending_work()
    refused = bench.complete(bench.ask("mark")).refusal
    assert refused is not None
    assert refused.code == "stopping"
    bench.complete(first)
    assert bench.desk.has_pending_work()
    bench.desk.receive_datagram(first.thanks(), CLIENT)
    assert not bench.desk.has_pending_work()


def test_a_key_taken_away_is_a_stranger_at_once(bench: Bench) -> None:
    asking = bench.ask("wait")
    bench.exchange(asking)
    bench.exchange(asking)
    bench.desk.keys = {"bob": SECRETS["bob"]}
    assert kinds(bench.exchange(asking)[1:]) == [wire.STRANGER]
    for execution in bench.desk.executions():
        execution.kill()
    assert bench.desk.handle_timer() == []


def test_fetching_what_nobody_ran_is_lost(bench: Bench) -> None:
    asking = bench.ask("mark")
    bench.exchange(asking)
    asking.status = replace(wire.Status(wire.RUNNING))
    bench.exchange(asking)
    assert asking.refusal is not None
    assert asking.refusal.code == "lost"


def test_a_key_whose_argument_took_too_long_waits_and_others_do_not(bench: Bench) -> None:
    def ask(key: str, *words: str) -> str:
        asking = bench.complete(bench.ask(*words, key=key))
        return asking.refusal.code if asking.refusal else "ran"

    assert ask("alice", "trap", "a" * 60) == "arguments"
    assert (ask("alice", "trap", "ab"), ask("alice", "mark")) == ("busy", "busy")
    assert (ask("bob", "trap", "ab"), ask("bob", "mark")) == ("ran", "ran")
    bench.clocks.advance(EXEC_MATCH_REST_S)
    assert (ask("alice", "trap", "ab"), ask("alice", "mark")) == ("ran", "ran")


def test_a_key_that_asks_for_all_there_is_leaves_room_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "EXEC_RECORDS_MAX", 8)

    def ask(key: str) -> bool:
        asking = bench.ask("nothing", key=key)
        for _ in range(2):
            bench.exchange(asking)
        return asking.refusal is not None

    assert [ask("alice") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [ask("bob") for _ in range(4)] == [True] * 2 + [False] * 2
    assert bench.desk.statistics.ignored == 4
