"""What the measurements ran on, and what a process has used of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

CPUCLOCK_SCHED = 2
"""The clock of a process's run time in nanoseconds, in the low bits of a clock id
(linux/posix-timers.h).
"""


def facts() -> dict[str, str]:
    """Kernel, processors, Python, compiler and congestion control, for the head of a report."""
    compiler = shutil.which("cc")
    version = ["none"]
    if compiler:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} x {processor_model()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": version[0],
        "congestion control": control.read_text().strip() if control.exists() else "unknown",
    }


def processor_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_ns(pid: int) -> int:
    """Processor time of a process, its threads and living descendants, user and system.

    /proc/PID/stat counts in ticks of 10 ms; the process's own clock (clock_getcpuclockid(3)) in
    nanoseconds. A descendant that ended between two readings is missing from the second one.
    """
    return sum(process_clock_ns(member) for member in family(pid))


def process_clock_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0  # it has ended since we saw it


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    members = [pid]
    for member in members:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += map(int, children.read_text().split())
            except OSError:
                continue  # the thread has ended since we saw it
    return members
