"""Compare two builds of fastnet, turn by turn: did a change make anything slower?

    python -m bench.compare OLD_PYTHON NEW_PYTHON                 every row, 9 rounds
    python -m bench.compare OLD NEW --rows epoll-64,file --json bench/results/compare.json
    python -m bench.compare OLD NEW --smoke                       a short run: does it work?

Facts. On a shared host two identical programs differ by 10 % and more from one minute to the next.
Decision: each round measures both builds of a row one after the other, the order reversed every
round, and what is compared is the ratio within a round; the median of these ratios is the result.
Each build is named by its Python interpreter, so an older commit is a second virtual environment.
The load and the clock are this tree's own for both builds. Server rows compare the server's CPU
microseconds per message or, for a round trip, the latency; file rows the CPU seconds and the wall
time of sender and receiver together. Server and load run on different processors.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import contestant, host
from bench.contestant import RCVBUF_BYTES, Peer
from fastnet.limits import KIB, MIB
from fastnet.load.contract import LoadPlan
from fastnet.load.run import run

ROUNDS, SECONDS, WARMUP_S = 9, 2.0, 0.3
SMOKE_ROUNDS, SMOKE_SECONDS, SMOKE_WARMUP_S = 1, 0.2, 0.05
FILE_BYTES, SMALL_FILES, SMALL_FILE_BYTES = 512 * MIB, 5000, 4 * KIB
SMOKE_SHARE = 64
"""The smoke form moves this part of the bytes and of the files."""

COMPILE = (
    "import compileall, os, fastnet;"
    "compileall.compile_dir(os.path.dirname(fastnet.__file__), quiet=2)"
)
"""Neither build is to compile its modules while it is measured."""

HANDLER = Path(__file__).with_name("handler_echo.py")


@dataclass(frozen=True)
class ServerRow:
    """A server and a closed load on it."""

    about: str
    options: tuple[str, ...]
    connections: int
    message_bytes: int
    in_flight: int = 1
    load: str = "closed"
    by_latency: bool = False
    """Compare the median latency instead of the CPU time."""


@dataclass(frozen=True)
class Round:
    """Both builds, measured one after the other."""

    old: float
    new: float

    @property
    def ratio(self) -> float:
        return self.new / self.old


UDP = ("--udp", "--rcvbuf", str(RCVBUF_BYTES))
SERVERS = {
    "epoll-64": ServerRow("epoll native, 50 x 64 bytes, CPU/message", ("epoll", "native"), 50, 64),
    "epoll-16K": ServerRow(
        "epoll native, 50 x 16 KiB, CPU/message", ("epoll", "native"), 50, 16 * KIB, 4
    ),
    "uring-64": ServerRow("uring native, 50 x 64 bytes, CPU/message", ("uring", "native"), 50, 64),
    "uring-16K": ServerRow(
        "uring native, 50 x 16 KiB, CPU/message", ("uring", "native"), 50, 16 * KIB, 4
    ),
    "thread-64": ServerRow("thread native, 8 x 64 bytes, CPU/message", ("thread", "native"), 8, 64),
    "pure-64": ServerRow("epoll pure, 50 x 64 bytes, CPU/message", ("epoll", "python"), 50, 64),
    "round-trip": ServerRow(
        "epoll native, 1 x 64 bytes, p50", ("epoll", "native"), 1, 64, by_latency=True
    ),
    "churn": ServerRow(
        "epoll native, connect, echo, close: CPU/connection",
        ("epoll", "native"),
        50,
        64,
        1,
        "churn",
    ),
    "mmsg-64": ServerRow(
        "mmsg native, 8 x 64 bytes, CPU/datagram", ("mmsg", "native", *UDP), 8, 64, 16, "datagrams"
    ),
    "single-pure": ServerRow(
        "single pure, 8 x 64 bytes, CPU/datagram",
        ("single", "python", *UDP),
        8,
        64,
        16,
        "datagrams",
    ),
    "handler": ServerRow(
        "Python handler on mmsg, CPU/datagram", ("handler", "native"), 8, 64, 16, "datagrams"
    ),
}
FILES = {
    "file": "one file of 512 MiB in memory, both sides",
    "small-files": "5,000 files of 4 KiB in memory, both sides",
}


def main(arguments: Sequence[str] | None = None) -> int:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", metavar="OLD_PYTHON")
    parser.add_argument("new", metavar="NEW_PYTHON")
    parser.add_argument("--rows", default="all", help=f"{', '.join([*SERVERS, *FILES])}, or all")
    parser.add_argument("--rounds", type=int, help=f"of each row [{ROUNDS}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to FILE")
    parser.add_argument("--smoke", action="store_true", help="one short round")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = [*SERVERS, *FILES] if options.rows == "all" else options.rows.split(",")
    rounds = options.rounds or (SMOKE_ROUNDS if options.smoke else ROUNDS)
    for python in (options.old, options.new):
        subprocess.run([python, "-c", COMPILE], check=True)
    for name, fact in host.facts().items():
        print(f"{name + ':':<20}{fact}")
    print(f"\n{'row':<13}{'unit':<10}{'old':>10}{'new':>10}{'new/old':>9}{'least':>7}{'most':>7}")
    found: dict[str, list[Round]] = {}
    for row in rows:
        for unit, turns in compare(row, options.old, options.new, rounds, options.smoke).items():
            found[f"{row} {unit}"] = turns
            print(line(row, unit, turns), flush=True)
    if options.json:
        write_json(options.json, options.smoke, found)
    return 0


def compare(row: str, old: str, new: str, rounds: int, smoke: bool) -> dict[str, list[Round]]:
    """Every round of a row, by what was measured."""
    measure: Callable[[str], dict[str, float]]
    if row in SERVERS:
        measure = lambda python: measure_server(python, SERVERS[row], smoke)  # noqa: E731
    else:
        measure = lambda python: measure_files(python, row, smoke)  # noqa: E731
    found: dict[str, list[Round]] = {}
    for number in range(rounds):
        if number % 2:
            second = measure(new)
            first = measure(old)
        else:
            first = measure(old)
            second = measure(new)
        for unit, value in first.items():
            found.setdefault(unit, []).append(Round(value, second[unit]))
    return found


def measure_server(python: str, row: ServerRow, smoke: bool) -> dict[str, float]:
    """CPU microseconds a message, or the median latency."""
    usable = sorted(os.sched_getaffinity(0))
    engine, backend, *more = row.options
    command = (python, "-m", "fastnet", "echo", "--port", "0", "--engine", engine)
    command += ("--backend", backend, *more)
    if engine == "handler":
        command = (python, "-P", str(HANDLER), backend, str(RCVBUF_BYTES))
    cpu_ns: list[int] = []
    with contestant.running(Peer(command), usable[0]) as (pid, endpoint):
        plan = LoadPlan(
            endpoint,
            connections=row.connections,
            message_bytes=row.message_bytes,
            in_flight=row.in_flight,
            seconds=SMOKE_SECONDS if smoke else SECONDS,
            warmup_s=SMOKE_WARMUP_S if smoke else WARMUP_S,
            cpu=usable[-1],
        )
        report = run(plan, row.load, on_edge=lambda: cpu_ns.append(host.cpu_ns(pid)))
    if not report.ok or not report.messages:
        sys.exit(f"bench.compare: {row.about}: {report.errors} errors, {report.messages} messages")
    if row.by_latency:
        return {"p50 us": report.p50_ns / 1000}
    return {"CPU us": (cpu_ns[1] - cpu_ns[0]) / 1000 / report.messages}


def measure_files(python: str, row: str, smoke: bool) -> dict[str, float]:
    """Wall and CPU seconds of sender and receiver, from the sender's start to both ends."""
    share = SMOKE_SHARE if smoke else 1
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        source = folder / "source"
        if row == "file":
            with source.open("wb") as file:
                for _ in range(FILE_BYTES // share // MIB):
                    file.write(os.urandom(MIB))
        else:
            source.mkdir()
            for number in range(SMALL_FILES // share):
                (source / str(number)).write_bytes(os.urandom(SMALL_FILE_BYTES))
        return timed_transfer(python, source, folder / "inbox")


def timed_transfer(python: str, source: Path, inbox: Path) -> dict[str, float]:
    receiver = subprocess.Popen(
        [python, "-m", "fastnet", "recv", "--listen", "127.0.0.1:0", "--into", str(inbox)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert receiver.stdout
    endpoint = receiver.stdout.readline().split("tcp://")[1].split()[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.monotonic()
    command = [python, "-m", "fastnet", "send", str(source), endpoint]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    receiver.communicate()
    wall_s = time.monotonic() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if receiver.returncode:
        sys.exit(f"bench.compare: the receiver ended with {receiver.returncode}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall s": wall_s, "CPU s": cpu_s}


def line(row: str, unit: str, turns: list[Round]) -> str:
    ratios = sorted(turn.ratio for turn in turns)
    old = statistics.median(turn.old for turn in turns)
    new = statistics.median(turn.new for turn in turns)
    return (
        f"{row:<13}{unit:<10}{old:>10.3f}{new:>10.3f}{statistics.median(ratios):>9.3f}"
        f"{ratios[0]:>7.2f}{ratios[-1]:>7.2f}"
    )


def write_json(path: Path, smoke: bool, found: dict[str, list[Round]]) -> None:
    about = {name: row.about for name, row in SERVERS.items()} | FILES
    document = {
        "schema_version": 1,
        "host": host.facts(),
        "smoke": smoke,
        "rows": about,
        "rounds": {name: [asdict(turn) for turn in turns] for name, turns in found.items()},
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
