"""Rules held file by file: sizes, names, first lines and vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tree import ROOT
from tests.tidy.ratchet import NOT_YET, check
from tests.tidy.rules import RULES, bad_first_line, long_native_function, participle_stem
from tests.tidy.vocabulary import banned


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule: str) -> None:
    paths, offences = RULES[rule]
    assert paths
    check(rule, paths, offences)


def test_the_list_of_exceptions_names_files_that_exist() -> None:
    lines = NOT_YET.read_text().splitlines() if NOT_YET.exists() else []
    for line in lines:
        rule, _, path = line.partition(" ")
        assert rule in RULES
        assert (ROOT / path).is_file(), f"{path} is gone; run `python -m tests.tidy.ratchet`"


def test_banned_words_are_found_in_prose_and_in_identifiers(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    words = ("pati" + "ence", "Str" + "anger", "at" + "\n    # on" + "ce")
    source.write_text(f"lose_{words[0]} = 1\nclass {words[1]}Table: ...\n# it ends {words[2]}\n")
    found = [each.split(":")[0] for each in banned(source, "src/fastnet/module.py")]
    assert found == ["1", "2", "3"]


def test_a_longer_word_that_holds_a_banned_one_is_allowed(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("shallow = secure = 'challenge, planes, procured'\n")
    assert banned(source, "src/fastnet/module.py") == []


def test_a_docstring_whose_first_line_spills_over_is_found(tmp_path: Path) -> None:
    spilling, clean = tmp_path / "spilling.py", tmp_path / "clean.py"
    spilling.write_text('"""A sentence that\nspills over."""\n')
    assert bad_first_line(spilling)
    clean.write_text('"""A sentence.\n\nAnd more.\n"""\n')
    assert not bad_first_line(clean)


def test_a_native_function_ends_where_its_indentation_ends(tmp_path: Path) -> None:
    source = tmp_path / "module.pyx"
    body = "    x = 1\n" * 69
    text = (
        "cdef int f(int a,\n           int b) noexcept nogil:\n{body}\n\ncdef int g():\n    pass\n"
    )
    source.write_text(text.format(body=body))
    assert long_native_function(source) == ["1: f has 71 lines"]


def test_a_module_named_by_a_participle_is_found() -> None:
    stems = [
        "taking.py",
        "sealed_py.py",
        "elsewhere.py",
        "ring_c.pyx",
        "load/closed_c.pyx",
        "speed.py",
    ]
    assert [stem for stem in stems if participle_stem(Path(stem))] == stems[:3]
