"""`fastnet doctor`: complete, readable by machines, and not easily put out."""

from __future__ import annotations

import json
import subprocess

import pytest

from fastnet import probes
from fastnet.apps import doctor
from fastnet.engine.stream import ENGINES
from fastnet.mover import MOVERS
from fastnet.service import SERVICES
from tests.support.cli_process import ENVIRONMENT, fastnet, finish


def test_the_report_names_everything_there_is() -> None:
    done = finish("doctor")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in (
        *ENGINES,
        *SERVICES,
        *MOVERS,
        *probes.FEATURES,
        "RLIMIT_NOFILE",
        "somaxconn",
        "congestion control",
    ):
        assert name in done.stdout


def test_the_report_as_json_has_a_schema_version_and_the_same_facts() -> None:
    done = finish("doctor", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document.pop("schema") == 1
    assert set(document["engines"]) == set(ENGINES)
    assert set(document["features"]) == set(probes.FEATURES)
    assert all(
        set(fact) == {"value", "good", "hint"}
        for section in document.values()
        for fact in section.values()
    )


def test_what_is_missing_is_listed_with_the_reason() -> None:
    hide = (
        "import sys; sys.modules['fastnet.engine.stream.epoll_c'] = None;"
        " from fastnet.cli import main; main()"
    )
    done = subprocess.run(
        [fastnet()[0], "-c", hide, "doctor", "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=30,
        check=True,
    )
    epoll = json.loads(done.stdout)["engines"]["epoll"]
    assert epoll["value"] == "python"
    assert epoll["hint"].startswith("no native: ")


def test_a_fact_that_cannot_be_had_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SYSCTL", "/no/such/folder")
    found = {fact.name: fact for fact in doctor.examine()["limits"]}
    assert found["somaxconn"].value.startswith("unknown: ")
    assert found["congestion"].value.startswith("unknown: ")
    assert "soft" in found["RLIMIT_NOFILE"].value


def test_a_probe_that_fails_says_why_with_the_name_of_the_errno(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden() -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setitem(probes.FEATURES, "io_uring", (forbidden, "nothing is lost"))
    assert doctor.feature("io_uring") == doctor.Fact(
        "io_uring", "operation not permitted (EPERM)", False, "nothing is lost"
    )


def test_a_low_limit_comes_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    fact = doctor.descriptors()
    assert not fact.good
    assert "at most 4032 connections" in fact.hint


def test_a_reader_that_goes_away_is_no_failure() -> None:
    doctor = subprocess.Popen(
        fastnet("doctor"), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert doctor.stdout is not None
    doctor.stdout.close()
    doctor.stdout = None
    _, err = doctor.communicate(timeout=30)
    assert (doctor.returncode, err) == (0, b"")
