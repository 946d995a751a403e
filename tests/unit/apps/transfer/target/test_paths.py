"""Names that a sender may use, which never collide with those of unfinished files."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastnet.apps.transfer.target.paths import (
    BadName,
    check_link,
    is_ours,
    journal_name,
    numbered,
    part_name,
    parts_of,
)
from fastnet.limits import DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX

BYTES = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw)
COMPONENT = BYTES.filter(
    lambda raw: b"/" not in raw and len(raw) <= 255 and raw not in (b".", b"..")
).map(os.fsdecode)

REFUSED = {
    "empty": "",
    "root": "/",
    "absolute": "/etc/passwd",
    "absolute twice": "//etc/passwd",
    "here": ".",
    "here in front": "./a",
    "here within": "a/./b",
    "up": "..",
    "up in front": "../a",
    "up within": "a/../b",
    "up at the end": "a/..",
    "up and out": "a/../../b",
    "empty component": "a//b",
    "slash at the end": "a/",
    "NUL": "a\0b",
    "NUL after up": "..\0",
    "long component": "a" * (NAME_BYTES_MAX + 1),
    "long component in bytes": "é" * (NAME_BYTES_MAX // 2 + 1),
    "long path": "/".join(["a" * 250] * 17),
    "deep": "/".join("a" * (DEPTH_MAX + 1)),
    "no bytes": "a\ud800b",
    "a surrogate pair in two halves": "\ud83d\ude00",
    "our part": "a/.b.fastnet-part",
    "our journal": ".b.fastnet-journal",
    "a folder called like ours": ".b.fastnet-part/a",
    "up in escaped bytes": "\udc2e\udc2e/a",
}


@pytest.mark.parametrize("path", REFUSED.values(), ids=REFUSED.keys())
def test_a_name_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadName) as caught:
        parts_of(path)
    assert caught.value.path == path
    assert caught.value.why in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


TAKEN = {
    "plain": "a",
    "nested": "a/b/c",
    "dots": "...",
    "dots in front": "..a",
    "hidden": ".bashrc",
    "space": " ",
    "newline": "a\nb",
    "escape sequence": "\x1b[2J",
    "backslash": "..\\a",
    "percent": "%2e%2e",
    "full-width dots": "\uff0e\uff0e",
    "not UTF-8": os.fsdecode(b"\xff\xfe"),
    "longest component": "a" * NAME_BYTES_MAX,
    "deepest": "/".join("a" * DEPTH_MAX),
    "longest": "/".join(["a" * 255] * 16)[:PATH_BYTES_MAX],
    "ends like ours": "b.fastnet-part",
}


@pytest.mark.parametrize("path", TAKEN.values(), ids=TAKEN.keys())
def test_a_name_that_leads_down_is_taken_as_it_is(path: str) -> None:
    assert parts_of(path) == tuple(path.split("/"))


@given(st.lists(COMPONENT, min_size=1, max_size=8).map("/".join), st.text(max_size=50))
def test_an_accepted_path_stays_below_the_root_and_is_stored_unchanged(
    real: str, wild: str
) -> None:
    for path in (real, wild, f"{real}/{wild}"):
        try:
            parts = parts_of(path)
        except BadName:
            continue
        assert os.path.normpath("/".join(parts)) == "/".join(parts)
        assert all(os.fsdecode(os.fsencode(part)) == part for part in parts)
        assert os.fsencode("/".join(parts)) == os.fsencode(path)


def test_two_texts_for_the_same_bytes_are_one_name() -> None:
    assert parts_of("\udcc3\udca9") == parts_of("é")


BAD_LINKS = {
    "absolute": (("a",), "/etc"),
    "up": (("a",), ".."),
    "up and down": (("a",), "../b"),
    "up twice": (("a", "b"), "../../c"),
    "up after here": (("a",), "./.././b"),
    "up after slashes": (("a",), ".//../b"),
    "empty": (("a",), ""),
    "NUL": (("a",), "b\0"),
    "long": (("a",), "b" * PATH_BYTES_MAX),
    "no bytes": (("a",), "\ud800"),
    "up after a name": (("a", "b"), "link/../../../c"),
    "up after a name, though inside": (("a", "b"), "c/.."),
}


@pytest.mark.parametrize(("at", "target"), BAD_LINKS.values(), ids=BAD_LINKS.keys())
def test_a_link_that_could_lead_out_is_refused(at: tuple[str, ...], target: str) -> None:
    assert check_link(at, target)


@pytest.mark.parametrize(
    ("at", "target"),
    [
        (("a",), "b"),
        (("a",), "b/c"),
        (("a", "b"), ".."),
        (("a", "b"), "../c"),
        (("a",), "."),
        (("a",), "./b/./c"),
    ],
)
def test_a_link_that_stays_inside_is_taken(at: tuple[str, ...], target: str) -> None:
    assert check_link(at, target) is None


STEP = st.sampled_from(["..", ".", "", "l0", "l1", "l2", "d0", "d1"])


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["d0", "d1"]), max_size=2),
            st.lists(STEP, min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=3,
    )
)
@example([(["d0"], [".."]), (["d0"], ["l0", ".."])])
def test_no_set_of_links_that_were_taken_leads_out(
    links: list[tuple[list[str], list[str]]],
) -> None:
    """Follows every link as a kernel would: `..` is the parent of where the walk really is."""
    taken = {}
    for i, (folder, steps) in enumerate(links):
        at = (*folder, f"l{i}")
        if check_link(at, "/".join(steps)) is None:
            taken[at] = steps

    def walk(at: tuple[str, ...], steps: list[str], depth: int) -> tuple[str, ...]:
        for step in steps:
            if step == "..":
                assert at, "the walk has left the root"
                at = at[:-1]
            elif step not in ("", "."):
                at = (*at, step)
                if at in taken and depth < 8:
                    at = walk(at[:-1], taken[at], depth + 1)
        return at

    for at, steps in taken.items():
        walk(at[:-1], steps, 0)


@given(COMPONENT)
def test_an_unfinished_file_has_a_name_of_ours_that_fits(name: str) -> None:
    for ours in (part_name(name), journal_name(name)):
        assert is_ours(ours)
        assert len(os.fsencode(ours)) <= NAME_BYTES_MAX
        with pytest.raises(BadName):
            parts_of(ours)
    assert part_name(name) == part_name(name)


def test_the_unfinished_name_is_the_name_when_that_fits() -> None:
    assert part_name("photo.jpg") == ".photo.jpg.fastnet-part"
    assert journal_name("photo.jpg") == ".photo.jpg.fastnet-journal"


@given(COMPONENT, st.integers(0, 20))
@example("a" * 250, 0)
def test_no_two_files_share_an_unfinished_name(name: str, cut: int) -> None:
    crafted = part_name(name)[1:].removesuffix(".fastnet-part")
    for other in (crafted, name[:-cut], name + "x" * cut):
        if other and other != name and len(os.fsencode(other)) <= NAME_BYTES_MAX:
            assert part_name(other) != part_name(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.jpg", "photo (2).jpg"),
        ("photo", "photo (2)"),
        (".bashrc", ".bashrc (2)"),
        ("a.tar.gz", "a (2).tar.gz"),
        (".tar.gz", ".tar (2).gz"),
        ("a." + "b" * 40, "a." + "b" * 40 + " (2)"),
        ("a" * 255, "a" * 251 + " (2)"),
        ("a" * 251 + ".jpg", "a" * 247 + " (2).jpg"),
    ],
)
def test_a_numbered_name_keeps_its_suffix_and_fits(name: str, expected: str) -> None:
    assert numbered(name, 2) == expected


@given(COMPONENT, st.integers(2, 10**6))
def test_a_numbered_name_is_another_one_that_may_be_used(name: str, n: int) -> None:
    other = numbered(name, n)
    assert other != name
    assert numbered(name, n + 1) != other
    assert len(os.fsencode(other)) <= NAME_BYTES_MAX
    assert "/" not in other
