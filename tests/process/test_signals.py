"""What signals do to a serving process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastnet.endpoint import Endpoint
from tests.support.cli_process import (
    ENVIRONMENT,
    Running,
    children,
    connect,
    echoes,
    eventually,
    fastnet,
    is_alive,
    read_all,
    running,
)

CLIENTS = 20
BACKENDS = ("native", "python")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_signal_ends_an_idle_server_with_0(number: signal.Signals) -> None:
    with running("echo") as server:
        server.endpoint()
        code, out, err = server.end(number)
    assert code == 0
    assert out.startswith("stopped echo on tcp://127.0.0.1:")
    assert err == ""


class Streaming(threading.Thread):
    """A client in the middle of a stream, which checks that every byte comes back.

    It continues only when the event is set.
    """

    def __init__(self, endpoint: Endpoint, go_on: threading.Event) -> None:
        super().__init__()
        self.endpoint, self.go_on = endpoint, go_on
        self.half_way = threading.Event()
        self.complete = False

    def run(self) -> None:
        data = os.urandom(200_000)
        with connect(self.endpoint) as sock:
            assert echoes(sock, data[:1000])
            self.half_way.set()
            self.go_on.wait()
            sender = threading.Thread(
                target=lambda: (sock.sendall(data[1000:]), sock.shutdown(socket.SHUT_WR))
            )
            sender.start()
            self.complete = read_all(sock) == data[1000:]
            sender.join()


@pytest.mark.parametrize("engine", ["epoll", "thread", "fork"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clients_that_stream_at_sigterm_lose_no_byte(engine: str, backend: str) -> None:
    go_on = threading.Event()
    with running("echo", "--engine", engine, "--backend", backend, "--drain", 30) as server:
        endpoint = server.endpoint()
        clients = [Streaming(endpoint, go_on) for _ in range(CLIENTS)]
        try:
            for client in clients:
                client.start()
            for client in clients:
                assert client.half_way.wait(30)
            server.send(signal.SIGTERM)
            said = server.line("err", "draining")
        finally:
            go_on.set()
            for client in clients:
                client.join()
        code, out, _ = server.end(None)
    assert (
        said
        == f"fastnet: draining {CLIENTS} connections for up to 30 s; interrupt again to stop now"
    )
    assert all(client.complete for client in clients)
    assert code == 0
    assert f"{CLIENTS} accepted, 0 open" in out
    assert f"closed: {CLIENTS} finished" in out


@pytest.mark.parametrize("workers", [1, 2], ids="workers={}".format)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_draining_server_accepts_no_connection(backend: str, workers: int) -> None:
    with running("echo", "--drain", 30, "--backend", backend, "--workers", workers) as server:
        endpoint = server.endpoint()
        with connect(endpoint) as sock:
            assert echoes(sock, b"before")
            server.send(signal.SIGTERM)
            assert "draining 1 connection for" in server.line("err")
            eventually(lambda: refuses(endpoint), "the listeners to close")
            assert echoes(sock, b"after")
        assert server.end(None)[0] == 0


def refuses(endpoint: Endpoint) -> bool:
    try:
        connect(endpoint).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workers", [1, 2], ids="workers={}".format)
def test_the_drain_ends_after_its_time_with_0(backend: str, workers: int) -> None:
    with running("echo", "--drain", 0.1, "--backend", backend, "--workers", workers) as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"x")
            code, out, _ = server.end()
    assert code == 0
    assert "closed: 1 stopped" in out


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("engine", ["epoll", "thread", "fork"])
def test_a_second_signal_ends_a_drain_immediately_with_130(
    engine: str, second: signal.Signals
) -> None:
    with running("echo", "--drain", 3600, "--engine", engine) as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"x")
            server.send(signal.SIGTERM)
            server.line("err", "draining")
            code, out, _ = server.end(second)
    assert code == 130
    assert "closed: 1 stopped" in out


@pytest.mark.parametrize(
    "arguments", [("--engine", "fork"), ("--workers", 2, "--backend", "python")], ids=str
)
def test_an_interrupt_of_the_whole_group_is_one_interrupt(arguments: tuple[object, ...]) -> None:
    with running("echo", "--drain", 3600, *arguments) as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"x")
            os.killpg(server.pid, signal.SIGINT)
            server.line("err", "draining")
            assert echoes(sock, b"still served")
        assert server.end(None)[0] == 0


def test_sigpipe_kills_nothing() -> None:
    with running("echo") as server:
        endpoint = server.endpoint()
        server.send(signal.SIGPIPE)
        with connect(endpoint) as sock:
            assert echoes(sock, b"alive")
        assert server.end()[0] == 0


def test_a_reader_of_our_output_that_goes_away_does_not_stop_the_server() -> None:
    with running("echo") as server:
        endpoint = server.endpoint()
        assert server.process.stdout is not None
        server.process.stdout.close()
        with connect(endpoint) as sock:
            assert echoes(sock, b"alive")
        server.process.stdout = None
        server.send(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_sigusr1_logs_the_statistics() -> None:
    with running("echo") as server:
        with connect(server.endpoint()) as sock:
            assert echoes(sock, b"12345")
            server.send(signal.SIGUSR1)
            assert "1 accepted, 1 open, 5 bytes in, " in server.line("err")
        assert server.end()[0] == 0


def test_sighup_is_logged_and_serving_continues() -> None:
    with running("echo") as server:
        with connect(server.endpoint()) as sock:
            server.send(signal.SIGHUP)
            assert "SIGHUP: log files opened again" in server.line("err")
            assert echoes(sock, b"alive")
        assert server.end()[0] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_fork_child_costs_its_own_connection_and_is_counted(backend: str) -> None:
    with running("echo", "--engine", "fork", "--backend", backend, "--json") as server:
        endpoint = Endpoint.parse(server.event()["endpoint"])
        with connect(endpoint) as victim, connect(endpoint) as other:
            assert echoes(victim, b"a")
            (child,) = children(server.pid)[:1]
            assert echoes(other, b"b")
            os.kill(child, signal.SIGKILL)
            assert ends(victim)
            assert echoes(other, b"still here")
        server.send(signal.SIGTERM)
        statistics = stopped(server)["statistics"]
        assert server.end(None)[0] == 0
    assert statistics["open"] == 0
    assert statistics["closed"]["killed"] == 1
    assert statistics["closed"]["finished"] == 1


def stopped(server: Running) -> dict[str, Any]:
    event: dict[str, Any] = {}
    while event.get("event") != "stopped":
        event = server.event()
    return event


def ends(sock: socket.socket) -> bool:
    """Whether the connection is over, gently or not."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_killed_worker_is_replaced_and_its_connections_are_counted() -> None:
    with running("echo", "--backend", "python", "--workers", 2, "--json") as server:
        endpoint = Endpoint.parse(server.event()["endpoint"])
        with connect(endpoint) as victim:
            assert echoes(victim, b"a")
            before = children(server.pid)
            assert len(before) == 2
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert ends(victim)
        eventually(lambda: len(children(server.pid)) == 2, "two successors")
        with connect(endpoint) as sock:
            assert echoes(sock, b"b")
        assert "died; starting another" in server.line("err")
        server.send(signal.SIGTERM)
        statistics = stopped(server)["statistics"]
        assert server.end(None)[0] == 0
    assert statistics["open"] == 0
    assert statistics["closed"]["killed"] == 1
    assert statistics["closed"]["finished"] == 1


def test_workers_end_when_their_parent_is_killed() -> None:
    with running("echo", "--backend", "python", "--workers", 2) as server:
        server.endpoint()
        workers = children(server.pid)
        server.end(signal.SIGKILL)
    for pid in workers:
        eventually(lambda pid=pid: not is_alive(pid), f"the end of worker {pid}")


@pytest.mark.parametrize("nohup", [False, True], ids=["plain", "nohup"])
def test_a_server_ends_with_its_terminal_unless_nohup_says_otherwise(
    tmp_path: Path, nohup: bool
) -> None:
    log = tmp_path / "log"
    pid, terminal = os.forkpty()
    if pid == 0:
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execve(sys.executable, fastnet("echo", "--log-file", log, "--drain", 30), ENVIRONMENT)
    try:
        said = b""
        while not said.endswith(b")\r\n"):
            said += os.read(terminal, 4096)
        with connect(Endpoint.parse(said.decode().split()[2])) as sock:
            assert echoes(sock, b"x")
            os.close(terminal)
            assert echoes(sock, b"a client that is there may finish")
            if nohup:
                os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    assert ("the terminal is gone" in log.read_text()) != nohup
    assert "1 finished" in log.read_text()
