"""`fastnet echo` and its siblings as processes: ready lines, events, errors, metrics."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastnet.endpoint import Endpoint
from fastnet.limits import METRICS_CONNECTIONS_MAX
from tests.support.cli_process import (
    ENVIRONMENT,
    connect,
    echoes,
    eventually,
    fastnet,
    finish,
    read_all,
    running,
)

READY = re.compile(
    r"listening on tcp://127\.0\.0\.1:\d+ "
    r"\(engine (\w+), backend (\w+), ((?:worker processes|workers) \d+)\)"
)


@pytest.mark.parametrize("service", ["echo", "discard", "chargen", "daytime"])
def test_the_first_line_says_where_and_how_it_serves(service: str) -> None:
    with running(service, "--engine", "select", "--backend", "python", "--workers", 2) as server:
        found = READY.fullmatch(server.line())
        assert found is not None
        assert found.groups() == ("select", "python", "worker processes 2")
        assert server.end()[0] == 0


def test_json_tells_the_whole_life_in_events() -> None:
    with running("echo", "--json") as server:
        event = server.event()
        with connect(Endpoint.parse(event["endpoint"])) as sock:
            assert echoes(sock, b"12345")
        code, out, _ = server.end()
    assert code == 0
    assert {name: event[name] for name in ("event", "service", "pid", "workers")} == {
        "event": "listening",
        "service": "echo",
        "pid": server.pid,
        "workers": 1,
    }
    assert {"engine", "backend", "reason"} <= set(event)
    *draining, stopped = map(json.loads, out.splitlines())
    # it may be told to end before it sees the client's end
    assert {each["event"] for each in draining} <= {"draining"}
    assert stopped["event"] == "stopped"
    assert stopped["statistics"]["bytes_in"] == 5


def test_draining_is_an_event_too() -> None:
    with running("echo", "--json", "--drain", 30) as server:
        with connect(Endpoint.parse(server.event()["endpoint"])) as sock:
            assert echoes(sock, b"x")
            server.send(signal.SIGTERM)
            assert server.event() == {"event": "draining", "open": 1, "seconds": 30.0}
        assert server.end(None)[0] == 0


def test_a_fallback_is_explained_in_the_ready_line() -> None:
    hide = (
        "import sys; sys.modules['fastnet.engine.stream.epoll_c'] = None;"
        " from fastnet.cli import main; main()"
    )
    server = subprocess.Popen(
        [fastnet()[0], "-c", hide, "echo", "--engine", "epoll"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.terminate()
        server.communicate(timeout=30)
    finally:
        server.kill()
    assert "backend python, workers 1; no native epoll: " in line


ERRORS: dict[str, tuple[tuple[object, ...], int, str, str]] = {
    "port out of range": (("--port", 70000), 3, "port 70000 is out of range", "Ports go from 0"),
    "engine bound": (
        ("--engine", "select", "--max-connections", 5000),
        3,
        "select engine cannot hold 5000",
        "At most 1008",
    ),
    "unknown name": (
        ("--host", "no-such-host.invalid"),
        4,
        "cannot listen on tcp://no-such-host.invalid:0: ",
        "127.0.0.1",
    ),
    "foreign address": (
        ("--host", "192.0.2.1"),
        4,
        "cannot assign requested address",
        "`ip address`",
    ),
    "bad network": (("--allow", "10.0.0.0/99"), 3, "'10.0.0.0/99' is not a network", "10.0.0.0/8"),
    "unwritable log": (
        ("--log-file", "/no/such/folder/log"),
        3,
        "cannot write --log-file",
        "make its folder",
    ),
    "log is a folder": (
        ("--error-log", "/tmp"),
        3,
        "cannot write --error-log /tmp: is a directory",
        "Choose a file",
    ),
    "unwritable pidfile": (
        ("--pidfile", "/no/such/folder/pid"),
        3,
        "cannot write --pidfile",
        "make its folder",
    ),
    "bad metrics": (("--metrics", "localhost"), 3, "endpoint 'localhost' has no port", "HOST:PORT"),
    "infinite": (
        ("--idle-timeout", "inf"),
        3,
        "idle_timeout = inf is too large",
        "At most 1000000",
    ),
    "not a number": (("--drain", "nan"), 3, "drain = nan is too small", "At least 0"),
    "huge buffer": (
        ("--rcvbuf", 10**12),
        3,
        "rcvbuf = 1000000000000 is too large",
        "At most 2147483647",
    ),
    "congestion": (
        ("--congestion", "no-such"),
        3,
        "cannot use --congestion no-such",
        "This kernel has: ",
    ),
    "long suffix": (("--suffix", "x" * 5000), 3, "the suffix is too long", "At most 4096 bytes"),
    "unknown engine": (
        ("--engine", "magic"),
        2,
        "'magic' is not one of",
        "See fastnet echo --help",
    ),
    "unknown option": (("--prot", 1), 2, "No such option", "See fastnet echo --help"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_one_line_with_cause_and_hint_and_its_exit_code(name: str) -> None:
    arguments, code, cause, hint = ERRORS[name]
    failed = finish("echo", *arguments)
    assert failed.returncode == code
    assert failed.stdout == ""
    assert failed.stderr.startswith("fastnet: ")
    assert failed.stderr.count("\n") == 1
    assert cause in failed.stderr
    assert hint in failed.stderr


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_with_json_is_also_one_document(name: str) -> None:
    arguments, code, cause, _ = ERRORS[name]
    failed = finish("echo", "--json", *arguments)
    assert failed.returncode == code
    document = json.loads(failed.stdout)
    assert document["event"] == "error"
    assert document["code"] == code
    assert cause in document["message"]


@pytest.mark.parametrize("workers", [1, 2], ids="workers={}".format)
@pytest.mark.parametrize("option", ["--port", "--metrics"])
def test_a_port_in_use_names_it_and_hints_how_to_find_its_owner(option: str, workers: int) -> None:
    with running("echo", "--workers", workers) as server:
        port = server.endpoint().port
        failed = finish("echo", option, port, "--workers", workers)
    assert failed.returncode == 4
    assert f"cannot listen on tcp://127.0.0.1:{port}: address already in use. " in failed.stderr
    assert f"sport = :{port}" in failed.stderr
    assert "--port" not in failed.stderr, (
        "it may be the port of --metrics, of --listen or of a TOML file"
    )


def test_a_privileged_port_names_the_permission_that_is_missing() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("this host lets everybody bind every port")
    if os.getuid() == 0:
        # The interpreter and the sources may be unreadable for another user, so only the bind is
        # done as one.
        code = (
            "import os, sys; from fastnet.cli.main import run; "
            "import fastnet.process.run, fastnet.cli.servers;"
            "import fastnet.transport.tcp, fastnet.engine.stream.epoll_py, fastnet.service.echo_py;"
            "import encodings.idna;"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            "sys.exit(run(['echo', '--port', '1', '--backend', 'python', '--engine', 'epoll']))"
        )
        command = [fastnet()[0], "-c", code]
    else:
        command = fastnet("echo", "--port", 1)
    failed = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
    )
    assert failed.returncode == 4, failed.stderr
    assert failed.stderr.startswith(
        "fastnet: cannot listen on tcp://127.0.0.1:1: permission denied. Ports below 1024 need "
    )
    assert failed.stderr.count("\n") == 1


def test_an_error_quotes_control_characters_harmlessly() -> None:
    failed = finish("echo", "--allow", "\x1b[2Jx\ny")
    assert failed.returncode == 3
    assert "\x1b" not in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_traceback_is_shown_only_at_debug() -> None:
    assert "Traceback" not in finish("echo", "--host", "192.0.2.1").stderr
    assert "Traceback" in finish("echo", "--host", "192.0.2.1", "--log-level", "debug").stderr


def test_options_come_from_the_environment_and_typed_ones_win() -> None:
    environment = ENVIRONMENT | {
        "FASTNET_SUFFIX": "!",
        "FASTNET_ENGINE": "select",
        "FASTNET_JSON": "1",
    }
    with running("echo", "--engine", "epoll", env=environment) as server:
        event = server.event()
        assert event["engine"] == "epoll"
        with connect(Endpoint.parse(event["endpoint"])) as sock:
            sock.sendall(b"x")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"x!"


def test_the_soft_descriptor_limit_is_lifted_to_the_hard_one() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    low = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # noqa: E731
    with running("echo", "--json", preexec_fn=low) as server:
        assert server.event()["max_connections"] > 256
        assert (
            f"Max open files            {min(hard, 1 << 20)}"
            in Path(f"/proc/{server.pid}/limits").read_text()
        )


@contextlib.contextmanager
def measured(*arguments: object) -> Iterator[tuple[Any, Endpoint, str]]:
    """A server with --metrics: the command, where it serves and the URL of its counters."""
    with running("echo", "--metrics", 0, "--json", *arguments) as server:
        endpoint = Endpoint.parse(server.event()["endpoint"])
        yield server, endpoint, server.event()["url"]


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize(
    "arguments", [(), ("--engine", "fork"), ("--backend", "python", "--workers", 2)], ids=str
)
def test_metrics_count_what_was_served(arguments: tuple[object, ...]) -> None:
    with measured(*arguments) as (server, endpoint, url):
        labels = f'{{service="echo",endpoint="{endpoint}"}}'
        with connect(endpoint) as sock:
            assert echoes(sock, b"12345")
            text = scrape(url)
            assert f"fastnet_accepted_total{labels} 1\n" in text
            assert f"fastnet_open_connections{labels} 1\n" in text
            assert f"fastnet_bytes_in_total{labels} 5\n" in text
        ended = (
            f'fastnet_closed_total{{service="echo",endpoint="{endpoint}",reason="finished"}} 1\n'
        )
        eventually(lambda: ended in scrape(url), "the end to be counted")
        assert server.end()[0] == 0


def test_every_metric_has_a_type_and_every_line_parses() -> None:
    with measured() as (_, _, url):
        lines = scrape(url).splitlines()
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    for line in samples:
        found = re.fullmatch(r'(\w+)(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \d+', line)
        assert found is not None, line
        assert types[found[1]] == ("counter" if found[1].endswith("_total") else "gauge")


def test_hostile_readers_of_the_metrics_disturb_no_client() -> None:
    with measured() as (server, endpoint, url), contextlib.ExitStack() as stack:
        metrics = Endpoint("tcp", "127.0.0.1", int(url.split(":")[2].split("/")[0]))
        for garbage in (
            b"\x00\xff" * 50_000 + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /metrics HTTP/9.9\r\n\r\n",
            b"",
        ):
            with connect(metrics) as sock, contextlib.suppress(OSError):
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        slow = [stack.enter_context(connect(metrics)) for _ in range(METRICS_CONNECTIONS_MAX)]
        for sock in slow:
            sock.sendall(b"GET /metr")
        with connect(endpoint) as sock:
            assert echoes(sock, b"served as ever")
        for sock in slow:
            with contextlib.suppress(ConnectionResetError):
                read_all(sock)  # ends at the deadline
        assert "fastnet_accepted_total" in scrape(url)
        code, _, err = server.end()
    assert code == 0
    assert err == ""
