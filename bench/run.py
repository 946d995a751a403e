"""Measure echo servers side by side: fastnet's engines and what else one would use.

    python -m bench.run                              all scenarios, both epoll twins, the rivals
    python -m bench.run --rows 50x64,50x16K          two scenarios
    python -m bench.run --peers all --json out.json  every engine and backend, numbers to a file too
    python -m bench.run --smoke                      does it still run? The numbers mean nothing

Facts. A closed loop on loopback keeps two processors busy, and a shared host drifts by more than
peers differ.
Decision: the server has the first processor this process may use, the load has the last. Peers take
turns within a round, so a drift meets all of them, and the median of the rounds counts. Each turn
starts a fresh server. Its processor time is read as the measured window opens and as it closes, so
start-up, connects and warm-up are in no number. What to read: CPU microseconds a message is the
server's own; requests/s also contains the load's speed. On one processor only, the two share it and
only the CPU column means something. Exit code: 0, or 1 when a peer did not start, lost a byte or
broke a connection.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import contestant, host
from bench.contestant import GROUPS, YARDSTICKS, Peer, PeerFailed
from bench.scenarios import CANONICAL, SCENARIOS, Scenario
from fastnet.load.contract import LoadPlan
from fastnet.load.run import run

SCHEMA_VERSION = 1
SECONDS, ROUNDS, WARMUP_S = 3.0, 5, 0.5
SMOKE_SECONDS, SMOKE_ROUNDS, SMOKE_WARMUP_S = 0.2, 1, 0.05


@dataclass(frozen=True)
class Settings:
    """seconds and warmup_s are those of one turn."""

    rows: list[str]
    peers: list[str]
    rounds: int
    seconds: float
    warmup_s: float
    server_cpu: int
    load_cpu: int


@dataclass(frozen=True)
class Turn:
    """One peer under one scenario, once.

    Latencies and processor time in microseconds, the latter per message.
    """

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    load_cpu_share: float


@dataclass(frozen=True)
class Cell:
    """All turns of one peer under one scenario; `note` says why there are none."""

    row: str
    peer: str
    turns: list[Turn]
    note: str = ""
    failed: bool = False

    def median(self, column: str) -> float:
        values: list[float] = [getattr(turn, column) for turn in self.turns]
        return statistics.median(values)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as built:
        known = contestant.all_peers(Path(built))
        settings = settings_of(options, list(known))
        report_head(settings)
        cells = measure_all(settings, known)
    print_table(settings, cells)
    if options.json:
        write_json(options.json, settings, cells)
    return int(any(cell.failed for cell in cells))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rows = ", ".join(f"{name} ({row.about})" for name, row in SCENARIOS.items())
    parser.add_argument("--rows", default="all", help=f"comma-separated, or all: {rows}")
    parser.add_argument(
        "--peers", default="default", help=f"comma-separated, or all, or {', '.join(GROUPS)}"
    )
    parser.add_argument("--rounds", type=int, help=f"turns of every peer in a row [{ROUNDS}]")
    parser.add_argument("--seconds", type=float, help=f"measured in one turn [{SECONDS}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn to FILE")
    parser.add_argument(
        "--smoke", action="store_true", help=f"{SMOKE_ROUNDS} round of {SMOKE_SECONDS} s"
    )
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace, known: list[str]) -> Settings:
    usable = sorted(os.sched_getaffinity(0))
    return Settings(
        rows=chosen(options.rows, list(SCENARIOS), {}),
        peers=chosen(options.peers, known, GROUPS),
        rounds=options.rounds or (SMOKE_ROUNDS if options.smoke else ROUNDS),
        seconds=options.seconds or (SMOKE_SECONDS if options.smoke else SECONDS),
        warmup_s=SMOKE_WARMUP_S if options.smoke else WARMUP_S,
        server_cpu=usable[0],
        load_cpu=usable[-1],
    )


def chosen(text: str, known: list[str], groups: dict[str, tuple[str, ...]]) -> list[str]:
    """Names out of a comma-separated text, in the order written."""
    names: list[str] = []
    for word in text.split(","):
        names += known if word == "all" else groups.get(word, (word,))
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(
            f"bench.run: unknown: {', '.join(unknown)}. "
            f"There are: {', '.join([*groups, *known])}, all"
        )
    return list(dict.fromkeys(names))


def raise_descriptor_limit() -> None:
    """1000 connections need more descriptors than the usual soft limit of 1024.

    Servers inherit it.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure_all(settings: Settings, known: dict[str, Peer]) -> list[Cell]:
    cells: list[Cell] = []
    for row in settings.rows:
        fitting = [
            name for name in settings.peers if known[name].transport == SCENARIOS[row].transport
        ]
        found = {name: empty_cell(row, name, known[name]) for name in fitting}
        for _ in range(settings.rounds):
            for name, cell in found.items():
                if not cell.note:
                    found[name] = after_turn(cell, known[name], settings)
        cells += found.values()
    return cells


def empty_cell(row: str, name: str, peer: Peer) -> Cell:
    most = peer.connections_max
    if not peer.command:
        return Cell(row, name, [], peer.note)
    if SCENARIOS[row].busy_poll_us and not peer.spins:
        return Cell(row, name, [], "cannot spin")
    if most is not None and SCENARIOS[row].connections > most:
        return Cell(row, name, [], f"serves {most} concurrently")
    return Cell(row, name, [])


def after_turn(cell: Cell, peer: Peer, settings: Settings) -> Cell:
    """The cell with one more turn, or with the reason why there will be none."""
    try:
        turn = measure(peer, SCENARIOS[cell.row], settings)
    except (PeerFailed, OSError) as failure:
        return Cell(cell.row, cell.peer, [], str(failure), failed=True)
    return Cell(cell.row, cell.peer, [*cell.turns, turn])


def measure(peer: Peer, scenario: Scenario, settings: Settings) -> Turn:
    """Raises PeerFailed when what came back is not what was sent."""
    cpu_ns: list[int] = []
    with contestant.running(peer, settings.server_cpu, scenario.busy_poll_us) as (pid, endpoint):
        plan = LoadPlan(
            endpoint,
            connections=scenario.connections,
            message_bytes=scenario.message_bytes,
            in_flight=scenario.in_flight,
            seconds=settings.seconds,
            warmup_s=settings.warmup_s,
            cpu=settings.load_cpu,
            busy_poll_us=scenario.busy_poll_us,
        )
        report = run(plan, scenario.load, on_edge=lambda: cpu_ns.append(host.cpu_ns(pid)))
    if not report.ok:
        raise PeerFailed(f"{report.mismatches} mismatches, {report.errors}")
    if not report.messages:
        raise PeerFailed("no message came back in time")
    return Turn(
        requests_per_s=report.requests_per_s,
        p50_us=report.p50_ns / 1000,
        p99_us=report.p99_ns / 1000,
        cpu_us=(cpu_ns[1] - cpu_ns[0]) / 1000 / report.messages,
        load_cpu_share=report.cpu_seconds / report.seconds,
    )


def report_head(settings: Settings) -> None:
    for name, fact in host.facts().items():
        print(f"{name + ':':<20}{fact}")
    print(f"{'server, load:':<20}on processors {settings.server_cpu} and {settings.load_cpu}")
    print(
        f"{'each cell:':<20}median of {settings.rounds} x {settings.seconds} s, closed loop, "
        "every byte checked"
    )
    print(flush=True)


def print_table(settings: Settings, cells: list[Cell]) -> None:
    print(
        f"{'scenario':<11}{'peer':<18}{'requests/s':>11}{'x C':>7}{'p50 us':>9}{'p99 us':>9}"
        f"{'CPU us/msg':>12}{'x C':>7}{'load CPU':>10}"
    )
    for row in settings.rows:
        members = [cell for cell in cells if cell.row == row]
        yardstick = next(
            (cell for cell in members if cell.peer in YARDSTICKS.values() and cell.turns), None
        )
        for cell in members:
            mark = "*" if row == CANONICAL else ""
            print(
                f"{row + mark:<11}{cell.peer:<18}"
                + (numbers(cell, yardstick) if cell.turns else f"  {cell.note}")
            )
    print(f"* canonical: {SCENARIOS[CANONICAL].about}")


def numbers(cell: Cell, yardstick: Cell | None) -> str:
    def ratio(column: str) -> str:
        return (
            f"{cell.median(column) / yardstick.median(column):>7.2f}" if yardstick else f"{'-':>7}"
        )

    return (
        f"{cell.median('requests_per_s'):>11,.0f}{ratio('requests_per_s')}"
        f"{cell.median('p50_us'):>9,.1f}"
        f"{cell.median('p99_us'):>9,.0f}{cell.median('cpu_us'):>12.3f}{ratio('cpu_us')}"
        f"{cell.median('load_cpu_share'):>10.0%}"
    )


def write_json(file: Path, settings: Settings, cells: list[Cell]) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "host": host.facts(),
        "settings": asdict(settings),
        "scenarios": {row: asdict(SCENARIOS[row]) for row in settings.rows},
        "cells": [asdict(cell) for cell in cells],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
