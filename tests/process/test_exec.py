"""`fastnet exec run` with real servers: what runs, how it ends, what is printed."""

from __future__ import annotations

import base64
import ctypes
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastnet.apps.exec import client
from fastnet.errors import ExecDenied, NetworkError
from fastnet.transport.resolve import resolve
from fastnet.udp import client as udp_client
from tests.support.cli_process import (
    ENVIRONMENT,
    children,
    eventually,
    fastnet,
    finish,
    is_alive,
    running,
)
from tests.support.exec import SECRETS, Offer, Remote, offering, serving, shell, write_keys


@pytest.fixture
def offer(tmp_path: Path) -> Iterator[Offer]:
    with offering(tmp_path) as start:
        yield start


def test_a_command_runs_and_its_output_is_ours(offer: Offer) -> None:
    remote = offer(greet={"argv": ["/bin/echo", "hello", "{1}"], "arguments": [".*"]})
    done = remote.run("greet", "big; world")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello big; world\n", "")


def test_both_streams_arrive_each_where_it_belongs(offer: Offer) -> None:
    done = offer(two=shell("echo out; echo err >&2")).run("two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_what_follows_the_name_is_the_commands_even_with_dashes(offer: Offer) -> None:
    remote = offer(echo={"argv": ["/bin/echo", "{1}"], "arguments": [".*"], "dashes": True})
    assert remote.run("echo", "--timeout").stdout == "--timeout\n"


def test_binary_output_is_not_touched(offer: Offer, tmp_path: Path) -> None:
    remote = offer(
        noise=shell(f"head -c 100000 /dev/urandom | tee {tmp_path}/copy", output_bytes_max=100_000)
    )
    code, document = remote.json("noise")
    assert code == 0
    assert base64.b64decode(document["output_base64"]) == (tmp_path / "copy").read_bytes()
    with open(tmp_path / "got", "wb") as target:
        words = fastnet(*remote.run_argv("noise"))
        subprocess.run(words, stdout=target, env=ENVIRONMENT, check=True, timeout=30)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "copy").read_bytes()


ENDS = {
    "exited": ("exit 0", 0, {"outcome": "exited", "status": 0, "signal": None}),
    "failed": (
        "echo x; exit 3",
        10,
        {"outcome": "exited", "status": 3, "signal": None, "output": "x\n"},
    ),
    "killed": (
        "echo x; kill -SEGV $$",
        9,
        {"outcome": "killed", "status": None, "signal": "SIGSEGV", "output": "x\n"},
    ),
    "timed out": (
        "echo x; exec sleep 60",
        8,
        {"outcome": "timed out", "status": None, "output": "x\n"},
    ),
    "deaf": (
        "trap '' TERM; echo x; while :; do sleep 1; done",
        8,
        {"outcome": "timed out", "output": "x\n"},
    ),
    "not started": (None, 11, {"outcome": "not started", "output": ""}),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_has_its_own_exit_code_and_document(
    offer: Offer, end: str, tmp_path: Path
) -> None:
    script, code, said = ENDS[end]
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    table = shell(script) if script else {"argv": [str(broken)]}
    remote = offer(it=table | {"time_limit_s": 0.3})
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


def test_an_end_that_is_not_good_is_told_in_words(offer: Offer) -> None:
    done = offer(it=shell("exit 3")).run("it")
    assert done.returncode == 10
    assert re.fullmatch(
        r"fastnet: it on udp://127\.0\.0\.1:\d+: exited with status 3, 0 bytes, 0\.\d+ s\n",
        done.stderr,
    )


def test_everything_a_command_started_is_gone_at_its_time_limit(
    offer: Offer, tmp_path: Path
) -> None:
    script = f"sleep 61 & echo $! > {tmp_path}/child; sleep 62"
    assert offer(it=shell(script, time_limit_s=0.5)).run("it").returncode == 8
    eventually(lambda: not is_alive(int((tmp_path / "child").read_text())), "the end of the child")


def test_orphans_of_a_command_are_killed_when_it_ends_without_delay(
    offer: Offer, tmp_path: Path
) -> None:
    script = f"sleep 63 & echo $! > {tmp_path}/child; echo out"
    done = offer(it=shell(script, time_limit_s=50)).run("it")
    assert (done.returncode, done.stdout) == (0, "out\n")
    eventually(lambda: not is_alive(int((tmp_path / "child").read_text())), "the end of the child")


LEAVES = {
    "child": "setsid sleep 64 & echo $! > {0}",
    "orphan": "(setsid sleep 64 & echo $! > {0})",
    "daemon": "(setsid sh -c 'sleep 64 & echo $! > {0}' > /dev/null 2>&1 &)",
    "without a mark": "(env -i setsid sleep 64 & echo $! > {0})",
    "group": "set -m; sleep 64 & echo $! > {0}",
}


@pytest.mark.parametrize("left", LEAVES)
@pytest.mark.parametrize("ends", ["by itself", "late"])
def test_what_made_a_session_of_its_own_ends_with_its_command(
    offer: Offer, tmp_path: Path, left: str, ends: str
) -> None:
    script = f"{LEAVES[left].format(tmp_path / 'left')}; while ! [ -s {tmp_path}/left ]; do :; done"
    remote = offer(
        it=shell(
            script + "; exec sleep 65" * (ends == "late"),
            time_limit_s=0.5 if ends == "late" else 20,
        )
    )
    code, document = remote.json("it")
    assert (code, document["seconds"] < 10) == (8 if ends == "late" else 0, True)
    eventually(
        lambda: not is_alive(int((tmp_path / "left").read_text())), "the end of what was left"
    )
    eventually(lambda: not children(remote.server.pid), "that it was waited for")


def test_a_crowd_that_was_left_behind_goes_and_the_server_serves_meanwhile(offer: Offer) -> None:
    crowd = "i=0; while [ $i -lt 1500 ]; do setsid sleep 69 & i=$((i + 1)); done"
    remote = offer(crowd=shell(crowd, time_limit_s=60), yes=shell("echo yes"))
    assert remote.run("crowd").returncode == 0
    assert remote.run("yes").stdout == "yes\n"
    eventually(lambda: not children(remote.server.pid), "the end of the crowd")


def test_what_another_command_started_lives_on(offer: Offer, tmp_path: Path) -> None:
    long = f"(setsid sleep 66 & echo $! > {tmp_path}/left); exec sleep 67"
    remote = offer(long=shell(long, time_limit_s=60), short=shell("(setsid sleep 66 &)"))
    with running(*remote.run_argv("long")):
        eventually(
            lambda: (tmp_path / "left").exists() and (tmp_path / "left").read_text(),
            "the long command",
        )
        assert remote.run("short").returncode == 0
        left = int((tmp_path / "left").read_text())
        assert is_alive(left)
        eventually(
            lambda: (
                set(children(remote.server.pid)) >= {left} and len(children(remote.server.pid)) == 2
            ),
            "one end",
        )
        remote.server.send(signal.SIGTERM)
        remote.server.line("err", "waiting for 1 command")
        remote.server.end()
    assert not is_alive(left)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make a server that may not kill its own command"
)
@pytest.mark.parametrize("ends", ["at its limit", "with the server"])
def test_a_command_that_may_not_be_killed_is_over_all_the_same(tmp_path: Path, ends: str) -> None:
    os.chmod(tmp_path, 0o777)
    is_late = ends == "at its limit"
    script = "echo said; " * is_late + f"echo $$ > {tmp_path}/pid; exec sleep 68"
    words = serving(tmp_path, it=shell(script, user="nobody", time_limit_s=0.5 if is_late else 60))
    open_way(tmp_path)
    with running(*words, preexec_fn=without_cap_kill) as server:
        with running(*Remote(server, tmp_path / "keys").run_argv("it")) as client:
            pid = int(
                eventually(
                    lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(),
                    "the command",
                )
            )
            try:
                if not is_late:
                    server.send(signal.SIGTERM)
                    server.line("err", "waiting for 1 command")
                    assert server.end()[0] == 130
                assert client.end(None)[:2] == ((8, "said\n") if is_late else (9, ""))
                assert is_alive(pid)
            finally:
                os.kill(pid, signal.SIGKILL)
        if is_late:
            assert f"process {pid} of it cannot be killed and runs on" in server.line(
                "err", "cannot be killed"
            )
            eventually(lambda: not children(server.pid), "that it was waited for")


def without_cap_kill() -> None:
    """PR_CAPBSET_DROP of CAP_KILL: linux/prctl.h, linux/capability.h."""
    ctypes.CDLL(None).prctl(24, *map(ctypes.c_ulong, (5, 0, 0, 0)))


def open_way(folder: Path) -> None:
    """Let other users reach a folder of this test."""
    for parent in folder.parents:
        if parent.stat().st_mode & 0o1 == 0:
            parent.chmod(parent.stat().st_mode | 0o1)


def test_output_beyond_the_limit_is_cut_and_keeps_the_exit_status(
    offer: Offer,
) -> None:
    remote = offer(
        flood=shell(
            "head -c 10000000 /dev/zero | tr '\\0' a; echo e >&2; exit 4", output_bytes_max=5000
        )
    )
    code, document = remote.json("flood")
    assert (code, document["status"], document["output"]) == (10, 4, "a" * 5000)
    assert (document["output_cut"], document["error_cut"], document["error"]) == (True, True, "")
    assert "5000 bytes (cut)" in remote.run("flood").stderr


def test_an_endless_writer_ends_at_its_time_limit_in_bounded_memory(offer: Offer) -> None:
    remote = offer(yes={"argv": ["/usr/bin/yes"], "time_limit_s": 1, "output_bytes_max": 1000})
    done = remote.run("yes")
    assert (done.returncode, done.stdout) == (8, "y\n" * 500)
    status = Path(f"/proc/{remote.server.pid}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 100_000


def test_a_command_gets_its_own_environment_folder_and_input(offer: Offer) -> None:
    table = {"argv": ["/usr/bin/env"], "environment": {"A": "1 2"}}
    remote = offer(
        env=table, pwd={"argv": ["/bin/pwd"], "directory": "/usr"}, cat={"argv": ["/bin/cat"]}
    )
    *own, mark, end = remote.run("env").stdout.split("\n")
    assert (own, end) == (["PATH=/usr/local/bin:/usr/bin:/bin", "A=1 2"], "")
    assert re.fullmatch("FASTNET_EXECUTION=[0-9a-f]{16}", mark)
    assert remote.run("pwd").stdout == "/usr\n"
    assert (remote.run("cat").returncode, remote.run("cat").stdout) == (0, "")


def test_a_command_holds_nothing_of_the_servers(offer: Offer) -> None:
    done = offer(
        it=shell("ls /proc/self/fd; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leads")
    ).run("it")
    assert done.stdout.split() == ["0", "1", "2", "3", "leads"]  # 3 is the listing's own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as another user")
def test_a_command_runs_as_its_user_with_the_groups_of_that_user(offer: Offer) -> None:
    nobody = pwd.getpwnam("nobody")
    remote = offer(who=shell("id -u; id -G", user="nobody"), mine=shell("id -u"))
    groups = " ".join(map(str, sorted(os.getgrouplist("nobody", nobody.pw_gid))))
    assert remote.run("who").stdout == f"{nobody.pw_uid}\n{groups}\n"
    assert "these commands run as root: mine" in remote.server.line("err", "run as root")


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["nothing"], "there is no command 'nothing' here", "command"),
        (["one", "b"], "argument 1 of one does not match a", "arguments"),
        (["one"], "one takes 1 argument, not 0", "arguments"),
        (["bobs"], "alice may not run bobs", "key"),
    ],
)
def test_what_is_denied_says_why_and_is_logged(
    offer: Offer, words: list[str], said: str, code: str
) -> None:
    table = {"argv": ["/bin/echo", "{1}"], "arguments": ["a"]}
    remote = offer(one=table, bobs=shell("true", keys=["bob"]))
    done = remote.run(*words)
    assert (done.returncode, done.stdout) == (5, "")
    assert said in done.stderr
    assert said in remote.server.line("err", "refused")
    assert remote.json(*words)[1]["code"] == code


def test_a_second_run_at_the_same_time_is_busy(offer: Offer, tmp_path: Path) -> None:
    remote = offer(wait=shell(f"echo > {tmp_path}/started; sleep 60", time_limit_s=60))
    with running(*remote.run_argv("wait")) as first:
        eventually((tmp_path / "started").exists, "the first run")
        done = remote.run("wait")
        assert done.returncode == 5
        assert "wait is running 1 of 1 allowed times" in done.stderr
        assert first.end(signal.SIGINT)[0] == 130


def test_a_wrong_key_is_not_answered_and_the_client_guesses_why(
    offer: Offer, tmp_path: Path
) -> None:
    remote = offer(it=shell("true"))
    other = tmp_path / "other"
    other.write_text("alice " + "ff" * 32)
    other.chmod(0o600)
    done = remote.run("--keys", other, "--timeout", 0.5, "it")
    assert done.returncode == 4
    assert "no answer within 0.5 s; a server there does not know the key 'alice'" in done.stderr
    assert "unauthenticated datagrams; the last from 127.0.0.1:" in remote.server.line(
        "err", "unauthenticated"
    )


def test_a_refused_connection_is_an_immediate_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = finish(
        "exec", "run", "--server", f"127.0.0.1:{port}", "--keys", write_keys(tmp_path), "it"
    )
    assert done.returncode == 4
    assert "connection refused. Nothing listens there" in done.stderr


def test_the_second_key_of_a_file_is_taken_by_name(offer: Offer) -> None:
    remote = offer(it=shell("true"))
    assert remote.run("--key", "bob", "it").returncode == 0
    assert remote.server.line("err", "exec it by bob from")
    done = remote.run("--key", "carol", "it")
    assert done.returncode == 3
    assert "has no key 'carol'. It has: alice, bob" in done.stderr


@pytest.mark.parametrize("name", ["localhost", "[::1]", "::1"])
def test_a_server_is_found_by_name_and_by_either_family(offer: Offer, name: str) -> None:
    remote = offer("--host", "127.0.0.1" if name == "localhost" else "::1", it=shell("echo yes"))
    where = f"[{name}]" if name == "::1" else name
    done = remote.run("--server", f"{where}:{remote.endpoint.port}", "it")
    assert (done.returncode, done.stdout) == (0, "yes\n")
    assert remote.run("--server", "tcp://localhost:1", "it").returncode == 3


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "3600 s ahead of"), (-90, "90 s behind")])
def test_clocks_that_differ_are_told_in_a_sentence(
    offer: Offer, monkeypatch: pytest.MonkeyPatch, ahead_s: int, words: str
) -> None:
    class Skewed:
        monotonic = staticmethod(time.monotonic)
        time = staticmethod(lambda: time.time() + ahead_s)
        time_ns = staticmethod(lambda: time.time_ns() + ahead_s * 10**9)

    remote = offer(it=shell("true"))
    monkeypatch.setattr(client, "time", Skewed)
    with pytest.raises(ExecDenied) as caught:
        client.run(remote.endpoint, ["it"], client.ExecKey("alice", SECRETS["alice"]))
    assert (
        f"this host's clock is {words} the server's, and 60 s are allowed. Set the clocks"
        in str(caught.value)
    )


def test_an_address_that_refuses_gives_way_to_the_next_of_the_name(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = offer("--host", "127.0.0.1", it=shell("echo yes"))
    both = [*resolve(replace(remote.endpoint, host="::1")), *resolve(remote.endpoint)]
    monkeypatch.setattr(udp_client, "resolve", lambda endpoint: both)
    result = client.run(remote.endpoint, ["it"], client.ExecKey("alice", SECRETS["alice"]))
    assert result.output == b"yes\n"
    monkeypatch.setattr(udp_client, "resolve", lambda endpoint: both[:1])
    with pytest.raises(NetworkError, match="connection refused"):
        client.run(remote.endpoint, ["it"], client.ExecKey("alice", SECRETS["alice"]))
