"""Nonces outlive the server, the power, and a clock that jumps."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastnet.apps.exec import nonces as nonces_module
from fastnet.apps.exec.nonces import REWRITE_LINES, WINDOW_US, Nonces, RequestId
from fastnet.errors import ConfigError
from fastnet.limits import EXEC_NONCES_MAX

NOW_US = 1_781_872_345_000_000
SEEN = RequestId("alice", bytes(range(16)))


def seen(number: int) -> RequestId:
    return RequestId("alice", number.to_bytes(16))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "nonces"


@pytest.fixture
def load(path: Path) -> Iterator[Callable[..., Nonces]]:
    opened: list[Nonces] = []

    def again(now_us: int = NOW_US) -> Nonces:
        for each in opened:
            each.close()
        opened.append(Nonces(str(path), now_us))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


Load = Callable[..., Nonces]


def test_a_nonce_is_known_after_a_restart(load: Load) -> None:
    load().add(SEEN, NOW_US, NOW_US)
    assert SEEN in load()
    assert seen(1) not in load()


def test_the_same_nonce_of_another_key_is_another_one(load: Load) -> None:
    nonces = load()
    nonces.add(SEEN, NOW_US, NOW_US)
    assert RequestId("bob", SEEN.nonce) not in nonces


@pytest.mark.parametrize(
    ("off_us", "fresh"), [(0, True), (WINDOW_US, True), (WINDOW_US + 1, False)]
)
@pytest.mark.parametrize("sign", [1, -1], ids=["ahead", "behind"])
def test_a_request_is_fresh_within_the_window(
    load: Load, off_us: int, fresh: bool, sign: int
) -> None:
    assert load().is_fresh(NOW_US + sign * off_us, NOW_US) is fresh


def test_a_forgotten_nonce_is_not_fresh_even_when_the_clock_is_set_back(load: Load) -> None:
    nonces = load()
    nonces.add(SEEN, NOW_US, NOW_US)
    assert nonces.is_fresh(NOW_US + 3 * WINDOW_US, NOW_US + 3 * WINDOW_US)
    assert SEEN not in nonces
    assert not nonces.is_fresh(NOW_US, NOW_US)


def test_stale_nonces_leave_the_file_at_a_restart(load: Load, path: Path) -> None:
    nonces = load()
    nonces.add(seen(1), NOW_US, NOW_US)
    nonces.add(seen(2), NOW_US + 2 * WINDOW_US, NOW_US + 2 * WINDOW_US)
    load(NOW_US + 2 * WINDOW_US)
    assert path.read_text() == f"{NOW_US + 2 * WINDOW_US} alice {seen(2).nonce.hex()}\n"


def test_the_file_stays_bounded_while_the_server_runs(
    load: Load, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5000 of them take a minute on a slow disk
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    nonces = load()
    for number in range(5000):
        at_us = NOW_US + number * WINDOW_US
        assert nonces.is_fresh(at_us, at_us)
        nonces.add(seen(number), at_us, at_us)
    assert len(path.read_text().splitlines()) <= 2 + 2 * REWRITE_LINES
    assert seen(4999) in load(NOW_US + 4999 * WINDOW_US)


def test_half_a_last_line_is_cut_off(load: Load, path: Path) -> None:
    nonces = load()
    nonces.add(seen(1), NOW_US, NOW_US)
    nonces.add(seen(2), NOW_US, NOW_US)
    nonces.close()
    path.write_bytes(path.read_bytes()[:-5])
    nonces = load()
    assert seen(1) in nonces
    assert seen(2) not in nonces
    nonces.add(seen(3), NOW_US, NOW_US)
    assert seen(3) in load()


def test_a_file_of_something_else_is_left_alone(load: Load, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("dear diary\n")
    with pytest.raises(ConfigError, match="line 1 is no nonce"):
        load()
    assert path.read_text() == "dear diary\n"


def test_a_file_from_the_future_is_an_error_of_the_start(load: Load) -> None:
    load().add(SEEN, NOW_US, NOW_US)
    with pytest.raises(ConfigError, match="has a request from 1000 s in the future"):
        load(NOW_US - 1_000_000_000)


def test_a_second_server_cannot_share_the_file(load: Load, path: Path) -> None:
    nonces = load()
    nonces.add(SEEN, NOW_US, NOW_US)
    with pytest.raises(ConfigError, match="another server keeps its nonces"):
        Nonces(str(path), NOW_US)


def test_a_nonce_that_the_disk_does_not_take_is_not_remembered(load: Load, path: Path) -> None:
    nonces = load()
    nonces.add(seen(1), NOW_US, NOW_US)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError):
            nonces.add(seen(2), NOW_US, NOW_US)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert seen(2) not in nonces
    nonces.add(seen(3), NOW_US, NOW_US)
    again = load()
    assert [seen(number) in again for number in (1, 2, 3)] == [True, False, True]


def test_a_file_that_others_may_change_is_refused(load: Load, path: Path) -> None:
    load()
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others may change"):
        load()


def test_at_its_bound_the_store_says_so(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces_module, "EXEC_NONCES_MAX", 2)
    nonces = load()
    nonces.add(seen(1), NOW_US, NOW_US)
    assert not nonces.is_full()
    nonces.add(seen(2), NOW_US, NOW_US)
    assert nonces.is_full()
    assert nonces.is_fresh(NOW_US + 2 * WINDOW_US, NOW_US + 2 * WINDOW_US)
    assert not nonces.is_full()


def test_of_two_servers_that_start_concurrently_one_gets_the_file(path: Path) -> None:
    got: list[Nonces] = []
    refused: list[ConfigError] = []

    def start() -> None:
        try:
            got.append(Nonces(str(path), NOW_US))
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in got:
        each.close()
    assert (len(got), len(refused)) == (1, 7)


def test_a_server_reads_as_many_nonces_as_it_may_have_written(load: Load, path: Path) -> None:
    path.parent.mkdir()
    name = "k" * 32
    lines = (f"{NOW_US} {name} {number.to_bytes(16).hex()}\n" for number in range(EXEC_NONCES_MAX))
    path.write_text("".join(lines))
    path.chmod(0o600)
    nonces = load()
    assert nonces.is_full()
    assert RequestId(name, (EXEC_NONCES_MAX - 1).to_bytes(16)) in nonces
