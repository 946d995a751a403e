"""Rules of the C headers and of their declarations."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastnet import limits
from tests.support.tree import HEADERS, SOURCE, name_of

CDEFS = sorted((SOURCE / "cdefs").glob("*.pxd"))

CONSTANT = re.compile(
    r"^\s*(?:#define\s+)?FN_([A-Z0-9_]+)(?:\s*=\s*|\s+)\(?(-?\d+)\b(?!\s*<<)", re.M
)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("path", HEADERS, ids=name_of)
def test_every_header_compiles_alone_without_a_warning(path: Path) -> None:
    strict = [
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        "-Wno-missing-field-initializers",
    ]
    source = f'#define _GNU_SOURCE\n#include "{path.name}"\n'  # as Python.h does
    command = ["cc", *strict, "-I", str(path.parent), "-x", "c", "-fsyntax-only", "-"]
    subprocess.run(command, input=source.encode(), check=True, timeout=60)


def test_every_header_has_one_file_of_declarations() -> None:
    declared = {path.stem for path in CDEFS} - {"__init__"}
    assert declared == {path.stem.removeprefix("fn_") for path in HEADERS}


@pytest.mark.parametrize("path", CDEFS, ids=name_of)
def test_declarations_hold_no_code(path: Path) -> None:
    assert not re.search(r"^cdef (?!extern)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", CDEFS, ids=name_of)
def test_declarations_come_from_the_header_of_the_same_stem(path: Path) -> None:
    stems = set(re.findall(r'extern from "fn_(\w+)\.h"', path.read_text()))
    assert stems <= {path.stem}


def test_no_limit_stands_in_c_as_well() -> None:
    """Numbers come into the loops as arguments; a limit has one place, fastnet.limits."""
    values = {
        name: value for name, value in vars(limits).items() if name.isupper() and name != "KIB"
    }
    shared = set()
    for path in HEADERS:
        for name, number in CONSTANT.findall(path.read_text()):
            stem = re.sub(r"_(MS|US|NS|BYTES)$", "", name)
            same_name = any(each == name or re.sub(r"_S$", "", each) == stem for each in values)
            odd = int(number) >= 1000 and int(number) & (int(number) - 1)
            if same_name or (odd and int(number) in values.values() and int(number) != 10**9):
                shared.add(name)
    assert shared == set()


def test_a_limit_typed_in_c_is_seen() -> None:
    text = "#define FN_BACKLOG 4096\nenum {\n    FN_TRAIN_MAX = 64, /* a train */\n};\n"
    assert CONSTANT.findall(text) == [("BACKLOG", "4096"), ("TRAIN_MAX", "64")]
