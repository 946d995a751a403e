"""Measure a dictionary of 100,000 words over UDP.

How many answers one processor gives in a second.

    python -m bench.dictionary            native, pure, and a Python handler on the native loop
    python -m bench.dictionary --smoke    does it still run? The numbers mean nothing

Decision: the server has the first processor this process may use, the load the last. The load
(bench/dictionary_load.c) keeps 8 x 16 questions on their way, checks every answer, and asks for a
word that is not there one time in sixteen. What to read: answers/s is what was measured, with the
load's speed in it; CPU us is the server's own, per answer, and answers/s/core what follows from it.
Exit code: 0, or 1 when an answer was lost or wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import contestant, host
from bench.contestant import RCVBUF_BYTES, Peer

ENTRIES, SOCKETS, WINDOW = 100_000, 8, 16
SECONDS, ROUNDS = 3.0, 5
SMOKE_SECONDS, SMOKE_ROUNDS = 0.2, 1
WARMUP_S = 0.2


@dataclass(frozen=True)
class Turn:
    """One server, once."""

    answers_per_s: float
    cpu_us: float
    lost: int
    wrong: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.dictionary", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, help=f"turns of every server [{ROUNDS}]")
    parser.add_argument("--seconds", type=float, help=f"measured in one turn [{SECONDS:g}]")
    parser.add_argument(
        "--smoke", action="store_true", help=f"{SMOKE_ROUNDS} round of {SMOKE_SECONDS} s"
    )
    options = parser.parse_args(arguments)
    seconds = options.seconds or (SMOKE_SECONDS if options.smoke else SECONDS)
    rounds = options.rounds or (SMOKE_ROUNDS if options.smoke else ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        load = build(Path(folder))
        file = write_words(Path(folder) / "words.txt")
        turns: dict[str, list[Turn]] = {name: [] for name in servers(file)}
        for _ in range(rounds):
            for name, peer in servers(file).items():
                turns[name].append(measure(peer, load, seconds))
    report(turns, rounds, seconds)
    return int(any(turn.lost or turn.wrong for each in turns.values() for turn in each))


def build(into: Path) -> Path:
    """The load. Without a C compiler there is none, and nothing to measure with."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("bench.dictionary: there is no C compiler to build the load with")
    binary = into / "words_load"
    subprocess.run(
        [compiler, "-O2", "-o", str(binary), str(Path(__file__).parent / "dictionary_load.c")],
        check=True,
    )
    return binary


def write_words(file: Path) -> Path:
    file.write_text("".join(f"word{i:07}:translation of word{i:07}\n" for i in range(ENTRIES)))
    return file


def servers(file: Path) -> dict[str, Peer]:
    serve = (
        sys.executable,
        "-m",
        "fastnet",
        "dict",
        "serve",
        "--file",
        str(file),
        "--rcvbuf",
        str(RCVBUF_BYTES),
    )
    handler = (sys.executable, "-m", "bench.handler_dictionary", str(file), str(RCVBUF_BYTES))
    return {
        "native": Peer((*serve, "--backend", "native"), transport="udp"),
        "handler": Peer(handler, transport="udp"),
        "python": Peer((*serve, "--backend", "python"), transport="udp"),
    }


def measure(peer: Peer, load: Path, seconds: float) -> Turn:
    usable = sorted(os.sched_getaffinity(0))
    with contestant.running(peer, usable[0]) as (pid, endpoint):
        numbers(load, endpoint.port, WARMUP_S, usable[-1])
        before_ns = host.cpu_ns(pid)
        answers, lost, wrong, took_s = numbers(load, endpoint.port, seconds, usable[-1])
        cpu_ns = host.cpu_ns(pid) - before_ns
    return Turn(answers / took_s, cpu_ns / 1000 / max(1, answers), int(lost), int(wrong))


def numbers(load: Path, port: int, seconds: float, cpu: int) -> tuple[float, ...]:
    command = [str(load), *map(str, (port, ENTRIES, SOCKETS, WINDOW, seconds))]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )
    return tuple(map(float, done.stdout.split()))


def report(turns: dict[str, list[Turn]], rounds: int, seconds: float) -> None:
    for name, fact in host.facts().items():
        print(f"{name + ':':<20}{fact}")
    print(
        f"{'each row:':<20}median of {rounds} x {seconds:g} s, {ENTRIES:,} words, "
        f"{SOCKETS} sockets, window {WINDOW}\n"
    )
    print(
        f"{'server':<10}{'answers/s':>12}{'CPU us/answer':>16}{'answers/s/core':>16}"
        f"{'lost':>8}{'wrong':>8}"
    )
    for name, each in turns.items():
        rate = statistics.median(turn.answers_per_s for turn in each)
        cpu_us = statistics.median(turn.cpu_us for turn in each)
        lost, wrong = sum(turn.lost for turn in each), sum(turn.wrong for turn in each)
        print(f"{name:<10}{rate:>12,.0f}{cpu_us:>16.3f}{1e6 / cpu_us:>16,.0f}{lost:>8}{wrong:>8}")


if __name__ == "__main__":
    sys.exit(main())
