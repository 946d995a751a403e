"""Exec under faults of network, peers and server: at most once, whole, bounded."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastnet.apps.exec import wire
from fastnet.apps.exec.client_protocol import ExecClientProtocol
from fastnet.endpoint import Endpoint
from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX
from tests.support.cli_process import Running, eventually, finish, running
from tests.support.clients import while_flooded
from tests.support.exec import AS_ROOT, SECRETS, shell, write_keys, write_policy
from tests.support.lossy_network import Lossy

SEQ = "".join(f"{i}\n" for i in range(1, 20001))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_keys(tmp_path)
    mark = f"echo x >> {tmp_path}/marks; "
    write_policy(
        tmp_path,
        mark=shell(mark + "seq 20000; exit 3", output_bytes_max=200_000, concurrent_max=8),
        slow=shell(mark + f"echo > {tmp_path}/started; sleep 60", time_limit_s=60),
    )
    return tmp_path


@contextlib.contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[tuple[Running, Endpoint]]:
    files = [
        "--allow-file",
        folder / "commands.toml",
        "--keys",
        folder / "keys",
        "--nonces",
        folder / "nonces",
    ]
    with running("exec", "serve", "--port", port, *files, *AS_ROOT) as server:
        yield server, server.endpoint()


def asking(folder: Path, endpoint: Endpoint, *words: object) -> list[object]:
    return ["exec", "run", "--server", endpoint, "--keys", folder / "keys", *words]


def marks(folder: Path) -> int:
    path = folder / "marks"
    return len(path.read_text()) // 2 if path.exists() else 0


@contextlib.contextmanager
def peer(endpoint: Endpoint) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((endpoint.host, endpoint.port))
        sock.settimeout(10)
        yield sock


@pytest.mark.parametrize("seed", range(4))
def test_over_a_lossy_network_a_command_runs_once_and_arrives_whole(
    folder: Path, seed: int
) -> None:
    with serving(folder) as (_, endpoint), Lossy(endpoint, seed) as network:
        done = finish(*asking(folder, network.endpoint, "mark"))
        assert (done.returncode, done.stdout == SEQ, marks(folder)) == (10, True, 1)
        assert network.lost > 0


def test_where_nearly_nothing_arrives_a_command_never_runs_twice(folder: Path) -> None:
    with serving(folder) as (_, endpoint), Lossy(endpoint, 7, loss=0.8) as network:
        done = finish(*asking(folder, network.endpoint, "--timeout", 2, "mark"))
        assert done.returncode in (4, 6, 10)
        assert marks(folder) <= 1
        assert done.stderr.count("\n") == 1


def test_where_nothing_arrives_the_client_gives_up_in_time(folder: Path) -> None:
    with serving(folder) as (_, endpoint), Lossy(endpoint, 0, loss=1.0) as network:
        done = finish(*asking(folder, network.endpoint, "--timeout", 0.5, "mark"))
    assert (done.returncode, done.stdout, marks(folder)) == (4, "", 0)
    assert "no answer within 0.5 s" in done.stderr


def test_a_killed_server_is_an_unknown_outcome_and_no_second_run(
    folder: Path,
) -> None:
    with contextlib.ExitStack() as stack:
        first, endpoint = stack.enter_context(serving(folder))
        client = stack.enter_context(running(*asking(folder, endpoint, "slow")))
        eventually((folder / "started").exists, "the command")
        first.process.kill()
        first.process.wait()
        stack.callback(end_group_of, folder)
        stack.enter_context(serving(folder, endpoint.port))
        code, _, said = client.end(None)
        assert code == 6
        assert "admitted the command and has no record of it" in said
        assert marks(folder) == 1


def end_group_of(folder: Path) -> None:
    """A server killed by SIGKILL leaves its command behind; this ends it, found by its folder."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (path / "cmdline").read_bytes():
                os.killpg(int(path.name), signal.SIGKILL)


def test_a_server_that_comes_up_while_the_client_asks_is_not_missed(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        endpoint = Endpoint("udp", *sock.getsockname())
    with (
        Lossy(endpoint, 1, loss=0) as network,
        running(*asking(folder, network.endpoint, "mark")) as client,
    ):
        eventually(lambda: network.backs, "the first datagram")
        with serving(folder, endpoint.port):
            code, out, _ = client.end(None)
    assert (code, out == SEQ, marks(folder)) == (10, True, 1)


def test_a_replayed_exchange_runs_nothing_nor_after_a_restart(
    folder: Path,
) -> None:
    recorded: list[bytes] = []
    with serving(folder) as (server, endpoint), peer(endpoint) as sock:
        ours = ExecClientProtocol(["mark"], "alice", SECRETS["alice"], os.urandom(16), now_us())
        while not ours.is_over:
            recorded.append(ours.next_datagram())
            sock.send(recorded[-1])
            ours.receive_datagram(sock.recv(2000))
            while not (ours.is_due or ours.is_over):
                ours.receive_datagram(sock.recv(2000))
        assert marks(folder) == 1
        with peer(endpoint) as thief:
            for datagram in recorded:
                thief.send(datagram)
                assert thief.recv(2000)[4] == wire.CHALLENGE
        for datagram in recorded[1:]:
            sock.send(datagram)
        still_serves(folder, endpoint)
        server.end()
    with serving(folder, endpoint.port) as (server, endpoint), peer(endpoint) as thief:
        for datagram in recorded:
            thief.send(datagram)
            assert thief.recv(2000)[4] == wire.CHALLENGE
        assert marks(folder) == 2  # the second one is that of still_serves
        assert "0 ran" in server.end()[1]


def now_us() -> int:
    return time.time_ns() // 1000


def still_serves(folder: Path, endpoint: Endpoint) -> None:
    done = finish(*asking(folder, endpoint, "mark"))
    assert (done.returncode, done.stdout == SEQ) == (10, True), done.stderr


def test_a_flood_of_junk_and_forgeries_does_not_disturb_clients(folder: Path) -> None:
    with serving(folder) as (server, endpoint), peer(endpoint) as sock:
        forged = ExecClientProtocol(["mark"], "alice", bytes(32), os.urandom(16), now_us())
        unvalidated = ExecClientProtocol(
            ["mark"], "alice", SECRETS["alice"], os.urandom(16), now_us()
        )
        sent = [0, 0]
        sock.setblocking(False)

        def flood() -> None:
            whole = unvalidated.next_datagram()
            for datagram in (
                os.urandom(100),
                b"",
                bytes(60000),
                forged.next_datagram(),
                whole,
                whole[:40],
                b"uptime\0\0",
            ):
                with contextlib.suppress(OSError):
                    sent[0] += sock.send(datagram)
                with contextlib.suppress(OSError):
                    sent[1] += len(sock.recv(2000))

        with while_flooded(flood, 60):
            done = [finish(*asking(folder, endpoint, "mark")) for _ in range(3)]
        assert [each.returncode for each in done] == [10, 10, 10]
        assert all(each.stdout == SEQ for each in done)
        assert sent[1] < sent[0]
        memory = int(
            re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())[0]
        )
        assert memory < 100_000
        log = server.end()
        assert "3 ran, 0 refused" in log[1]
        assert len(log[2].splitlines()) < 12, "a flood does not fill the log"
        assert marks(folder) == 3


@pytest.mark.parametrize("port", [19, 1023])
def test_a_port_of_a_service_is_not_answered(folder: Path, port: int) -> None:
    with (
        serving(folder) as (server, endpoint),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as low,
    ):
        try:
            low.bind(("127.0.0.2", port))
        except PermissionError:
            pytest.skip("ports below 1024 need privilege here")
        ours = ExecClientProtocol(["mark"], "alice", SECRETS["alice"], os.urandom(16), now_us())
        low.sendto(ours.next_datagram(), (endpoint.host, endpoint.port))
        still_serves(folder, endpoint)
        low.setblocking(False)
        with pytest.raises(BlockingIOError):
            low.recv(2000)
        assert "1 ignored" in server.end()[1]


def test_a_peer_that_reads_no_reply_delays_no_other_client(folder: Path) -> None:
    with serving(folder) as (_, endpoint):
        with peer(endpoint) as sock:
            ours = ExecClientProtocol(["mark"], "alice", SECRETS["alice"], os.urandom(16), now_us())
            for _ in range(2):
                sock.send(ours.next_datagram())
                ours.receive_datagram(sock.recv(2000))
            while not ours.has_ended:
                ours.receive_datagram(sock.recv(2000))
            for _ in range(50):
                sock.send(ours.next_datagram(timed_out=True))
        still_serves(folder, endpoint)


def test_clients_at_the_same_time_each_get_their_own(folder: Path) -> None:
    with serving(folder) as (server, endpoint), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(running(*asking(folder, endpoint, "mark"))) for _ in range(6)
        ]
        ends = [client.end(None) for client in clients]
        assert [(code, out == SEQ) for code, out, _ in ends] == [(10, True)] * 6
        assert marks(folder) == 6
        assert "6 ran, 0 refused" in server.end()[1]


def test_no_datagram_of_a_whole_conversation_needs_to_be_cut_up(folder: Path) -> None:
    with serving(folder) as (_, endpoint), peer(endpoint) as sock:
        ours, sizes = (
            ExecClientProtocol(["mark"], "alice", SECRETS["alice"], os.urandom(16), now_us()),
            [],
        )
        while not ours.is_over:
            sizes.append(sock.send(ours.next_datagram()))
            while not (ours.is_due or ours.is_over):
                reply = sock.recv(65536)
                sizes.append(len(reply))
                ours.receive_datagram(reply)
        assert max(sizes) <= EXEC_DATAGRAM_BYTES_MAX
