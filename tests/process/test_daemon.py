"""Daemons, pidfiles, log files and rotation: real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from tests.support.cli_process import (
    connect,
    daemon,
    echoes,
    eventually,
    fastnet,
    finish,
    is_alive,
    running,
)


def test_the_launcher_returns_when_the_daemon_listens_and_says_where(tmp_path: Path) -> None:
    with daemon(tmp_path / "pid", "echo") as (pid, out):
        assert out.startswith("listening on tcp://127.0.0.1:")
        with connect(Endpoint.parse(out.split()[2])) as sock:
            assert echoes(sock, b"hello")
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not is_alive(pid), "the daemon's end")
    assert not (tmp_path / "pid").exists()


def test_a_daemon_has_left_terminal_folder_and_session(tmp_path: Path) -> None:
    with daemon(tmp_path / "pid", "echo") as (pid, _):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3
        parent, _, session, terminal = (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:5]
        )
        assert session not in (str(os.getsid(0)), str(pid))
        assert terminal == "0"
        assert int(parent) != os.getpid()
        assert "Umask:\t0022" in Path(f"/proc/{pid}/status").read_text()


def test_relative_paths_of_a_daemon_are_those_of_its_launcher(tmp_path: Path) -> None:
    names = ("--pidfile", "p", "--log-file", "l", "--unix", "s")
    started = finish("echo", "--daemon", *names, cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "p").read_text())
    try:
        with connect(Endpoint("unix", path=str(tmp_path / "s"))) as sock:
            assert echoes(sock, b"x")
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not is_alive(pid), "the daemon's end")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l"]
    assert "stopped echo on unix:" in (tmp_path / "l").read_text()


def test_what_goes_wrong_before_a_daemon_listens_reaches_the_terminal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = finish("echo", "--daemon", "--pidfile", tmp_path / "pid", "--port", port)
    assert failed.returncode == 4
    assert failed.stdout == ""
    assert failed.stderr.startswith(
        f"fastnet: cannot listen on tcp://127.0.0.1:{port}: address already in use. "
    )
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "pid").exists()


def test_a_daemon_that_cannot_start_says_so_in_json_too(tmp_path: Path) -> None:
    failed = finish("echo", "--daemon", "--log-file", tmp_path / "no" / "log", "--json")
    assert failed.returncode == 3
    assert json.loads(failed.stdout)["code"] == 3
    assert "no such file" in failed.stderr


@pytest.mark.parametrize("more", [(), ("--daemon",)], ids=["foreground", "daemon"])
def test_a_locked_pidfile_refuses_a_second_process_and_names_the_first(
    tmp_path: Path, more: tuple[str]
) -> None:
    with daemon(tmp_path / "pid", "echo") as (pid, _):
        second = finish("echo", "--pidfile", tmp_path / "pid", *more)
        assert second.returncode == 3
        assert second.stderr.startswith(
            f"fastnet: already running: process {pid} holds {tmp_path}/pid. "
        )
        assert int((tmp_path / "pid").read_text()) == pid


@pytest.mark.parametrize(
    "content", ["", "1\n", "999999999\n", str(os.getpid())], ids=["empty", "init", "gone", "alive"]
)
def test_a_stale_pidfile_is_replaced_whatever_number_it_holds(tmp_path: Path, content: str) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(content)
    with running("echo", "--pidfile", pidfile) as server:
        server.endpoint()
        assert int(pidfile.read_text()) == server.pid
        server.end()
    assert not pidfile.exists()


def test_a_killed_process_leaves_a_pidfile_that_the_next_one_takes(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with running("echo", "--pidfile", pidfile, "--engine", "fork") as killed:
        with connect(killed.endpoint()) as sock:
            assert echoes(sock, b"x")
            killed.send(signal.SIGKILL)
            assert killed.process.wait(30) == -signal.SIGKILL
            assert pidfile.exists()
            assert echoes(sock, b"a child lives on, and must not hold the lock")
            with running("echo", "--pidfile", pidfile) as server:
                server.endpoint()
                assert int(pidfile.read_text()) == server.pid
                assert server.end()[0] == 0


def test_a_file_that_is_no_pidfile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("Chapter 1")
    failed = finish("echo", "--pidfile", tmp_path / "thesis")
    assert failed.returncode == 3
    assert "exists and is not a pidfile" in failed.stderr
    assert (tmp_path / "thesis").read_text() == "Chapter 1"


def test_a_pidfile_of_another_process_is_not_removed(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with running("echo", "--pidfile", pidfile) as server:
        server.endpoint()
        pidfile.unlink()
        pidfile.write_text("1\n")
        assert server.end()[0] == 0
    assert pidfile.read_text() == "1\n"


def test_the_pidfile_is_locked_for_life(tmp_path: Path) -> None:
    with running("echo", "--pidfile", tmp_path / "pid") as server:
        server.endpoint()
        with open(tmp_path / "pid") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_logs_follow_a_rotation(tmp_path: Path) -> None:
    log, errors = tmp_path / "log", tmp_path / "errors"
    with running("echo", "--log-file", log, "--error-log", errors) as server:
        server.endpoint()
        log.rename(tmp_path / "log.1")
        errors.rename(tmp_path / "errors.1")
        server.send(signal.SIGHUP)
        eventually(lambda: log.exists() and "SIGHUP" in log.read_text(), "a line in the new file")
        assert server.end()[2] == ""
    assert "listening on" in (tmp_path / "log.1").read_text()
    assert "SIGHUP" not in (tmp_path / "log.1").read_text()
    assert "stopped echo" in log.read_text()
    assert errors.read_text() == (tmp_path / "errors.1").read_text() == ""


def test_a_log_that_cannot_be_reopened_continues_in_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with running("echo", "--log-file", folder / "log") as server:
        server.endpoint()
        folder.rename(tmp_path / "moved")
        server.send(signal.SIGHUP)
        old = tmp_path / "moved" / "log"
        eventually(lambda: "the old file stays in use" in old.read_text(), "the complaint")
        assert server.end()[0] == 0
    assert "stopped echo" in old.read_text()


def test_a_full_disk_under_the_log_stops_nothing() -> None:
    with running("echo", "--log-file", "/dev/full", "--log-level", "debug") as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"alive")
        code, _, err = server.end()
    assert code == 0
    assert "device" not in err


def test_json_logs_parse_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(
        "echo", "--log-file", log, "--log-format", "json", "--log-level", "debug"
    ) as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"12345")
        eventually(lambda: "finished" in log.read_text(), "the connection's line")
        server.end()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert {record["pid"] for record in records} == {server.pid}
    (line,) = [record for record in records if record["logger"] == "fastnet.connection"]
    assert line["level"] == "debug"
    assert "finished: 5 bytes in, 5 out" in line["message"]


@pytest.mark.parametrize("backend", ["native", "python"])
@pytest.mark.parametrize("engine", ["epoll", "thread", "fork"])
def test_connections_are_logged_at_debug_only(tmp_path: Path, engine: str, backend: str) -> None:
    found = {}
    for level in ("info", "debug"):
        log = tmp_path / level
        options = (
            "--engine",
            engine,
            "--backend",
            backend,
            "--log-level",
            level,
            "--log-file",
            log,
        )
        with running("echo", *options) as server:
            with connect(server.endpoint()) as sock:
                assert echoes(sock, b"x")
            assert server.end()[0] == 0
        found[level] = log.read_text().count("finished: 1 bytes in, 1 out")
    assert found == {"info": 0, "debug": 1}


def test_a_name_with_control_characters_cannot_forge_a_log_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = "s\n2030-01-01T00:00:00.000+00:00 error [1] forged \x1b[2J"
    with running("echo", "--unix", path, "--log-file", log, cwd=tmp_path) as server:
        assert server.line().startswith("listening on unix:s\\n2030-01-01")
        server.end()
    text = log.read_text()
    assert "\x1b" not in text
    assert "\\n2030-01-01" in text
    assert all(f"[{server.pid}]" in line for line in text.splitlines())


def test_a_launcher_killed_before_the_daemon_listens_leaves_no_daemon(
    tmp_path: Path,
) -> None:
    """Its pipe breaks; a daemon that was never reported must not stay.

    Shown with an output that is closed for the launcher.
    """
    code = (
        "import os, sys\n"
        "from fastnet.process.daemon import leave\n"
        "source, target = os.pipe()\n"
        "os.close(source)\n"
        "if os.fork() == 0:\n"
        "    def body(tell):\n"
        "        try:\n"
        "            tell([])\n"
        "        except BrokenPipeError:\n"
        f"            open({str(tmp_path / 'broken')!r}, 'w').close()\n"
        "            raise\n"
        "        return 0\n"
        "    leave(body, target)\n"
        "os.wait()\n"
    )
    from subprocess import run as run_process

    from tests.support.cli_process import ENVIRONMENT

    run_process([fastnet()[0], "-c", code], env=ENVIRONMENT, check=True, timeout=30)
    eventually(lambda: (tmp_path / "broken").exists(), "the daemon to notice")
