"""Allow file and keys file: their meaning, and errors that name the place."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fastnet.apps.exec.policy import Denied, MatchTimeout, Policy, permit, read_policy
from fastnet.errors import ConfigError
from fastnet.security.keys import new_line, read_keys

LS = 'argv = ["/bin/ls"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def policy(path: Path, text: str, mode: int = 0o644) -> Policy:
    path.write_text(text)
    path.chmod(mode)
    return read_policy(str(path), ["alice", "bob"])


def table(path: Path, text: str) -> Policy:
    return policy(path, f"[command.one]\n{text}")


def test_arguments_go_where_the_template_says(path: Path) -> None:
    found = table(
        path, 'argv = ["/bin/ls", "--to={2}-{1}", "{1}", "{x}"]\narguments = ["[a-z]+", "[0-9]"]'
    )
    assert permit(found, "alice", ["one", "abc", "7"])[1] == ["/bin/ls", "--to=7-abc", "abc", "{x}"]


def test_an_argument_is_not_read_again_for_places(path: Path) -> None:
    found = table(path, 'argv = ["/bin/ls", "{1}", "{2}"]\narguments = [".*", ".*"]')
    assert permit(found, "alice", ["one", "{2}", "secret"])[1] == ["/bin/ls", "{2}", "secret"]


@pytest.mark.parametrize(
    ("pattern", "argument"),
    [
        ("[a-z]+", "abc;reboot"),
        ("[a-z]+", "abc\n"),
        ("a|b", "ab"),
        ("^a", "a\nb"),
        (r"\d", "٣"),
        (".*", "a\nb"),
    ],
    ids=["more", "newline", "alternatives", "second line", "other digits", "dot and newline"],
)
def test_a_pattern_must_match_all_of_an_argument(path: Path, pattern: str, argument: str) -> None:
    found = table(path, f"{LS}, '{{1}}']\narguments = ['{pattern}']")
    with pytest.raises(Denied, match="argument 1 of one does not match"):
        permit(found, "alice", ["one", argument])


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", ".*.*.*.*.*.*b", "(a|a)*b", "(?=(a+)+b)a"],
    ids=["nested", "many", "twice", "ahead"],
)
def test_a_pattern_that_would_search_for_years_is_ended_and_denied(
    path: Path, pattern: str
) -> None:
    found = table(path, f"{LS}, '{{1}}']\narguments = ['{pattern}']")
    before_s = time.process_time()
    with pytest.raises(MatchTimeout, match="argument 1 of one takes too long to match"):
        permit(found, "alice", ["one", "a" * 1000])
    assert time.process_time() - before_s < 1
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_arguments_is_denied(path: Path, count: int) -> None:
    found = table(path, f"{LS}, '{{1}}']\narguments = ['.*']")
    with pytest.raises(Denied, match=f"one takes 1 argument, not {count}"):
        permit(found, "alice", ["one", *["x"] * count])


def test_an_argument_cannot_become_an_option_unless_that_is_allowed(path: Path) -> None:
    text = f"{LS}, '{{1}}', '--like={{1}}', '-{{1}}']\narguments = ['.*']\n"
    with pytest.raises(Denied, match="begins with -"):
        permit(table(path, text), "alice", ["one", "-R"])
    assert permit(table(path, text), "alice", ["one", "R"])[1] == ["/bin/ls", "R", "--like=R", "-R"]
    assert permit(table(path, text + "dashes = true"), "alice", ["one", "-R"])[1][1] == "-R"


def test_an_empty_argument_does_not_make_an_option_of_the_next(path: Path) -> None:
    found = table(path, f"{LS}, '{{1}}{{2}}']\narguments = ['.*', '.*']")
    with pytest.raises(Denied, match="begins with -"):
        permit(found, "alice", ["one", "", "-R"])


def test_a_command_runs_for_its_keys_only(path: Path) -> None:
    found = table(path, f'{LS}]\nkeys = ["bob"]')
    assert permit(found, "bob", ["one"])
    with pytest.raises(Denied, match="alice may not run one"):
        permit(found, "alice", ["one"])


def test_what_is_not_named_does_not_run(path: Path) -> None:
    with pytest.raises(Denied, match="there is no command 'two' here"):
        permit(table(path, f"{LS}]"), "alice", ["two"])


MISTAKES = {
    "argv is missing": ("", "command.one.argv is missing"),
    "argv is a text": ("argv = '/bin/ls'", "command.one.argv is not a list of texts"),
    "argv is empty": ("argv = []", r"command.one.argv\[0\] is not the full path"),
    "argv is relative": ("argv = ['ls']", r"command.one.argv\[0\] is not the full path"),
    "argv has NUL": (f'{LS}, "a\\u0000b"]', r"command.one.argv\[1\] has a NUL"),
    "no such program": (
        "argv = ['/bin/nothere']",
        r"command.one.argv\[0\]: /bin/nothere is not a program",
    ),
    "a folder": ("argv = ['/bin']", r"command.one.argv\[0\]: /bin is not a program"),
    "program from argument": (
        "argv = ['/bin/{1}']\narguments = ['ls']",
        r"argv\[0\] depends on an argument",
    ),
    "place without pattern": (f"{LS}, '{{1}}']", r"command.one.argv: \{1\} has no pattern"),
    "place zero": (
        f"{LS}, '{{0}}', '{{1}}']\narguments = ['a']",
        r"command.one.argv: \{0\} has no pattern",
    ),
    "pattern without place": (
        f"{LS}]\narguments = ['a']",
        r"command.one.arguments\[0\] is used nowhere",
    ),
    "bad pattern": (
        f"{LS}, '{{1}}']\narguments = ['(']",
        r"command.one.arguments\[0\]: '\(': missing \)",
    ),
    "environment": (f"{LS}]\nenvironment = 1", "command.one.environment is not a table"),
    "environment value": (
        f"{LS}]\nenvironment = {{A = 1}}",
        "command.one.environment.A is not a text",
    ),
    "environment name": (f"{LS}]\nenvironment = {{'A=B' = ''}}", "no variable can be called 'A=B'"),
    "directory": (f"{LS}]\ndirectory = 'tmp'", "command.one.directory is not a full path"),
    "no directory": (
        f"{LS}]\ndirectory = '/nowhere'",
        "command.one.directory: /nowhere is not a folder",
    ),
    "user": (f"{LS}]\nuser = 'no such user'", "command.one.user: this host has no user"),
    "time": (
        f"{LS}]\ntime_limit_s = 0",
        "command.one.time_limit_s = 0 is not a number from 0.01 to 86400",
    ),
    "time nan": (f"{LS}]\ntime_limit_s = nan", "command.one.time_limit_s = nan is not a number"),
    "time text": (f"{LS}]\ntime_limit_s = '1'", "command.one.time_limit_s = '1' is not a number"),
    "output": (
        f"{LS}]\noutput_bytes_max = 99999999",
        "command.one.output_bytes_max = 99999999 is not a whole number",
    ),
    "concurrent": (
        f"{LS}]\nconcurrent_max = true",
        "command.one.concurrent_max = True is not a whole number",
    ),
    "unknown": (
        f"{LS}]\ntime_limit = 1",
        "command.one.time_limit: unknown key. Did you mean 'time_limit_s'",
    ),
    "keys": (f"{LS}]\nkeys = ['carol']", "command.one.keys: there is no key 'carol'"),
    "no keys": (f"{LS}]\nkeys = []", "command.one.keys is empty"),
    "dashes": (f"{LS}]\ndashes = 1", "command.one.dashes = 1 is not true or false"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_its_key(path: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=message) as caught:
        table(path, text)
    assert str(caught.value).startswith(f"{path}: command.one")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "allows no command"),
        ("[commands.x]", "unknown table or key 'commands'"),
        ("command = 1", "allows no command"),
        ("[command]\nx = 1", "command.x is not a table"),
        ("[command.'a b']", "command.a b: no command can have this name"),
        ("[command", "not TOML"),
    ],
)
def test_a_file_without_commands_is_refused(path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy(path, text)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_an_allow_file_that_others_may_change_is_refused(path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=r"others may change .* chmod go-w"):
        policy(path, f"[command.one]\n{LS}]", mode)


def keys(path: Path, text: str, mode: int = 0o600) -> dict[str, bytes]:
    path.write_text(text)
    path.chmod(mode)
    return read_keys(str(path))


def test_keys_are_read_in_their_order(path: Path) -> None:
    found = keys(path, f"# who\n\n{new_line('bob')}\n  {new_line('alice@host')} # x\n")
    assert list(found) == ["bob", "alice@host"]
    assert {len(secret) for secret in found.values()} == {32}


def test_two_new_keys_differ() -> None:
    assert new_line("a") != new_line("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# alice\n", "holds no key"),
        ("alice\n", "line 1 is not an id and a secret"),
        ("\na!b " + "00" * 32, "line 2 is not an id and a secret"),
        ("alice " + "00" * 31, "line 1: the secret has 31 bytes"),
        ("alice " + "0g" * 32, "line 1: the secret is not hexadecimal"),
        (("alice " + "00" * 32 + "\n") * 2, "line 2: alice is there a second time"),
        ("".join(f"k{i} {'00' * 32}\n" for i in range(1025)), "holds 1025 keys"),
    ],
)
def test_a_mistake_in_the_keys_is_named_with_its_line_and_no_secret(
    path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        keys(path, text)
    assert "0000" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_keys_that_others_could_read_or_change_are_refused(path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=r"others may .* chmod go= "):
        keys(path, new_line("alice"), mode)


def test_missing_keys_say_how_to_make_some(path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"no such file or directory\. Make one: \(umask 077; fastnet exec key NAME >> ",
    ):
        read_keys(str(path))


def test_keys_in_a_fifo_do_not_hang_the_start(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not in a regular file"):
        read_keys(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    path.write_text(new_line("alice"))
    path.chmod(0o600)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        read_keys(str(path))
