"""Extents: which ranges of a file are sent when the receiver already holds some of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.apps.transfer.extent import Extent, subtract

Ranges = list[tuple[int, int]]


@st.composite
def ascending(draw: st.DrawFn) -> Ranges:
    """Ascending half-open ranges without overlaps."""
    ends = sorted(draw(st.sets(st.integers(0, 200), max_size=16)))
    return list(zip(ends[::2], ends[1::2], strict=False))


def bytes_of(ranges: Ranges) -> set[int]:
    return {at for start, end in ranges for at in range(start, end)}


@given(ascending(), ascending(), st.integers(1, 64))
def test_subtract_covers_each_byte_of_the_ranges_once(
    ranges: Ranges, held_ranges: Ranges, bytes_max: int
) -> None:
    held = [Extent(start, end - start, b"held") for start, end in held_ranges]
    pieces = list(subtract(ranges, held, bytes_max))
    covered = [at for extent, _ in pieces for at in range(extent.offset, extent.end)]
    assert covered == sorted(set(covered)), "no overlap, in file order"
    assert bytes_of(ranges) <= set(covered)
    for extent, is_held in pieces:
        if is_held:
            assert extent in held
        else:
            assert 0 < extent.count <= bytes_max
            assert bytes_of([(extent.offset, extent.end)]) <= bytes_of(ranges)


@given(ascending(), st.integers(1, 64))
def test_a_held_extent_of_the_same_range_is_not_sent(ranges: Ranges, bytes_max: int) -> None:
    held = [Extent(start, end - start, b"held") for start, end in ranges]
    assert [extent for extent, _ in subtract(ranges, held, bytes_max)] == held


@pytest.mark.parametrize(
    ("held", "sent"),
    [
        ([], [(0, 4), (4, 4), (8, 2)]),
        ([(4, 4)], [(0, 4), (8, 2)]),
        ([(3, 2)], [(0, 3), (5, 4), (9, 1)]),
        ([(0, 10)], []),
    ],
)
def test_extents_are_sent_between_those_that_are_held(
    held: list[tuple[int, int]], sent: list[tuple[int, int]]
) -> None:
    pieces = subtract([(0, 10)], [Extent(offset, count) for offset, count in held], 4)
    assert [(each.offset, each.count) for each, is_held in pieces if not is_held] == sent
