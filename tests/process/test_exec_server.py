"""`fastnet exec serve`: what it needs to start, what signals do, and the record it keeps."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_process import (
    ENVIRONMENT,
    ROOT,
    daemon,
    eventually,
    finish,
    is_alive,
    running,
)
from tests.support.exec import (
    AS_ROOT,
    Offer,
    Remote,
    offering,
    serving,
    shell,
    write_keys,
    write_policy,
)


@pytest.fixture
def offer(tmp_path: Path) -> Iterator[Offer]:
    with offering(tmp_path) as start:
        yield start


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to see root refused")
def test_root_is_refused_without_allow_root(tmp_path: Path) -> None:
    words = [word for word in serving(tmp_path, it=shell("true")) if word != "--allow-root"]
    done = finish(*words)
    assert done.returncode == 3
    assert "does not run as root" in done.stderr


def test_without_keys_nothing_starts(tmp_path: Path) -> None:
    words = serving(tmp_path, it=shell("true"))
    (tmp_path / "keys").write_text("# no key\n")
    done = finish(*words)
    assert done.returncode == 3
    assert (
        "holds no key, and without one no client is admitted. Make one: (umask 077;" in done.stderr
    )
    (tmp_path / "keys").unlink()
    assert finish(*words).returncode == 3
    done = finish(*words, "--keys", tmp_path / "no" / "keys")
    assert (
        f"Make one: (umask 077; mkdir -p {tmp_path}/no; "
        f"fastnet exec key NAME >> {tmp_path}/no/keys)" in done.stderr
    )


def test_without_an_allow_file_nothing_starts(tmp_path: Path) -> None:
    done = finish("exec", "serve", *AS_ROOT, "--keys", write_keys(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "--allow-file" in done.stderr


def test_a_new_key_is_one_the_server_takes(offer: Offer, tmp_path: Path) -> None:
    remote = offer(it=shell("echo yes"))
    line = finish("exec", "key", "carol").stdout
    (tmp_path / "keys").write_text(line)
    remote.server.send(signal.SIGHUP)
    remote.server.line("err", "read 1 keys")
    assert remote.run("it").stdout == "yes\n"


def test_sighup_reads_keys_and_commands_anew_and_a_mistake_changes_nothing(
    offer: Offer, tmp_path: Path
) -> None:
    remote = offer(one=shell("echo 1"))
    write_policy(tmp_path, two=shell("echo 2"))
    remote.server.send(signal.SIGHUP)
    remote.server.line("err", "read 2 keys and 1 commands")
    assert remote.run("one").returncode == 5
    assert remote.run("two").stdout == "2\n"
    (tmp_path / "commands.toml").write_text("[command.three]\n")
    remote.server.send(signal.SIGHUP)
    line = remote.server.line("err", "stay as they were: ")
    assert "command.three.argv is missing" in line
    assert remote.run("two").stdout == "2\n"


def test_a_stopped_server_lets_a_command_end_and_its_result_be_fetched(
    offer: Offer, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    script = f"echo > {tmp_path}/started; read line < {tmp_path}/go; seq 10000"
    remote = offer(it=shell(script), drain=shell("true"))
    with running(*remote.run_argv("it")) as client:
        eventually((tmp_path / "started").exists, "the command")
        remote.server.send(signal.SIGTERM)
        remote.server.line("err", "waiting for 1 command for up to 5 s")
        assert "the server is ending" in remote.run("drain").stderr
        (tmp_path / "go").write_text("now\n")
        code, out, _ = client.end(None)
    assert (code, out) == (0, "".join(f"{i}\n" for i in range(1, 10001)))
    code, out, _ = remote.server.end(None)
    assert code == 0
    assert "stopped exec on udp://127.0.0.1:" in out
    assert "1 ran, 1 refused" in out


def test_a_second_signal_kills_what_runs_and_the_client_is_told(
    offer: Offer, tmp_path: Path
) -> None:
    remote = offer(
        "--drain", 60, it=shell(f"echo $$ > {tmp_path}/pid; exec sleep 60", time_limit_s=60)
    )
    with running(*remote.run_argv("it")) as client:
        pid = int(
            eventually(
                lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(),
                "the command",
            )
        )
        remote.server.send(signal.SIGTERM)
        remote.server.line("err", "waiting for 1 command")
        code, _, log = remote.server.end(signal.SIGTERM)
        assert code == 130
        assert "exec it by alice from" in log
        assert "killed by SIGKILL" in log
        assert not is_alive(pid)
        assert client.end(None)[0] == 9


def test_a_log_line_is_one_line_whatever_the_arguments_hold(offer: Offer) -> None:
    remote = offer(it={"argv": ["/bin/true", "{1}"], "arguments": ["(?s).*"]})
    assert remote.run("it", "a\n2026-01-01 forged \x1b[2J\u202e").returncode == 0
    line = remote.server.line("err", "exec it")
    assert r"'a\n2026-01-01 forged \x1b[2J\u202e' by alice from" in line


def test_the_log_file_has_a_line_an_execution_as_json(offer: Offer, tmp_path: Path) -> None:
    remote = offer("--log-file", tmp_path / "log", "--log-format", "json", it=shell("echo 12345"))
    remote.run("it")
    remote.server.end()
    lines = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    (line,) = [line for line in lines if line.startswith("exec ")]
    assert re.fullmatch(
        r"exec it by alice from 127\.0\.0\.1:\d+: exited with status 0, 6 bytes, 0\.\d+ s", line
    )


def test_a_daemon_needs_a_log_file_for_its_record(tmp_path: Path) -> None:
    done = finish(*serving(tmp_path, "--daemon", it=shell("true")))
    assert done.returncode == 3
    assert "--log-file" in done.stderr


def test_events_are_json_when_asked(offer: Offer, tmp_path: Path) -> None:
    with running(*serving(tmp_path, "--json", it=shell("true"))) as server:
        event = server.event()
        assert (event["event"], event["commands"], event["keys"]) == (
            "listening",
            ["it"],
            ["alice", "bob"],
        )
        code, out, _ = server.end()
    assert (code, json.loads(out)["event"]) == (0, "stopped")


@pytest.mark.parametrize(
    "arguments", [["exec"], ["exec", "serve"], ["exec", "run"], ["exec", "key"]], ids=" ".join
)
def test_each_command_explains_itself(arguments: list[str]) -> None:
    done = finish(*arguments, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: fastnet exec")


def test_the_allow_file_of_the_document_is_one_the_server_takes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "exec.md").read_text(), re.DOTALL)
    words = serving(tmp_path, it=shell("true"))
    (tmp_path / "commands.toml").write_text(
        text.replace('user = "backup"\n', "").replace('"ops"', '"bob"')
    )
    with running(*words) as server:
        assert "commands: backup, disk" in server.line()
        assert server.end()[0] == 0


@pytest.mark.parametrize(
    ("options", "answered"), [(["--deny", "127.0.0.0/8"], False), (["--allow", "127.0.0.1"], True)]
)
def test_networks_are_let_in_or_not(offer: Offer, options: list[str], answered: bool) -> None:
    remote = offer(*options, it=shell("true"))
    assert remote.run("--timeout", 20 if answered else 0.5, "it").returncode == (
        0 if answered else 4
    )
    assert ("ignored" in remote.server.end()[1]) is not answered


def test_a_second_server_on_the_port_or_the_nonces_does_not_start(
    offer: Offer, tmp_path: Path
) -> None:
    remote = offer(it=shell("true"))
    words = serving(tmp_path, it=shell("true"))
    done = finish(*words)
    assert done.returncode == 3
    assert "another server keeps its nonces in" in done.stderr
    done = finish(*words, "--port", remote.endpoint.port, "--nonces", tmp_path / "others")
    assert done.returncode == 4
    assert "address already in use" in done.stderr


def test_a_daemon_serves_and_keeps_its_record(tmp_path: Path) -> None:
    words = serving(tmp_path, "--log-file", tmp_path / "log", it=shell("echo yes"))
    with daemon(tmp_path / "pid", *words) as (pid, said):
        endpoint = said.split()[2]
        done = finish("exec", "run", "--server", endpoint, "--keys", tmp_path / "keys", "it")
        assert (done.returncode, done.stdout) == (0, "yes\n")
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not is_alive(pid), "the end of the daemon")
    assert "exec it by alice from 127.0.0.1:" in (tmp_path / "log").read_text()


def test_sigusr1_logs_the_statistics(offer: Offer) -> None:
    remote = offer(it=shell("true"))
    remote.run("it")
    remote.server.send(signal.SIGUSR1)
    assert "1 ran, 0 refused; " in remote.server.line("err", "exec on udp://")


def test_a_server_short_of_descriptors_says_so_and_serves_on(offer: Offer) -> None:
    remote = offer(it=shell("echo yes"))
    full = resource.prlimit(remote.server.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{remote.server.pid}/fd"))
    for spare in range(1, 8):
        resource.prlimit(remote.server.pid, resource.RLIMIT_NOFILE, (used + spare, full[1]))
        code, document = remote.json("it")
        assert (code, document["outcome"]) in ((11, "not started"), (0, "exited"))
    resource.prlimit(remote.server.pid, resource.RLIMIT_NOFILE, full)
    assert remote.run("it").stdout == "yes\n"
    assert len(os.listdir(f"/proc/{remote.server.pid}/fd")) == used


def test_arguments_are_utf8_whatever_the_locale_of_the_server(tmp_path: Path) -> None:
    words = serving(tmp_path, it={"argv": ["/bin/echo", "{1}"], "arguments": [".*"]})
    environment = ENVIRONMENT | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with running(*words, env=environment) as server:
        done = Remote(server, tmp_path / "keys").run("it", "grüße 世界")
        assert (done.returncode, done.stdout) == (0, "grüße 世界\n")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_counters_are_shown_to_prometheus(tmp_path: Path, how: str) -> None:
    words = serving(tmp_path, "--json", it=shell("true"))
    where = {"env": ENVIRONMENT | {"FASTNET_METRICS": "0"}} if how == "environment" else {}
    with running(*words, *(["--metrics", 0] if how == "option" else []), **where) as server:
        event = server.event()
        remote = finish(
            "exec", "run", "--server", event["endpoint"], "--keys", tmp_path / "keys", "it"
        )
        assert remote.returncode == 0
        with urllib.request.urlopen(event["metrics"], timeout=10) as answer:
            page = answer.read().decode()
        labels = f'{{service="exec",endpoint="{event["endpoint"]}"}}'
        assert f"fastnet_exec_ran_total{labels} 1\n" in page
        assert f"fastnet_exec_refused_total{labels} 0\n" in page
        assert (
            "# HELP fastnet_exec_unauthenticated_total "
            "Requests that no key of this server authenticates.\n" in page
        )
        assert server.end()[0] == 0


def test_what_cannot_be_logged_does_not_run(offer: Offer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 99_999 + "\n")
    remote = offer("--log-file", log, it=shell(f"echo x >> {tmp_path}/marks"))
    full = resource.prlimit(
        remote.server.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY)
    )
    assert remote.run("it").returncode == 0, "the log was not full yet"
    for _ in range(2):
        done = remote.run("it")
        assert done.returncode == 5
        assert "could not write its log, and runs nothing without a record" in done.stderr
    resource.prlimit(remote.server.pid, resource.RLIMIT_FSIZE, full)
    assert [remote.run("it").returncode for _ in range(2)] == [5, 0]
    assert (tmp_path / "marks").read_text() == "x\n" * 2


def test_removed_nonces_are_written_again_and_foreign_files_left_alone(
    offer: Offer, tmp_path: Path
) -> None:
    remote, nonces = offer(it=shell("true")), tmp_path / "nonces"
    assert remote.run("it").returncode == 0
    nonces.unlink()
    assert remote.run("it").returncode == 0
    assert len(nonces.read_text().splitlines()) == 2
    nonces.unlink()
    with running(*serving(tmp_path, it=shell("true"))) as server:
        second = Remote(server, tmp_path / "keys")
        assert second.run("it").returncode == 0
        done = remote.run("it")
        assert (done.returncode, "the server cannot write its nonces" in done.stderr) == (5, True)
        assert "another file has its place; restart this server" in remote.server.line(
            "err", "nonces"
        )
        assert second.run("it").returncode == 0
        assert len(nonces.read_text().splitlines()) == 2
