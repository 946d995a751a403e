"""The cost of very many idle connections, and whether the server still answers.

    python -m bench.idle_connections                                    what one process can hold
    python -m bench.idle_connections --engine uring
    python -m bench.idle_connections --connections 100000 --workers 6   each with its own limit

Facts. A descriptor limit is that of a process, on either side; a source address has about 28,000
ports to one endpoint.
Decision: clients sit in processes of their own, each with a source address of 127/8. Memory of the
server is what its processes hold for themselves (RssAnon), that of the kernel is what its slabs
grow by, for both ends of each connection. One small crowd comes and goes first, so that what is
allocated once is in no number. The echo is measured by the native load, before the crowd comes and
while it is there; then every hundredth idle connection must still echo.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench import host
from fastnet.endpoint import Endpoint
from fastnet.limits import SPARE_DESCRIPTORS
from fastnet.load.contract import LoadPlan, LoadReport
from fastnet.load.run import run

CROWD_MAX = 19_000
WARM_UP = 500
ACTIVE = 20


def main() -> int:
    options = parse()
    report_head(options)
    with ExitStack() as stack:
        server = stack.enter_context(started(serving(options)))
        assert server.stdout
        event = json.loads(server.stdout.readline())
        endpoint = Endpoint.parse(event["endpoint"])
        with Crowds(endpoint, WARM_UP) as crowds:
            crowds.connect()
            crowds.sample()
        settle()
        quiet = echo(endpoint)
        before_user, before_kernel = user_bytes(server.pid), slab_bytes()
        with Crowds(endpoint, options.connections) as crowds:
            seconds = crowds.connect()
            settle()
            user, kernel = user_bytes(server.pid) - before_user, slab_bytes() - before_kernel
            busy = echo(endpoint)
            sampled = crowds.sample()
        server.terminate()
        server.wait()
    n = options.connections
    print(f"connected             {n:,} in {seconds:.1f} s, {n / seconds:,.0f} a second")
    print(f"user space            {user / n:.0f} bytes a connection")
    print(f"kernel, both ends     {kernel / n:.0f} bytes a connection")
    print(
        f"echo without them     p50 {quiet.p50_ns / 1000:.0f} us, p99 {quiet.p99_ns / 1000:.0f} us"
    )
    print(f"echo under them       p50 {busy.p50_ns / 1000:.0f} us, p99 {busy.p99_ns / 1000:.0f} us")
    print(f"idle ones that echo   {', '.join(sampled)}")
    return int(
        not (quiet.ok and busy.ok and all(right == asked for right, asked in map(parts, sampled)))
    )


def parts(text: str) -> tuple[str, str]:
    right, _, asked = text.partition(" of ")
    return right, asked


def parse() -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.idle_connections",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = min(hard, 1_000_000) - SPARE_DESCRIPTORS - ACTIVE
    parser.add_argument(
        "--connections", type=int, default=most, help="idle ones, all open [%(default)s]"
    )
    parser.add_argument("--engine", default="epoll", help="[%(default)s]")
    parser.add_argument("--backend", default="native", help="[%(default)s]")
    parser.add_argument(
        "--workers", type=int, default=1, help="more than one: worker processes [%(default)s]"
    )
    return parser.parse_args()


def report_head(options: argparse.Namespace) -> None:
    for name, fact in host.facts().items():
        print(f"{name + ':':<22}{fact}")
    print(
        f"{'server:':<22}engine {options.engine}, backend {options.backend}, "
        f"processes {options.workers}"
    )
    print(
        f"{'active beside them:':<22}{ACTIVE} connections, 64 bytes, closed loop, "
        "every byte checked"
    )
    print(flush=True)


def serving(options: argparse.Namespace) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "fastnet",
        "echo",
        "--json",
        "--port",
        "0",
        "--idle-timeout",
        "0",
        "--drain",
        "1",
    ]
    command += ["--engine", options.engine, "--backend", options.backend]
    return command + (
        ["--workers", str(options.workers), "--worker-processes"] if options.workers > 1 else []
    )


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def echo(endpoint: Endpoint) -> LoadReport:
    return run(LoadPlan(endpoint, connections=ACTIVE, message_bytes=64, seconds=2.0, warmup_s=0.3))


def settle() -> None:
    """Let the kernel free what closed connections held (RCU).

    Otherwise it would be counted as a
    saving.
    """
    time.sleep(2)


class Crowds:
    """Idle connections, spread over as many processes as they need."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        shares = [min(CROWD_MAX, connections - start) for start in range(0, connections, CROWD_MAX)]
        self.began_s = time.monotonic()
        self.processes = [
            started(
                [
                    sys.executable,
                    "-m",
                    "bench.idle_clients",
                    str(endpoint),
                    str(share),
                    f"127.8.63.{1 + i}",
                ]
            )
            for i, share in enumerate(shares)
        ]

    def connect(self) -> float:
        """Wait until all are there. Returns the seconds it took."""
        for process in self.processes:
            assert process.stdout
            if process.stdout.readline() != "connected\n":
                raise SystemExit("bench.idle_connections: a crowd did not connect")
        return time.monotonic() - self.began_s

    def sample(self) -> list[str]:
        """Every hundredth echoes, and all leave. What each process says."""
        return [process.communicate()[0].strip() for process in self.processes]

    def __enter__(self) -> Crowds:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def user_bytes(pid: int) -> int:
    """What a process and its children hold for themselves."""
    children = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return sum(anonymous_bytes(each) for each in [pid, *children])


def anonymous_bytes(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def slab_bytes() -> int:
    found = re.search(r"Slab:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    sys.exit(main())
