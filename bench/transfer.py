"""Measure ways to move files side by side: fastnet's movers and what else one would use.

    python -m bench.transfer                         2 GiB and 10,000 x 4 KiB, memory and disk
    python -m bench.transfer --cases memory-file     one case
    python -m bench.transfer --ways cp,nc --json out.json
    python -m bench.transfer --smoke                 does it still run? The numbers mean nothing

Facts. Everything crosses loopback TCP, but for cp. The files are in the page cache before and
after: no way calls fsync here. Pages that the kernel hands out for the first time cost more than
those it has at hand, in a virtual machine many times more.
Decision: ways take turns within a round, so a drift meets all of them; the median of the rounds
counts; the first round is thrown away. Before a turn, as much memory as it needs is touched and
given back. A turn starts with the last process, the others being ready, and ends when all have
ended: so start-up of one process is in the number, which for fastnet is Python's. fastnet has its
bytecode, as pip leaves it; PYTHONDONTWRITEBYTECODE would have it compiled at every start. `inside`
is what fastnet itself reports, without that. What to read: GB/s is the file's bytes by `wall`; CPU
s/GB is user and system time of both sides (wait4(2)). Every byte is compared after the clock has
stopped. Exit code: 0, or 1 when a way failed or lost a byte.
"""

from __future__ import annotations

import argparse
import compileall
import json
import mmap
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import fastnet
from bench import host
from bench.transfer_contestant import FILE_WAYS, TREE_WAYS, YARDSTICK, Part, Place, Way

SCHEMA_VERSION = 1
GIB = 1 << 30
FILE_BYTES, TREE_FILES, ROUNDS = 2 * GIB, 10_000, 5
SMOKE_FILE_BYTES, SMOKE_TREE_FILES, SMOKE_ROUNDS = 8 << 20, 50, 1
SMALL_FILE_BYTES = 4096
READY_S, TURN_S = 15.0, 600.0
MEMORY, DISK = Path("/dev/shm"), Path("/var/tmp")


class WayFailed(Exception):
    """A process did not become ready, failed, or lost a byte."""


@dataclass(frozen=True)
class Case:
    """What is moved: one file, or a folder of small ones; on which file system."""

    about: str
    folder: Path
    ways: dict[str, Way]
    is_tree: bool


CASES = {
    "memory-file": Case("one file, tmpfs to tmpfs", MEMORY, FILE_WAYS, False),
    "disk-file": Case("one file, disk to disk", DISK, FILE_WAYS, False),
    "memory-tree": Case("many small files, tmpfs to tmpfs", MEMORY, TREE_WAYS, True),
    "disk-tree": Case("many small files, disk to disk", DISK, TREE_WAYS, True),
}


@dataclass(frozen=True)
class Turn:
    """One way, once. inside_s: what fastnet reports of itself, None for others."""

    wall_s: float
    cpu_s: float
    inside_s: float | None


@dataclass
class Cell:
    """All turns of one way in one case; `note` says why there are none."""

    case: str
    way: str
    bytes: int
    turns: list[Turn]
    note: str = ""
    failed: bool = False

    def median(self, column: str) -> float:
        return statistics.median(getattr(turn, column) or 0.0 for turn in self.turns)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    compileall.compile_dir(str(Path(fastnet.__file__).parent), quiet=2)
    cells: list[Cell] = []
    for name, fact in host.facts().items():
        print(f"{name + ':':<20}{fact}")
    print(
        f"{'each cell:':<20}median of {options.rounds} rounds, every byte compared",
        end="\n\n",
        flush=True,
    )
    for name in options.cases:
        cells += measure(name, options)
        print_case(name, [cell for cell in cells if cell.case == name])
    if options.json:
        document = {
            "schema_version": SCHEMA_VERSION,
            "host": host.facts(),
            "cells": [asdict(cell) for cell in cells],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(any(cell.failed for cell in cells))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.transfer",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cases", default=",".join(CASES), help=f"comma-separated: {', '.join(CASES)}"
    )
    parser.add_argument("--ways", help="comma-separated names of rows [all]")
    parser.add_argument("--rounds", type=int, help=f"turns of every way in a case [{ROUNDS}]")
    parser.add_argument("--bytes", type=int, help=f"size of the one file [{FILE_BYTES}]")
    parser.add_argument("--files", type=int, help=f"number of small files [{TREE_FILES}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn to FILE")
    parser.add_argument(
        "--smoke", action="store_true", help=f"one round of {SMOKE_FILE_BYTES} bytes"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (SMOKE_ROUNDS if options.smoke else ROUNDS)
    options.bytes = options.bytes or (SMOKE_FILE_BYTES if options.smoke else FILE_BYTES)
    options.files = options.files or (SMOKE_TREE_FILES if options.smoke else TREE_FILES)
    options.cases = known(options.cases, list(CASES))
    options.ways = known(options.ways, [*FILE_WAYS, *TREE_WAYS]) if options.ways else None
    return options


def known(text: str, names: list[str]) -> list[str]:
    words = text.split(",")
    unknown = sorted(set(words) - set(names))
    if unknown:
        sys.exit(
            f"bench.transfer: unknown: {', '.join(unknown)}. "
            f"There are: {', '.join(dict.fromkeys(names))}"
        )
    return words


def measure(name: str, options: argparse.Namespace) -> list[Cell]:
    case = CASES[name]
    with tempfile.TemporaryDirectory(dir=case.folder, prefix="fastnet-bench-") as folder:
        source = Path(folder, "source")
        size = (
            make_tree(source, options.files) if case.is_tree else make_file(source, options.bytes)
        )
        chosen = [way for way in case.ways if options.ways is None or way in options.ways]
        cells = {way: Cell(name, way, size, [], case.ways[way].note) for way in chosen}
        warm_up = 0 if options.smoke else 1
        for round in range(options.rounds + warm_up):
            for cell in cells.values():
                if not cell.note:
                    take_turn(cell, case, Path(folder), round >= warm_up)
    return list(cells.values())


def make_file(path: Path, size: int) -> int:
    noise = os.urandom(1 << 20)
    with path.open("wb") as file:
        for at in range(0, size, len(noise)):
            file.write(at.to_bytes(8, "big") + noise[8 : min(len(noise), size - at)])
    return size


def make_tree(path: Path, files: int) -> int:
    path.mkdir()
    for number in range(files):
        if number % 100 == 0:
            (path / f"{number // 100:03}").mkdir()
        (path / f"{number // 100:03}" / f"{number:06}").write_bytes(os.urandom(SMALL_FILE_BYTES))
    return files * SMALL_FILE_BYTES


def take_turn(cell: Cell, case: Case, folder: Path, counts: bool) -> None:
    """One turn of one way.

    Its target is removed, and what is dirty is on disk before the next begins.
    """
    target = folder / "target"
    warm(int(1.5 * cell.bytes))
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(folder / "source", target, Path(scratch), free_port())
        try:
            turn = run_parts(case.ways[cell.way].parts(place), place.port)
            compare(place, case.is_tree)
        except (WayFailed, OSError, subprocess.SubprocessError) as failure:
            cell.turns, cell.note, cell.failed = [], str(failure), True
            return
        finally:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            os.sync()
    if counts:
        cell.turns.append(turn)


def warm(size: int) -> None:
    """Touch and free memory before a turn.

    So no way pays for what the host had not given us
    yet.
    """
    if size:
        with mmap.mmap(-1, size) as memory:
            for at in range(0, size, mmap.PAGESIZE):
                memory[at] = 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def run_parts(parts: list[Part], port: int) -> Turn:
    """Start the listeners, then the clock and the last part.

    Wait for all that end by themselves. Raises WayFailed.
    """
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in parts]
        processes: list[subprocess.Popen[bytes]] = []
        cpu_s = 0.0
        try:
            for part, words in zip(parts[:-1], said, strict=False):
                processes.append(start(part, words))
                wait_listening(processes[-1], port, part.command[0])
            since = time.monotonic()
            processes.append(start(parts[-1], said[-1]))
            for part, process in reversed(list(zip(parts, processes, strict=True))):
                if not part.stays:
                    cpu_s += finish(process, part.command[0])
            wall_s = time.monotonic() - since
            for part, process in zip(parts, processes, strict=True):
                if part.stays:
                    process.terminate()
                    cpu_s += finish(process, "")
        finally:
            for process in processes:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for words in said:
            words.seek(0)
        return Turn(wall_s, cpu_s, inside(b"".join(words.read() for words in said)))


def start(part: Part, said: IO[bytes]) -> subprocess.Popen[bytes]:
    stdin = part.stdin.open("rb") if part.stdin else None
    stdout = part.stdout.open("wb") if part.stdout else None
    try:
        streams = {"stdin": stdin or subprocess.DEVNULL, "stdout": stdout or said, "stderr": said}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            part.command, start_new_session=True, **streams
        )
    finally:
        for file in (stdin, stdout):
            if file is not None:
                file.close()


def wait_listening(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    """Read the kernel's table of listeners.

    A connection made to find out would be the one that is
    served.
    """
    end_s = time.monotonic() + READY_S
    while f"0100007F:{port:04X} 00000000:0000 0A" not in Path("/proc/net/tcp").read_text():
        if process.poll() is not None or time.monotonic() > end_s:
            raise WayFailed(f"{name} does not listen")
        time.sleep(0.002)


def finish(process: subprocess.Popen[bytes], name: str) -> float:
    """Wait for a process.

    Returns its processor time, its children's included. name: "" when it was told to go.
    """
    end_s = time.monotonic() + TURN_S
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end_s:
            raise WayFailed(f"{name} did not end within {TURN_S:g} s")
        time.sleep(0.001)
    process.returncode = os.waitstatus_to_exitcode(status)
    if name and process.returncode:
        raise WayFailed(f"{name} failed with {process.returncode}")
    return used.ru_utime + used.ru_stime


def inside(said: bytes) -> float | None:
    """The receiver's own seconds, when fastnet reported them."""
    for line in said.splitlines():
        if line.startswith(b'{"event": "report"'):
            report = json.loads(line)["report"]
            if report["role"] == "recv":
                return float(report["seconds"])
    return None


def compare(place: Place, is_tree: bool) -> None:
    command = ["diff", "-rq"] if is_tree else ["cmp"]
    below = place.target / place.source.name
    target = below if below.is_dir() else place.target
    found = subprocess.run(
        [*command, str(place.source), str(target)], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise WayFailed(
            f"lost bytes: {found.stdout.splitlines()[0] if found.stdout else found.stderr.strip()}"
        )


def print_case(name: str, cells: list[Cell]) -> None:
    size = cells[0].bytes if cells else 0
    print(f"{name}: {CASES[name].about}, {size} bytes")
    print(
        f"  {'way':<34}{'wall s':>9}{'inside s':>10}{'GB/s':>8}"
        f"{f'x {YARDSTICK}':>8}{'CPU s/GB':>10}"
    )
    yardstick = next(
        (cell.median("wall_s") for cell in cells if cell.way == YARDSTICK and cell.turns), None
    )
    for cell in cells:
        print(f"  {cell.way:<34}" + (numbers(cell, yardstick) if cell.turns else f"  {cell.note}"))
    print(flush=True)


def numbers(cell: Cell, yardstick_s: float | None) -> str:
    wall_s, inside_s = cell.median("wall_s"), cell.median("inside_s")
    ratio = f"{yardstick_s / wall_s:>8.2f}" if yardstick_s else f"{'-':>8}"
    own = f"{inside_s:>10.3f}" if inside_s else f"{'-':>10}"
    cpu_s_per_gb = cell.median("cpu_s") / cell.bytes * 1e9
    return f"{wall_s:>9.3f}{own}{cell.bytes / wall_s / 1e9:>8.2f}{ratio}{cpu_s_per_gb:>10.2f}"


if __name__ == "__main__":
    sys.exit(main())
