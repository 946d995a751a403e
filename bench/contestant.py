"""Who is measured, and how each is started and stopped.

Facts. All are echo servers in a process of their own which, when ready, print `listening on
tcp://HOST:PORT`.
Decision: a peer is bound to its processor before it executes its first instruction; threads and
children inherit it. One that cannot run here (no compiler, no uvloop) has a note instead of a
command, and the table shows the note.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fastnet.endpoint import Endpoint
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.limits import MIB, POOL_SIZE, READ_BYTES
from fastnet.registry import BACKENDS

RIVALS = Path(__file__).parent / "contestants"
READY = re.compile(rb"^listening on ((?:tcp|udp)://\S+)", re.MULTILINE)
READY_S = 15.0
STOP_S = 10.0

YARDSTICKS = {"tcp": "c_epoll", "udp": "c_mmsg"}
"""The peer that all others of a transport are compared with."""

RCVBUF_BYTES = 4 * MIB
"""Of every datagram server, so that what is measured is its speed and not a burst it could not
hold.
"""


class PeerFailed(Exception):
    """A peer did not become ready, or died."""


@dataclass(frozen=True)
class Peer:
    """command: how to start it; empty when it cannot run here, and `note` says why.

    connections_max: how many it serves concurrently; None: as many as it has descriptors. spins: it
    knows --busy-poll. transport: what it serves.
    """

    command: tuple[str, ...]
    note: str = ""
    connections_max: int | None = None
    spins: bool = False
    transport: str = "tcp"


def compiled(name: str, into: Path, *libraries: str) -> Peer:
    """A rival in C, built on the spot when there is a compiler and what it links with."""
    compiler = shutil.which("cc")
    if compiler is None:
        return Peer((), "no C compiler")
    binary = into / name
    command = [
        compiler,
        "-O2",
        f"-DREAD_BYTES={READ_BYTES}",
        "-o",
        str(binary),
        str(RIVALS / f"{name}.c"),
    ]
    built = subprocess.run(
        [*command, *(f"-l{library}" for library in libraries)], capture_output=True, check=False
    )
    if built.returncode:
        return Peer(
            (), f"does not build here; it needs lib{', lib'.join(libraries)} and its headers"
        )
    return Peer((str(binary),))


def compiled_go(name: str, into: Path) -> Peer:
    """A rival in Go, on one processor like the others."""
    if shutil.which("go") is None:
        return Peer((), "no Go compiler")
    binary = into / name
    environment = os.environ | {
        "GOCACHE": str(into / "go-cache"),
        "GO111MODULE": "off",
        "GOFLAGS": "",
    }
    subprocess.run(
        ["go", "build", "-o", str(binary), str(RIVALS / f"{name}.go")], check=True, env=environment
    )
    return Peer(("env", "GOMAXPROCS=1", str(binary)))


def script(name: str, *arguments: str) -> Peer:
    return Peer((sys.executable, str(RIVALS / f"{name}.py"), *arguments))


def fastnet(engine: str, backend: str) -> Peer:
    """`fastnet echo`.

    Connections that only wait in a queue are not served, so the pool's bound is its threads.
    """
    served = POOL_SIZE if engine == "pool" else ENGINES[engine].connections
    options = ("--port", "0", "--engine", engine, "--backend", backend)
    return Peer(
        (sys.executable, "-m", "fastnet", "echo", *options),
        connections_max=served or None,
        spins=True,
    )


def fastnet_datagrams(way: str, backend: str) -> Peer:
    options = (
        "--udp",
        "--port",
        "0",
        "--engine",
        way,
        "--backend",
        backend,
        "--rcvbuf",
        str(RCVBUF_BYTES),
    )
    return Peer((sys.executable, "-m", "fastnet", "echo", *options), spins=True, transport="udp")


def fastnet_handler(backend: str) -> Peer:
    """An echo written in Python, on our loop."""
    return Peer(
        (sys.executable, "-m", "bench.handler_echo", backend, str(RCVBUF_BYTES)), transport="udp"
    )


def datagram_peers(into: Path, has_uvloop: bool) -> dict[str, Peer]:
    """Those that serve datagrams."""
    found = {
        YARDSTICKS["udp"]: compiled(YARDSTICKS["udp"], into),
        "uvloop-udp": script("uvloop_datagram")
        if has_uvloop
        else Peer((), "uvloop is not installed"),
        "asyncio-udp": script("asyncio_datagram"),
        "recvfrom": script("recvfrom_loop"),
    }
    for name, peer in found.items():
        command = (*peer.command, str(RCVBUF_BYTES)) if peer.command else ()
        found[name] = replace(peer, command=command, transport="udp")
    ours = [
        (way, backend)
        for way in DATAGRAMS
        for backend in BACKENDS
        if DATAGRAMS[way].module(backend)
    ]
    found |= {f"{way}-{backend}": fastnet_datagrams(way, backend) for way, backend in ours}
    return found | {f"handler-{backend}": fastnet_handler(backend) for backend in BACKENDS}


def all_peers(into: Path) -> dict[str, Peer]:
    """Every peer by name. into: a directory for what has to be built."""
    uvloop = importlib.util.find_spec("uvloop")
    gevent = importlib.util.find_spec("gevent")
    return {
        YARDSTICKS["tcp"]: compiled(YARDSTICKS["tcp"], into),
        "c_uring": compiled("c_uring", into, "uring"),
        "c_libuv": compiled("c_libuv", into, "uv"),
        "go_net": compiled_go("go_net", into),
        "uvloop": script("uvloop_protocol", str(READ_BYTES))
        if uvloop
        else Peer((), "uvloop is not installed"),
        "gevent": script("gevent_sockets", str(READ_BYTES))
        if gevent
        else Peer((), "gevent is not installed"),
        "asyncio": script("asyncio_protocol", str(READ_BYTES)),
        "threads": script("socketserver_threads", str(READ_BYTES)),
        **{
            f"{engine}-{backend}": fastnet(engine, backend)
            for engine in ENGINES
            for backend in BACKENDS
        },
        **datagram_peers(into, uvloop is not None),
    }


STREAM_RIVALS = (
    "c_epoll",
    "c_uring",
    "c_libuv",
    "go_net",
    "uvloop",
    "asyncio",
    "gevent",
    "threads",
)
DATAGRAM_RIVALS = ("c_mmsg", "uvloop-udp", "asyncio-udp", "recvfrom")
GROUPS = {
    "rivals": (*STREAM_RIVALS, *DATAGRAM_RIVALS),
    "default": (
        *(
            "uring-native",
            "epoll-native",
            "epoll-python",
            "c_epoll",
            "uvloop",
            "asyncio",
            "threads",
        ),
        *(
            "mmsg-native",
            "single-native",
            "single-python",
            "handler-native",
            "handler-python",
            *DATAGRAM_RIVALS,
        ),
    ),
}
"""Names for several peers; "all" is every one."""


@contextmanager
def running(
    peer: Peer, cpu: int | None = None, busy_poll_us: int = 0
) -> Iterator[tuple[int, Endpoint]]:
    """Start a peer on a processor; yield its process id and endpoint once it listens.

    Raises PeerFailed when it does not.
    """

    def bind() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    spin = ("--busy-poll", str(busy_poll_us)) if busy_poll_us else ()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*peer.command, *spin],
            stdout=subprocess.PIPE,
            stderr=complaints,
            preexec_fn=bind,
            start_new_session=True,
        )
        try:
            yield process.pid, wait_ready(process, complaints)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a peer, and by force whatever is left of it and of its children."""
    assert process.stdout is not None
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        # its session is its own, so this reaches no other process
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def wait_ready(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> Endpoint:
    """Read standard output until the ready line is complete.

    complaints: where its standard error goes.
    """
    assert process.stdout is not None
    printed = b""
    deadline = time.monotonic() + READY_S
    while select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            break
        printed += data
        ready = READY.search(printed)
        if ready and b"\n" in printed[ready.end() :]:
            return Endpoint.parse(ready.group(1).decode())
    complaints.seek(0)
    last = complaints.read().decode(errors="replace").strip().splitlines()
    raise PeerFailed(f"did not start: {last[-1] if last else 'no ready line'}")
