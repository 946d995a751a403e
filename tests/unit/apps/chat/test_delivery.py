"""Event queue of one member: window, acknowledgements, retransmission."""

from __future__ import annotations

from fastnet.apps.chat import wire
from fastnet.apps.chat.delivery import RETRANSMIT_MAX_S, RETRANSMIT_S, EventQueue
from fastnet.limits import CHAT_WINDOW


def numbers(datagrams: list[bytes]) -> list[int]:
    return [wire.unpack(data)["number"] for data in datagrams]


def filled(count: int) -> EventQueue:
    queue = EventQueue("s")
    for i in range(count):
        queue.push({"text": f"{i}"}, 0.0)
    return queue


def test_at_most_a_window_of_events_is_in_flight() -> None:
    queue = EventQueue("s")
    sent = [numbers(queue.push({"text": f"{i}"}, 0.0)) for i in range(CHAT_WINDOW + 3)]
    assert sent == [[i + 1] for i in range(CHAT_WINDOW)] + [[]] * 3
    assert len(queue) == CHAT_WINDOW + 3


def test_an_acknowledgement_moves_the_window_and_an_old_one_does_not() -> None:
    queue = filled(CHAT_WINDOW + 3)
    assert numbers(queue.acknowledge(2, 0.0)) == [CHAT_WINDOW + 1, CHAT_WINDOW + 2]
    assert queue.acknowledge(1, 0.0) == []
    assert len(queue) == CHAT_WINDOW + 1


def test_the_window_is_retransmitted_with_doubling_timeouts() -> None:
    queue, now_s, timeouts = filled(2), 0.0, []
    for _ in range(6):
        timeouts.append(round(queue.due_s - now_s, 6))
        assert queue.retransmit(queue.due_s - 0.001) == []
        now_s = queue.due_s
        assert numbers(queue.retransmit(now_s)) == [1, 2]
    assert timeouts == [min(RETRANSMIT_MAX_S, RETRANSMIT_S * 2**i) for i in range(6)]


def test_no_timer_runs_when_all_events_are_acknowledged() -> None:
    queue = filled(2)
    queue.acknowledge(2, 0.0)
    assert queue.due_s == float("inf")
    assert queue.retransmit(1e9) == []
