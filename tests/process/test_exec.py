"""`fastnet exec serve` and `fastnet exec run` as real processes: what runs, how it ends, and what each side says of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commanding import AS_ROOT, shell, write_keys, write_policy
from tests.commands import ENVIRONMENT, ROOT, Running, eventually, fastnet, finish, is_alive, running


class Remote:
    """A server of these commands, and its client."""

    def __init__(self, folder: Path, server: Running, keys: Path) -> None:
        self.folder, self.server, self.keys = folder, server, keys
        self.endpoint = server.endpoint()

    def run(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        return finish("exec", "run", "--server", self.endpoint, "--keys", self.keys, *arguments, **more)

    def json(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        done = self.run("--json", *arguments)
        return done.returncode, json.loads(done.stdout)


Serve = Callable[..., Remote]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(*options: object, **commands: dict[str, object]) -> Remote:
            words = serving(tmp_path, *options, **commands)
            return Remote(tmp_path, stack.enter_context(running(*words)), tmp_path / "keys")

        yield start


def serving(folder: Path, *options: object, **commands: dict[str, object]) -> list[object]:
    files = [
        "--allow-file",
        write_policy(folder, **commands),
        "--keys",
        write_keys(folder),
        "--nonces",
        folder / "nonces",
    ]
    return ["exec", "serve", "--port", 0, *files, *AS_ROOT, *options]


def test_a_command_runs_and_its_output_is_ours(serve: Serve) -> None:
    remote = serve(greet={"argv": ["/bin/echo", "hello", "{1}"], "arguments": [".*"]})
    done = remote.run("greet", "big; world")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello big; world\n", "")


def test_both_streams_arrive_each_where_it_belongs(serve: Serve) -> None:
    done = serve(two=shell("echo out; echo err >&2")).run("two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_what_follows_the_name_is_the_commands_even_with_dashes(serve: Serve) -> None:
    remote = serve(echo={"argv": ["/bin/echo", "{1}"], "arguments": [".*"], "dashes": True})
    assert remote.run("echo", "--timeout").stdout == "--timeout\n"


def test_binary_output_is_not_touched(serve: Serve, tmp_path: Path) -> None:
    remote = serve(noise=shell(f"head -c 100000 /dev/urandom | tee {tmp_path}/copy", output_bytes_max=100_000))
    code, document = remote.json("noise")
    assert code == 0
    assert base64.b64decode(document["output_base64"]) == (tmp_path / "copy").read_bytes()
    with open(tmp_path / "got", "wb") as target:
        words = fastnet("exec", "run", "--server", remote.endpoint, "--keys", remote.keys, "noise")
        subprocess.run(words, stdout=target, env=ENVIRONMENT, check=True, timeout=30)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "copy").read_bytes()


ENDS = {
    "exited": ("exit 0", 0, {"outcome": "exited", "status": 0, "signal": None}),
    "failed": ("echo x; exit 3", 10, {"outcome": "exited", "status": 3, "signal": None, "output": "x\n"}),
    "killed": ("echo x; kill -SEGV $$", 9, {"outcome": "killed", "status": None, "signal": "SIGSEGV", "output": "x\n"}),
    "timed out": ("echo x; exec sleep 60", 8, {"outcome": "timed out", "status": None, "output": "x\n"}),
    "deaf": ("trap '' TERM; echo x; while :; do sleep 1; done", 8, {"outcome": "timed out", "output": "x\n"}),
    "not started": (None, 11, {"outcome": "not started", "output": ""}),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_has_its_own_exit_code_and_document(serve: Serve, end: str, tmp_path: Path) -> None:
    script, code, said = ENDS[end]
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    table = shell(script) if script else {"argv": [str(broken)]}
    remote = serve(it=table | {"time_limit_s": 0.3})
    found, document = remote.json("it")
    assert (found, {name: document[name] for name in said}) == (code, said)
    line = remote.server.line("err", "exec it by alice from 127.0.0.1:")
    words = {
        0: "exited with status 0",
        10: "exited with status 3",
        9: "killed by SIGSEGV",
        8: "killed at its time limit",
    }
    assert words.get(code, "not started: no such file or directory") in line


def test_an_end_that_is_not_good_is_told_in_words(serve: Serve) -> None:
    done = serve(it=shell("exit 3")).run("it")
    assert done.returncode == 10
    assert re.fullmatch(
        r"fastnet: it on udp://127\.0\.0\.1:\d+: exited with status 3, 0 bytes, 0\.\d+ s\n", done.stderr
    )


def test_everything_a_command_started_is_gone_at_its_time_limit(serve: Serve, tmp_path: Path) -> None:
    script = f"sleep 61 & echo $! > {tmp_path}/child; sleep 62"
    assert serve(it=shell(script, time_limit_s=0.5)).run("it").returncode == 8
    eventually(lambda: not is_alive(int((tmp_path / "child").read_text())), "the end of the child")


def test_what_a_command_leaves_behind_is_gone_when_it_ends_and_delays_nobody(serve: Serve, tmp_path: Path) -> None:
    script = f"sleep 63 & echo $! > {tmp_path}/child; echo out"
    done = serve(it=shell(script, time_limit_s=50)).run("it")
    assert (done.returncode, done.stdout) == (0, "out\n")
    eventually(lambda: not is_alive(int((tmp_path / "child").read_text())), "the end of the child")


def test_output_beyond_the_limit_is_cut_and_said_and_the_status_is_the_commands_own(serve: Serve) -> None:
    remote = serve(flood=shell("head -c 10000000 /dev/zero | tr '\\0' a; echo e >&2; exit 4", output_bytes_max=5000))
    code, document = remote.json("flood")
    assert (code, document["status"], document["output"]) == (10, 4, "a" * 5000)
    assert (document["output_cut"], document["error_cut"], document["error"]) == (True, True, "")
    assert "5000 bytes (cut)" in remote.run("flood").stderr


def test_an_endless_writer_ends_at_its_time_limit_in_bounded_memory(serve: Serve) -> None:
    remote = serve(yes={"argv": ["/usr/bin/yes"], "time_limit_s": 1, "output_bytes_max": 1000})
    done = remote.run("yes")
    assert (done.returncode, done.stdout) == (8, "y\n" * 500)
    status = Path(f"/proc/{remote.server.pid}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 100_000


def test_a_command_gets_its_own_environment_folder_and_input(serve: Serve) -> None:
    table = {"argv": ["/usr/bin/env"], "environment": {"A": "1 2"}}
    remote = serve(env=table, pwd={"argv": ["/bin/pwd"], "directory": "/usr"}, cat={"argv": ["/bin/cat"]})
    assert remote.run("env").stdout.split("\n") == ["PATH=/usr/local/bin:/usr/bin:/bin", "A=1 2", ""]
    assert remote.run("pwd").stdout == "/usr\n"
    assert (remote.run("cat").returncode, remote.run("cat").stdout) == (0, "")


def test_a_command_holds_nothing_of_the_servers(serve: Serve) -> None:
    done = serve(it=shell("ls /proc/self/fd; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leads")).run("it")
    assert done.stdout.split() == ["0", "1", "2", "3", "leads"]  # 3 is the listing's own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as another user")
def test_a_command_runs_as_its_user_with_the_groups_of_that_user(serve: Serve) -> None:
    nobody = pwd.getpwnam("nobody")
    remote = serve(who=shell("id -u; id -G", user="nobody"), mine=shell("id -u"))
    groups = " ".join(map(str, sorted(os.getgrouplist("nobody", nobody.pw_gid))))
    assert remote.run("who").stdout == f"{nobody.pw_uid}\n{groups}\n"
    assert "these commands run as root: mine" in remote.server.line("err", "run as root")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to see root refused")
def test_root_is_refused_without_allow_root(tmp_path: Path) -> None:
    words = [word for word in serving(tmp_path, it=shell("true")) if word != "--allow-root"]
    done = finish(*words)
    assert done.returncode == 3
    assert "does not run as root" in done.stderr


def test_without_keys_nothing_starts(tmp_path: Path) -> None:
    words = serving(tmp_path, it=shell("true"))
    (tmp_path / "keys").write_text("# nobody\n")
    done = finish(*words)
    assert done.returncode == 3
    assert "holds no key, and without keys nobody may run anything. Make one: (umask 077;" in done.stderr
    (tmp_path / "keys").unlink()
    assert finish(*words).returncode == 3


def test_without_an_allow_file_nothing_starts(tmp_path: Path) -> None:
    done = finish("exec", "serve", *AS_ROOT, "--keys", write_keys(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "--allow-file" in done.stderr


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["nothing"], "there is no command 'nothing' here", "command"),
        (["one", "b"], "argument 1 of one does not match a", "arguments"),
        (["one"], "one takes 1 argument, not 0", "arguments"),
        (["bobs"], "alice may not run bobs", "key"),
    ],
)
def test_what_is_denied_says_why_and_is_logged(serve: Serve, words: list[str], said: str, code: str) -> None:
    table = {"argv": ["/bin/echo", "{1}"], "arguments": ["a"]}
    remote = serve(one=table, bobs=shell("true", keys=["bob"]))
    done = remote.run(*words)
    assert (done.returncode, done.stdout) == (5, "")
    assert said in done.stderr
    assert said in remote.server.line("err", "refused")
    assert remote.json(*words)[1]["code"] == code


def test_a_second_run_at_the_same_time_is_busy(serve: Serve, tmp_path: Path) -> None:
    remote = serve(wait=shell(f"echo > {tmp_path}/started; sleep 60", time_limit_s=60))
    with running("exec", "run", "--server", remote.endpoint, "--keys", remote.keys, "wait") as first:
        eventually((tmp_path / "started").exists, "the first run")
        done = remote.run("wait")
        assert done.returncode == 5
        assert "wait runs 1 times already" in done.stderr
        assert first.end(signal.SIGINT)[0] == 130


def test_a_wrong_key_is_not_answered_and_the_client_guesses_why(serve: Serve, tmp_path: Path) -> None:
    remote = serve(it=shell("true"))
    other = tmp_path / "other"
    other.write_text("alice " + "ff" * 32)
    other.chmod(0o600)
    done = remote.run("--keys", other, "--timeout", 0.5, "it")
    assert done.returncode == 4
    assert "no answer within 0.5 s; something there does not know the key 'alice'" in done.stderr
    assert "no key of ours signed; the last from 127.0.0.1:" in remote.server.line("err", "signed")


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = finish("exec", "run", "--server", f"127.0.0.1:{port}", "--keys", write_keys(tmp_path), "it")
    assert done.returncode == 4
    assert "connection refused. Nothing listens there" in done.stderr


def test_a_new_key_is_one_the_server_takes(serve: Serve, tmp_path: Path) -> None:
    remote = serve(it=shell("echo yes"))
    line = finish("exec", "key", "carol").stdout
    (tmp_path / "keys").write_text(line)
    remote.server.send(signal.SIGHUP)
    remote.server.line("err", "read anew: 1 keys")
    assert remote.run("it").stdout == "yes\n"


def test_the_second_key_of_a_file_is_taken_by_name(serve: Serve) -> None:
    remote = serve(it=shell("true"))
    assert remote.run("--key", "bob", "it").returncode == 0
    assert remote.server.line("err", "exec it by bob from")
    done = remote.run("--key", "carol", "it")
    assert done.returncode == 3
    assert "has no key 'carol'. It has: alice, bob" in done.stderr


def test_sighup_reads_keys_and_commands_anew_and_a_mistake_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    remote = serve(one=shell("echo 1"))
    write_policy(tmp_path, two=shell("echo 2"))
    remote.server.send(signal.SIGHUP)
    remote.server.line("err", "SIGHUP: read anew: 2 keys, 1 commands")
    assert remote.run("one").returncode == 5
    assert remote.run("two").stdout == "2\n"
    (tmp_path / "commands.toml").write_text("[command.three]\n")
    remote.server.send(signal.SIGHUP)
    line = remote.server.line("err", "everything stays as it was")
    assert "command.three.argv is missing" in line
    assert remote.run("two").stdout == "2\n"


def test_a_stopped_server_lets_a_command_end_and_its_result_be_fetched(serve: Serve, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    script = f"echo > {tmp_path}/started; read line < {tmp_path}/go; seq 10000"
    remote = serve(it=shell(script), drain=shell("true"))
    with running("exec", "run", "--server", remote.endpoint, "--keys", remote.keys, "it") as client:
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


def test_a_second_signal_kills_what_runs_and_the_client_is_told(serve: Serve, tmp_path: Path) -> None:
    remote = serve("--drain", 60, it=shell(f"echo $$ > {tmp_path}/pid; exec sleep 60", time_limit_s=60))
    with running("exec", "run", "--server", remote.endpoint, "--keys", remote.keys, "it") as client:
        pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command"))
        remote.server.send(signal.SIGTERM)
        remote.server.line("err", "waiting for 1 command")
        code, _, log = remote.server.end(signal.SIGTERM)
        assert code == 130
        assert "exec it by alice from" in log
        assert "killed by SIGKILL" in log
        assert not is_alive(pid)
        assert client.end(None)[0] == 9


def test_a_log_line_is_one_line_whatever_the_arguments_hold(serve: Serve) -> None:
    remote = serve(it={"argv": ["/bin/true", "{1}"], "arguments": ["(?s).*"]})
    assert remote.run("it", "a\n2026-01-01 forged \x1b[2J\u202e").returncode == 0
    line = remote.server.line("err", "exec it")
    assert r"'a\n2026-01-01 forged \x1b[2J\u202e' by alice from" in line


def test_the_log_file_has_a_line_an_execution_as_json(serve: Serve, tmp_path: Path) -> None:
    remote = serve("--log-file", tmp_path / "log", "--log-format", "json", it=shell("echo 12345"))
    remote.run("it")
    remote.server.end()
    lines = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    (line,) = [line for line in lines if line.startswith("exec ")]
    assert re.fullmatch(r"exec it by alice from 127\.0\.0\.1:\d+: exited with status 0, 6 bytes, 0\.\d+ s", line)


def test_a_daemon_needs_a_log_file_for_its_record(tmp_path: Path) -> None:
    done = finish(*serving(tmp_path, "--daemon", it=shell("true")))
    assert done.returncode == 3
    assert "--log-file" in done.stderr


def test_events_are_json_when_asked(serve: Serve, tmp_path: Path) -> None:
    with running(*serving(tmp_path, "--json", it=shell("true"))) as server:
        event = server.event()
        assert (event["event"], event["commands"], event["keys"]) == ("listening", ["it"], ["alice", "bob"])
        code, out, _ = server.end()
    assert (code, json.loads(out)["event"]) == (0, "stopped")


@pytest.mark.parametrize("arguments", [["exec"], ["exec", "serve"], ["exec", "run"], ["exec", "key"]], ids=" ".join)
def test_each_command_explains_itself(arguments: list[str]) -> None:
    done = finish(*arguments, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: fastnet exec")


def test_the_document_is_true(tmp_path: Path) -> None:
    """The allow file of docs/exec.md is one that the server takes."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "exec.md").read_text(), re.DOTALL)
    words = serving(tmp_path, it=shell("true"))
    (tmp_path / "commands.toml").write_text(re.sub(r'(?m)^user = .*$|keys = \["ops"\]', "", text))
    with running(*words) as server:
        assert "commands: " in server.line()
        assert server.end()[0] == 0
