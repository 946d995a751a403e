"""Ways to move a file or a folder between two processes of one host.

How each is
started.

Facts. Every way is one or two commands; all but the last listen and are ready when the kernel shows
their socket. A server that stays (nginx, an rsync daemon) is told to go when the client has ended,
and its processor time counts too.
Decision: a way that cannot run here has a note in place of commands, and the table shows the note.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastnet.mover import MOVERS


@dataclass(frozen=True)
class Place:
    """Where a turn happens.

    source and target: two files, or two folders. scratch: a folder for configurations.
    """

    source: Path
    target: Path
    scratch: Path
    port: int


@dataclass(frozen=True)
class Part:
    """One command.

    stdin, stdout: files, or None for nothing. stays: it does not end by itself.
    """

    command: tuple[str, ...]
    stdin: Path | None = None
    stdout: Path | None = None
    stays: bool = False


@dataclass(frozen=True)
class Way:
    """parts: from a place to commands, listeners first. note: why it cannot run here, or ""."""

    parts: Callable[[Place], list[Part]]
    note: str = ""


def needs(*tools: str) -> str:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def needs_native() -> str:
    why = MOVERS.why_not("copy", "native")
    return f"no native mover: {why}" if why else ""


def shell(line: str, stays: bool = False) -> Part:
    return Part(("sh", "-c", line), stays=stays)


def cp(place: Place) -> list[Part]:
    return [Part(("cp", str(place.source), str(place.target)))]


def nc(place: Place) -> list[Part]:
    return [
        Part(("nc", "-d", "-l", "127.0.0.1", str(place.port)), stdout=place.target),
        Part(("nc", "-N", "127.0.0.1", str(place.port)), stdin=place.source),
    ]


def ncat(place: Place) -> list[Part]:
    return [
        Part(("ncat", "--recv-only", "-l", "127.0.0.1", str(place.port)), stdout=place.target),
        Part(("ncat", "--send-only", "127.0.0.1", str(place.port)), stdin=place.source),
    ]


def socat(place: Place) -> list[Part]:
    buffer = ("socat", "-u", "-b", "1048576")
    return [
        Part(
            (*buffer, f"TCP-LISTEN:{place.port},bind=127.0.0.1,reuseaddr", f"CREATE:{place.target}")
        ),
        Part((*buffer, f"FILE:{place.source}", f"TCP:127.0.0.1:{place.port}")),
    ]


def rsync(place: Place) -> list[Part]:
    config = place.scratch / "rsyncd.conf"
    config.write_text(
        f"address = 127.0.0.1\nport = {place.port}\nuse chroot = no\n"
        f"uid = {os.getuid()}\ngid = {os.getgid()}\n"
        f"[m]\npath = {place.source.parent}\nread only = yes\n"
    )
    return [
        Part(("rsync", "--daemon", "--no-detach", f"--config={config}"), stays=True),
        Part(
            (
                "rsync",
                "--whole-file",
                f"rsync://127.0.0.1:{place.port}/m/{place.source.name}",
                str(place.target),
            )
        ),
    ]


def nginx(place: Place) -> list[Part]:
    config = place.scratch / "nginx.conf"
    temporary = "".join(
        f"{name}_temp_path {place.scratch}; "
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {place.scratch}/nginx.pid; "
        f"error_log {place.scratch}/error.log;\n"
        f"events {{ }}\nhttp {{ access_log off; sendfile on; {temporary}\n"
        f"server {{ listen 127.0.0.1:{place.port}; root {place.source.parent}; }} }}\n"
    )
    url = f"http://127.0.0.1:{place.port}/{place.source.name}"
    return [
        Part(("nginx", "-c", str(config), "-e", str(place.scratch / "error.log")), stays=True),
        Part(("curl", "-s", "-f", "-o", str(place.target), url)),
    ]


def fastnet_raw(backend: str, sends: str, receives: str) -> Callable[[Place], list[Part]]:
    def parts(place: Place) -> list[Part]:
        common = ("--raw", "--json", "--backend", backend)
        run = (sys.executable, "-m", "fastnet")
        listen = (
            "recv",
            "--listen",
            str(place.port),
            "--output",
            str(place.target),
            "--mover",
            receives,
        )
        return [
            Part((*run, *listen, *common)),
            Part(
                (
                    *run,
                    "send",
                    str(place.source),
                    f"127.0.0.1:{place.port}",
                    "--mover",
                    sends,
                    *common,
                )
            ),
        ]

    return parts


def fastnet_proven(backend: str, *more: str) -> Callable[[Place], list[Part]]:
    """fastnet/1. A folder keeps its name, so it arrives one level below the target."""

    def parts(place: Place) -> list[Part]:
        common = ("--json", "--backend", backend)
        run = (sys.executable, "-m", "fastnet")
        where = (
            ("--into", str(place.target))
            if place.source.is_dir()
            else ("--output", str(place.target))
        )
        return [
            Part((*run, "recv", "--listen", str(place.port), *where, *common)),
            Part((*run, "send", str(place.source), f"127.0.0.1:{place.port}", *common, *more)),
        ]

    return parts


def tar_nc(place: Place) -> list[Part]:
    return [
        shell(f"nc -d -l 127.0.0.1 {place.port} | tar x -C '{made(place.target)}'"),
        shell(f"tar c -C '{place.source}' . | nc -N 127.0.0.1 {place.port}"),
    ]


def tar_fastnet(place: Place) -> list[Part]:
    run = f"'{sys.executable}' -m fastnet"
    return [
        shell(
            f"{run} recv --listen {place.port} --raw --output - 2>/dev/null"
            f" | tar x -C '{made(place.target)}'"
        ),
        shell(
            f"tar c -C '{place.source}' . | {run} send - 127.0.0.1:{place.port} --raw >/dev/null"
        ),
    ]


def cp_tree(place: Place) -> list[Part]:
    return [Part(("cp", "-r", str(place.source), str(place.target)))]


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


YARDSTICK = "cp"
"""The way that all others are compared with."""

FILE_WAYS = {
    YARDSTICK: Way(cp),
    "fastnet native": Way(fastnet_proven("native"), needs_native()),
    "fastnet python": Way(fastnet_proven("python")),
    "fastnet native without digest": Way(
        fastnet_proven("native", "--digest", "none"), needs_native()
    ),
    "fastnet raw native": Way(fastnet_raw("native", "auto", "auto"), needs_native()),
    "fastnet raw python": Way(fastnet_raw("python", "auto", "auto")),
    "fastnet raw native sendfile+copy": Way(
        fastnet_raw("native", "sendfile", "copy"), needs_native()
    ),
    "fastnet raw native copy+copy": Way(fastnet_raw("native", "copy", "copy"), needs_native()),
    "fastnet raw native splice+splice": Way(
        fastnet_raw("native", "splice", "splice"), needs_native()
    ),
    "fastnet raw python copy+copy": Way(fastnet_raw("python", "copy", "copy")),
    "nc": Way(nc, needs("nc")),
    "socat": Way(socat, needs("socat")),
    "ncat": Way(ncat, needs("ncat")),
    "rsync daemon": Way(rsync, needs("rsync")),
    "nginx + curl": Way(nginx, needs("nginx", "curl")),
}
"""For one large file."""

TREE_WAYS = {
    YARDSTICK: Way(cp_tree),
    "fastnet native": Way(fastnet_proven("native"), needs_native()),
    "fastnet python": Way(fastnet_proven("python")),
    "tar | nc | tar": Way(tar_nc, needs("tar", "nc")),
    "tar | fastnet raw | tar": Way(tar_fastnet, needs("tar")),
}
"""For many small files."""
