"""`fastnet up FILE`: what a file of services starts, and how it is refused."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from tests.support.cli_process import ROOT, connect, echoes, finish, read_all, running

ECHO = '[[server]]\nservice = "echo"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "services.toml"
    path.write_text(text)
    return path


def test_all_servers_of_a_file_start_and_stop_together(tmp_path: Path) -> None:
    text = (
        ECHO
        + 'suffix = "!"\n'
        + '[[server]]\nservice = "daytime"\nengine = "thread"\nbackend = "python"\n'
    )
    with running("up", written(tmp_path, text)) as servers:
        echo, daytime = servers.endpoint(), servers.endpoint()
        with connect(echo) as sock:
            assert echoes(sock, b"") or True
            sock.sendall(b"a")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"a!"
        with connect(daytime) as sock:
            assert len(read_all(sock)) > 10
        code, out, _ = servers.end(signal.SIGTERM)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["stopped", "echo"],
        ["stopped", "daytime"],
    ]


def test_each_server_drains_for_its_own_time(tmp_path: Path) -> None:
    text = ECHO + "drain = 0.1\n" + '[[server]]\nservice = "echo"\ndrain = 3600\n'
    with running("up", written(tmp_path, text)) as servers:
        short, long = servers.endpoint(), servers.endpoint()
        with connect(short) as impatient, connect(long) as patient:
            assert echoes(impatient, b"x")
            assert echoes(patient, b"x")
            servers.send(signal.SIGTERM)
            assert impatient.recv(1) == b""
            assert echoes(patient, b"still served")
        code, out, _ = servers.end(None)
    assert code == 0
    assert "closed: 1 stopped" in out
    assert "closed: 1 finished" in out


def test_if_one_cannot_start_none_does(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        paths = [tmp_path / "a", tmp_path / "b"]
        text = "".join(f'{ECHO}unix = "{path}"\n' for path in paths) + f"{ECHO}port = {port}\n"
        failed = finish("up", written(tmp_path, text))
    assert failed.returncode == 4
    assert failed.stdout == ""
    assert f"cannot listen on tcp://127.0.0.1:{port}: address already in use" in failed.stderr
    assert not any(path.exists() for path in paths)


REFUSED = {
    "unknown key": (
        ECHO + "prot = 1\n",
        "[[server]] number 1: unknown option 'prot'. Did you mean 'port'?",
    ),
    "second table": (
        ECHO + ECHO + "port = true\n",
        "[[server]] number 2: port = True is not a whole number",
    ),
    "wrong type": (
        ECHO + 'port = "80"\n',
        "[[server]] number 1: port = '80' is not a whole number",
    ),
    "wrong list": (
        ECHO + "allow = [1]\n",
        "[[server]] number 1: allow = (1,) is not a list of texts",
    ),
    "wrong value": (ECHO + 'engine = "magic"\n', "engine cannot be 'magic'. It is one of: auto, "),
    "out of range": (ECHO + "port = 70000\n", "[[server]] number 1: port 70000 is out of range"),
    "no service": ("[[server]]\nport = 1\n", "[[server]] number 1: service is missing"),
    "bad service": (
        '[[server]]\nservice = "ecko"\n',
        "number 1: there is no service 'ecko'. There are: echo",
    ),
    "service of its own": (
        '[[server]]\nservice = "chat"\n',
        "`fastnet chat serve` and `fastnet exec serve` are commands",
    ),
    "service table": (
        "[[server]]\nservice = {a = 1}\n",
        "[[server]] number 1: there is no service",
    ),
    "one bracket": (
        '[server]\nservice = "echo"\n',
        "server is not a list of tables. Write [[server]]",
    ),
    "no server": ("[process]\n", "there is no server in it"),
    "unknown table": (
        "[proces]\n" + ECHO,
        "unknown table or key 'proces'. Did you mean 'process'?",
    ),
    "process key": (
        "[process]\nlog_levle = 1\n" + ECHO,
        "[process]: unknown option 'log_levle'. Did you mean 'log_level'?",
    ),
    "process value": (
        '[process]\nlog_level = "loud"\n' + ECHO,
        "[process]: log_level cannot be 'loud'",
    ),
    "process text": ("process = 1\n", "process is not a table"),
    "not TOML": ("[[server]\n", "not TOML: "),
    "one port": (
        ECHO + "port = 7\n" + ECHO + "port = 7\n",
        "numbers 1 and 2 both listen on tcp://127.0.0.1:7",
    ),
    "one address": (
        ECHO + 'host = "localhost"\nport = 7\n' + ECHO + 'host = "127.0.0.1"\nport = 7\n',
        "numbers 1 and 2 both listen on tcp://localhost:7, the latter as tcp://127.0.0.1:7. "
        "Give one of them another port",
    ),
    "shared by one": (
        ECHO
        + "port = 7\nworkers = 2\n"
        + ECHO
        + 'host = "localhost"\nport = 7\nreuse_port = true\n',
        "numbers 1 and 2 both listen on tcp://127.0.0.1:7, the latter as tcp://localhost:7",
    ),
    "every address": (
        ECHO + 'host = ""\nport = 7\n' + ECHO + "port = 7\n",
        "numbers 1 and 2 both listen on tcp://:7, the latter as tcp://127.0.0.1:7",
    ),
    "every address of a family": (
        ECHO
        + "udp = true\nport = 7\n"
        + ECHO
        + "port = 7\n"
        + ECHO
        + 'udp = true\nhost = "0.0.0.0"\nport = 7\n',
        "numbers 1 and 3 both listen on udp://127.0.0.1:7, the latter as udp://0.0.0.0:7",
    ),
    "one file": (
        ECHO + 'unix = "a"\n' + ECHO + f'unix = "../{ROOT.name}/./a"\nudp = true\n',
        "numbers 1 and 2 both listen on unix:a, the latter as unixgram:",
    ),
    "one path": (
        ECHO + 'unix = "a"\n' + ECHO + ECHO + 'unix = "a"\n',
        "numbers 1 and 3 both listen on unix:a",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_in_a_file_is_one_line_with_file_table_and_key(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = written(tmp_path, text)
    failed = finish("up", path)
    assert failed.returncode == 3
    assert failed.stderr.startswith(f"fastnet: {path}: ")
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_neighbours_are_no_clash(tmp_path: Path) -> None:
    """One port of both protocols, two addresses, a name of two kinds.

    Port 0 is a new one each time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    more = (
        f"port = {port}",
        f"port = {port}\nudp = true",
        f'port = {port}\nhost = "127.0.0.2"',
        "",
        "",
        f'unix = "{tmp_path}/s"',
        f'unix = "@{tmp_path}/s"',
        f'unix = "@{tmp_path}/s"\nudp = true',
    )
    with running("up", written(tmp_path, "".join(f"{ECHO}{each}\n" for each in more))) as servers:
        for _ in more:
            servers.line(containing="listening on ")
        assert servers.end()[0] == 0


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = " + b"[" * 100_000], ids=["not UTF-8", "deep"]
)
def test_bytes_that_are_no_toml_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "services.toml"
    path.write_bytes(content)
    failed = finish("up", path)
    assert failed.returncode == 3
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["missing.toml", "."], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    failed = finish("up", tmp_path / name)
    assert failed.returncode == 3
    assert failed.stderr.startswith(f"fastnet: cannot read {tmp_path / name}: ")


def test_typed_options_win_over_the_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = written(
        tmp_path, f'[process]\nlog_file = "/no/such/folder/x"\nlog_format = "json"\n{ECHO}'
    )
    with running("up", path, "--log-file", log) as server:
        server.endpoint()
        server.end()
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_the_documented_example_starts(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "example.toml").read_text()
    for port in ("7007", "7009", "7019", "127.0.0.1:7090"):
        assert text.count(f"port = {port}\n") + text.count(f'"{port}"') == 1
        text = text.replace(f"port = {port}\n", "port = 0\n").replace(f'"{port}"', '"127.0.0.1:0"')
    with running(
        "up", written(tmp_path, text.replace("@fastnet", f"@{tmp_path.name}-fastnet"))
    ) as servers:
        found = [Endpoint.parse(servers.line(containing="listening").split()[2]) for _ in range(4)]
        assert servers.line().startswith("metrics on http://127.0.0.1:")
        with connect(found[0]) as sock:
            assert echoes(sock, b"x")
        with connect(found[3]) as sock:
            assert read_all(sock)
        assert servers.end()[0] == 0
