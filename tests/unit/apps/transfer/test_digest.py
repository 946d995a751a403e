"""The digest of a file from those of its extents, in whatever order they arrived.

Extents that cannot be those of the file are refused.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.apps.transfer.digest import RECORD, Algorithm, FileDigest
from fastnet.apps.transfer.extent import Extent
from fastnet.apps.transfer.target.journal import without_overlaps

XXH3 = Algorithm("xxh3-128")
DATA = bytes(range(256)) * 4
SIZE = len(DATA)


def digest_of(ranges: list[tuple[int, int]], size: int = SIZE) -> bytes:
    digest = FileDigest(XXH3)
    for offset, count in ranges:
        digest.add(offset, count, XXH3.of(DATA[offset : offset + count]))
    return digest.of_size(size)


@given(st.permutations([(0, 100), (100, 300), (500, 24), (600, 424)]))
def test_the_order_in_which_extents_are_added_does_not_show(ranges) -> None:
    rows = b"".join(RECORD.pack(at, n) + XXH3.of(DATA[at : at + n]) for at, n in sorted(ranges))
    assert digest_of(ranges) == XXH3.of(rows + RECORD.pack(SIZE, 0))


def test_one_extent_gives_its_digest_and_an_empty_file_that_of_no_bytes() -> None:
    assert digest_of([(0, SIZE)]) == XXH3.of(DATA)
    assert digest_of([], 0) == XXH3.of(b"")


@pytest.mark.parametrize("ranges", [[(0, SIZE - 1)], [(1, SIZE - 1)], [(0, 1), (1, SIZE - 1)]])
def test_one_with_a_hole_or_in_two_parts_has_another(ranges) -> None:
    assert digest_of(ranges) != digest_of([(0, SIZE)])


@pytest.mark.parametrize(
    "ranges", [[(0, 10), (9, 10)], [(5, 10), (5, 10)], [(0, SIZE), (0, 1)], [(1, SIZE)]]
)
def test_extents_that_overlap_or_end_beyond_are_no_file(ranges) -> None:
    with pytest.raises(ValueError, match=r"overlap|beyond"):
        digest_of(ranges)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_what_a_journal_keeps_is_in_order_and_apart(ranges) -> None:
    kept = without_overlaps([Extent(offset, count, b"") for offset, count in ranges])
    ends = 0
    for extent in kept:
        assert extent.offset >= ends
        ends = extent.offset + extent.count
    assert bool(kept) == bool(ranges)
