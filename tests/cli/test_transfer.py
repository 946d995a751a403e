"""`fastnet send` and `fastnet recv` as processes: the examples of help, output, errors."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from fastnet.mover import MOVERS
from fastnet.registry import BACKENDS
from tests.cli.test_examples import examples
from tests.conftest import why_skip
from tests.support.cli_process import DEADLINE_S, fastnet, finish, running
from tests.support.connect_peers import free_port

DATA = bytes(range(256)) * 5000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    return path


def typed(example: str, where: Endpoint | None, folder: Path) -> list[str]:
    """The arguments of an example, with a port and a folder of the test in place of its own."""
    words = shlex.split(
        re.sub(r"\S+:9000", f"127.0.0.1:{where.port}", example) if where else example
    )[1:]
    words = [
        "0" if word == "9000" else word.replace("0.0.0.0:9000", "127.0.0.1:0") for word in words
    ]
    return [str(folder / word) if word in ("disk.img", "inbox") else word for word in words]


def mode(example: str) -> list[str]:
    """What the other side must say to understand an example."""
    return ["--raw"] if "--raw" in example else []


def plain(name: str) -> list[str]:
    return [example for example in examples(name) if "|" not in example]


@pytest.mark.parametrize("example", plain("send"))
def test_the_examples_of_send_work(example, source, tmp_path) -> None:
    if "--listen" in example:
        with running(*typed(example, None, tmp_path)) as sender:
            done = finish("recv", sender.endpoint(), *mode(example), "--output", tmp_path / "got")
            assert done.returncode == 0, done.stderr
            assert sender.end(signal.SIGTERM if "--keep-open" in example else None)[0] == 0
    else:
        with running(
            "recv", "--listen", 0, *mode(example), "--output", tmp_path / "got"
        ) as receiver:
            done = finish(*typed(example, receiver.endpoint(), tmp_path))
            assert done.returncode == 0, done.stderr
            assert receiver.end(None)[0] == 0
    assert (tmp_path / "got").read_bytes() == DATA


@pytest.mark.parametrize("example", plain("recv"))
def test_the_examples_of_recv_work(example, tmp_path) -> None:
    source = tmp_path / "source" / "disk.img"
    source.parent.mkdir()
    source.write_bytes(DATA)
    if "--listen" in example:
        with running(*typed(example, None, tmp_path)) as receiver:
            done = finish("send", source, receiver.endpoint(), *mode(example))
            assert done.returncode == 0, done.stderr
            assert receiver.end(None)[0] == 0
    else:
        with running("send", source, "--listen", 0, *mode(example)) as sender:
            done = finish(*typed(example, sender.endpoint(), tmp_path))
            assert done.returncode == 0, done.stderr
            assert sender.end(None)[0] == 0
    (got,) = [*tmp_path.glob("disk.img"), *tmp_path.glob("inbox/disk.img")]
    assert got.read_bytes() == DATA


def test_a_pipeline_carries_a_stream(source, tmp_path) -> None:
    with (
        source.open("rb") as stream,
        running("send", "-", "--listen", 0, "--raw", stdin=stream) as sender,
    ):
        got = tmp_path / "got"
        with got.open("wb") as file:
            command = fastnet("recv", sender.endpoint(), "--raw", "--output", "-")
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False
            )
        assert done.returncode == 0, done.stderr
        assert sender.end(None)[0] == 0
    assert got.read_bytes() == DATA


@pytest.mark.parametrize("place", ["unix:{}/sock", "tcp://[::1]:0"])
def test_every_stream_transport_carries_a_file(source, tmp_path, place) -> None:
    with running("send", source, "--listen", place.format(tmp_path), "--raw") as sender:
        done = finish(
            "recv",
            sender.line(containing="listening").split()[2],
            "--raw",
            "--output",
            tmp_path / "got",
        )
        assert done.returncode == 0, done.stderr
        assert sender.end(None)[0] == 0
    assert (tmp_path / "got").read_bytes() == DATA


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("sends", "receives"), [("sendfile", "splice"), ("splice", "copy"), ("copy", "splice")]
)
def test_the_mover_asked_for_is_the_one_that_runs(
    source, tmp_path, backend, sends, receives
) -> None:
    if (
        why := why_skip(backend)
        or MOVERS.why_not(sends, backend)
        or MOVERS.why_not(receives, backend)
    ):
        pytest.skip(why)
    common = ("--raw", "--backend", backend, "--mover")
    with running("send", source, "--listen", 0, *common, sends) as sender:
        done = finish("recv", sender.endpoint(), "--output", tmp_path / "got", *common, receives)
        assert f"{receives}-{backend} (asked for)" in done.stdout
        assert f"{sends}-{backend} (asked for)" in sender.end(None)[1]
    assert (tmp_path / "got").read_bytes() == DATA


def test_events_are_one_json_object_a_line(source, tmp_path) -> None:
    with running("send", source, "--listen", 0, "--raw", "--json") as sender:
        where = sender.event()["endpoint"]
        done = finish(
            "recv", where, "--raw", "--output", tmp_path / "got", "--thanks", "Thank you", "--json"
        )
        code, out, _ = sender.end(None)
    assert code == 0
    received = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["event"] for each in received if each["event"] != "progress"] == [
        "start",
        "file",
        "report",
    ]
    sent = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in sent if each["event"] != "progress"] == [
        "start",
        "file",
        "message",
        "report",
    ]
    assert sent[0]["total_bytes"] == len(DATA)
    assert [each["text"] for each in sent if each["event"] == "message"] == ["Thank you"]
    for report in (received[-1]["report"], sent[-1]["report"]):
        assert report["moved_bytes"] == len(DATA)
        assert report["schema_version"] == 1
        assert report["confirmed_bytes"] is None
    assert sent[-1]["report"]["message"] == "Thank you"


def test_a_reader_of_the_events_that_goes_away_does_not_end_the_transfer(source, tmp_path) -> None:
    with running(
        "recv", "--listen", 0, "--raw", "--output", tmp_path / "got", "--json"
    ) as receiver:
        where = receiver.event()["endpoint"]
        receiver.process.stdout.close()
        receiver.process.stdout = None
        done = finish("send", source, where, "--raw", "--json")
        assert done.returncode == 0
        _, err = receiver.process.communicate(timeout=DEADLINE_S)
    assert (receiver.process.returncode, err) == (0, b"")
    assert (tmp_path / "got").read_bytes() == DATA


def test_a_failure_is_an_event_with_a_stable_code(source, tmp_path) -> None:
    (tmp_path / "got").write_text("mine")
    done = finish(
        "recv", f"127.0.0.1:{free_port()}", "--raw", "--output", tmp_path / "got", "--json"
    )
    assert done.returncode == 5
    error = json.loads(done.stdout)
    assert (error["event"], error["code"]) == ("error", "exists")
    assert error["message"]
    assert error["hint"]


def test_same_host_connections_are_not_paced(source, tmp_path) -> None:
    with running("send", source, "--listen", 0, "--raw", "--json") as sender:
        where = sender.event()["endpoint"]
        finish("recv", where, "--raw", "--output", tmp_path / "got")
        report = json.loads(sender.end(None)[1].splitlines()[-1])["report"]
    assert report["congestion"] in ("cubic", "reno")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("send", "FILE"), "Where to?"),
        (("send", "FILE", "host:1", "--listen", "0"), "either host:1 or --listen, not both"),
        (("send", "FILE", "--raw"), "Where to?"),
        (("send", "FILE", "host:1", "--raw", "--tls"), "--tls does not go with --raw"),
        (
            ("send", "FILE", "host:1", "--raw", "--limit-rate", "1M"),
            "--limit-rate does not go with --raw",
        ),
        (("send", "FILE", "host:1", "--cert", "x"), "go with --tls"),
        (
            ("recv", "host:1", "--into", "x", "--raw", "--output", "y"),
            "--into does not go with --raw",
        ),
        (("recv", "host:1", "--into", "x", "--output", "y"), "--into or --output"),
        (("recv", "host:1", "--thanks", "x"), "--thanks goes with --raw"),
        (("recv", "--listen", "0", "--keep-open", "--output", "y"), "--keep-open goes with --into"),
        (("recv", "host:1", "--ask"), "--ask needs a terminal"),
        (("send", "FILE", "FILE", "--listen", "0", "--raw"), "sends one file, not 2"),
        (("send", "-", "--listen", "0", "--raw", "--keep-open"), "only once"),
        (("send", "FILE", "host:1", "--raw", "--wait", "1"), "go with --listen"),
        (("send", "FILE", "--listen", "0", "--raw", "--retry", "1"), "--retry goes with"),
        (("recv", "--raw", "--output", "x"), "Where from?"),
        (("recv", "host:1", "--listen", "0", "--raw", "--output", "x"), "Where from?"),
        (("recv", "host:1", "--raw"), "--output"),
        (("recv", "host:1", "--raw", "--output", "x", "--timeout", "0"), "--timeout"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments, says, source) -> None:
    done = finish(*(str(source) if word == "FILE" else word for word in arguments))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["udp://host:1", "host", "host:99999"])
def test_a_place_without_transfers_is_exit_code_3(where, source) -> None:
    assert finish("send", source, where, "--raw").returncode == 3


def test_a_mover_for_the_other_direction_is_exit_code_7(source, tmp_path) -> None:
    with running("send", source, "--listen", 0, "--raw") as sender:
        where = sender.endpoint()
        done = finish("recv", where, "--raw", "--output", tmp_path / "got", "--mover", "sendfile")
        assert done.returncode == 7
        assert "Movers that can: splice, copy" in done.stderr


def test_a_port_in_use_is_exit_code_4(source) -> None:
    with running("send", source, "--listen", 0, "--raw") as sender:
        done = finish("send", source, "--listen", sender.endpoint().port, "--raw")
    assert done.returncode == 4
    assert "address already in use" in done.stderr


def test_a_bare_port_is_one_of_the_loopback_address_and_others_are_warned_of(source) -> None:
    with running("send", source, "--listen", 0, "--raw") as sender:
        assert sender.endpoint().host == "127.0.0.1"
        assert "warning" not in sender.end()[2]
    with running("send", source, "--listen", "0.0.0.0:0", "--raw") as sender:
        assert sender.endpoint().host == "0.0.0.0"
        assert "warning: every peer that reaches tcp://0.0.0.0:0 can read" in sender.end()[2]


def test_a_bar_is_drawn_on_a_terminal_only(source, tmp_path) -> None:
    primary, secondary = pty.openpty()
    with os.fdopen(secondary, "wb", 0), os.fdopen(primary, "rb", 0):
        with running("send", source, "--listen", 0, "--raw") as sender:
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
            with running_on(
                secondary, sender.endpoint(), tmp_path / "got", environment
            ) as receiver:
                drawn = b""
                while b"disk.img" not in drawn and b"got" not in drawn:
                    assert select.select([primary], [], [], DEADLINE_S)[0], drawn
                    drawn += os.read(primary, 65536)
                assert receiver.wait(DEADLINE_S) == 0
            assert sender.end(None)[2] == ""


def running_on(  # type: ignore[no-untyped-def]
    terminal: int, where: Endpoint, target: Path, environment: dict[str, str]
):
    command = fastnet("recv", where, "--raw", "--output", target)
    return subprocess.Popen(command, stderr=terminal, stdout=subprocess.DEVNULL, env=environment)


@pytest.mark.parametrize("options", [[], ["--compress", "zstd"]], ids=["plain", "zstd"])
@pytest.mark.parametrize(
    ("output", "size"),
    [("a file", 0), ("a file", 3), ("a file", len(DATA)), ("-", 0), ("-", 60_000)],
)
def test_standard_input_arrives_whole(output, options, size, tmp_path) -> None:
    """`tar c folder | fastnet send - host:9000`; what goes to standard output fits a pipe."""
    if options:
        pytest.importorskip("zstandard")
    target = "-" if output == "-" else tmp_path / "got"
    with running("recv", "--listen", 0, "--output", target) as receiver:
        where = receiver.line("err" if output == "-" else "out", "listening on ").split()[2]
        done = subprocess.run(
            fastnet("send", "-", where, *options),
            input=DATA[:size],
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        got = receiver.process.communicate(timeout=DEADLINE_S)[0] if output == "-" else b""
        assert receiver.process.wait(DEADLINE_S) == 0
    assert (got if output == "-" else (tmp_path / "got").read_bytes()) == DATA[:size]
    assert [path.name for path in tmp_path.iterdir()] == ([] if output == "-" else ["got"])


@pytest.mark.parametrize(
    ("size", "unit"), [(0, ""), (3, "kB/s"), (len(DATA), "/s")], ids=["empty", "small", "large"]
)
def test_the_speed_has_digits_to_read(size, unit, source, tmp_path) -> None:
    source.write_bytes(DATA[:size])
    with running("recv", "--listen", 0, "--into", tmp_path / "inbox") as receiver:
        done = finish("send", source, receiver.endpoint())
        told = done.stdout + receiver.end(None)[1]
    assert done.returncode == 0, done.stderr
    assert " 0.000 " not in re.sub("[0-9.]+ CPU s", "", told)
    assert told.count(unit) == 2 if unit else "/s" not in told


@pytest.mark.parametrize("mode", [[], ["--raw"]], ids=["proven", "raw"])
@pytest.mark.parametrize("keep_open", [[], ["--keep-open"]], ids=["once", "keep-open"])
def test_an_unknown_congestion_control_is_reported_before_a_connection(
    keep_open, mode, source
) -> None:
    done = finish("send", source, "--listen", 0, "--congestion", "nosuch", *mode, *keep_open)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("fastnet: cannot use --congestion nosuch: ")


def test_a_mover_that_cannot_receive_is_reported_before_a_connection(tmp_path) -> None:
    done = finish("recv", "--listen", 0, "--into", tmp_path, "--mover", "sendfile")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == "fastnet: sendfile cannot receive. Movers that can: splice, copy.\n"
