"""`fastnet send --streams N` over a long way that loses packets.

Run it as root: python -m bench.lossy_wan.

Two network namespaces, a TUN device in each, and between them this process, which holds every
packet back for half the round trip and drops one in N. It is Python, so it carries some tens
of thousands of packets a second and no more: what is compared is 1 stream with N, not this link
with another.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 9000
NAMES = {"fastnet-here": "10.77.0.1", "fastnet-there": "10.77.0.2"}
PORT = 9000
QUEUE_PACKETS = 5000
"""What the link holds before it drops what comes: a router's buffer."""


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def tun_in(name: str) -> int:
    """A TUN device in the namespace `name`, which must be there.

    This thread is back in its own afterwards.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", b"way", IFF_TUN | IFF_NO_PI))
    finally:
        libc.setns(own, CLONE_NEWNET)
        os.close(own)
        os.close(there)
    return fd


class Link:
    """Carries packets between two TUN devices. loss: the share that is dropped."""

    def __init__(self, ends: list[int], delay_s: float, loss: float) -> None:
        self.ends = ends
        self.delay_s = delay_s
        self.loss = loss
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._carry)

    def _carry(self) -> None:
        queue: list[tuple[float, int, int, bytes]] = []
        chance, number = random.Random(1), 0
        other = {self.ends[0]: self.ends[1], self.ends[1]: self.ends[0]}
        while not self.over.is_set():
            wait_s = min(0.1, max(0.0, queue[0][0] - time.monotonic())) if queue else 0.1
            for fd in select.select(self.ends, [], [], wait_s)[0]:
                for _ in range(64):
                    try:
                        packet = os.read(fd, MTU)
                    except BlockingIOError:
                        break
                    if chance.random() >= self.loss and len(queue) < QUEUE_PACKETS:
                        number += 1
                        heapq.heappush(
                            queue, (time.monotonic() + self.delay_s, number, other[fd], packet)
                        )
            now = time.monotonic()
            while queue and queue[0][0] <= now:
                _, _, fd, packet = heapq.heappop(queue)
                with suppress(BlockingIOError):  # its queue is full: lost, as on any link
                    os.write(fd, packet)


def seconds_of(folder: Path, streams: int, congestion: str) -> float:
    """One transfer. Returns the seconds that the sender reports."""
    fastnet = shutil.which("fastnet") or os.path.join(os.path.dirname(sys.executable), "fastnet")
    here, there = NAMES
    common = ("--congestion", congestion, "--timeout", "20")
    inbox = folder / "inbox"
    shutil.rmtree(inbox, ignore_errors=True)
    listen = f"{NAMES[there]}:{PORT}"
    receive = (
        "ip",
        "netns",
        "exec",
        there,
        fastnet,
        "recv",
        "--listen",
        listen,
        "--into",
        str(inbox),
        *common,
    )
    with subprocess.Popen(receive, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        send = (
            "ip",
            "netns",
            "exec",
            here,
            fastnet,
            "send",
            str(folder / "file"),
            listen,
            "--streams",
            str(streams),
        )
        began = time.monotonic()
        subprocess.run((*send, *common), check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        receiver.stdout.read()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--round-trip-ms", type=float, default=50.0)
    parser.add_argument("--one-in", type=int, default=2000, help="packets of which one is lost")
    parser.add_argument("--streams", default="1,2,4,8")
    parser.add_argument("--congestion", default="cubic,bbr")
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for name in NAMES:
        run("ip", "netns", "add", name)
    try:
        ends = [tun_in(name) for name in NAMES]
        for name, address in NAMES.items():
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "way")
            run("ip", "-n", name, "link", "set", "way", "mtu", str(MTU), "up")
        link = Link(ends, asked.round_trip_ms / 2000, 1 / asked.one_in)
        link.thread.start()
        try:
            with tempfile.TemporaryDirectory() as made:
                table(Path(made), asked)
        finally:
            link.over.set()
            link.thread.join()
            for fd in ends:
                os.close(fd)
    finally:
        for name in NAMES:
            run("ip", "netns", "del", name)


def table(folder: Path, asked: argparse.Namespace) -> None:
    (folder / "file").write_bytes(os.urandom(asked.mib << 20))
    ways = [
        (word, int(n)) for word in asked.congestion.split(",") for n in asked.streams.split(",")
    ]
    times: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way in ways:
            times[way].append(seconds_of(folder, way[1], way[0]))
    print(
        f"{asked.mib} MiB, round trip {asked.round_trip_ms:g} ms, "
        f"one packet of {MTU} bytes in {asked.one_in} lost"
    )
    print(f"{'congestion':<12}{'streams':>8}{'seconds':>10}{'MB/s':>8}")
    for (word, n), took in times.items():
        middle = statistics.median(took)
        print(f"{word:<12}{n:>8}{middle:>10.2f}{asked.mib * 1.048576 / middle:>8.1f}")


if __name__ == "__main__":
    main()
