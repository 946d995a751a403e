"""The histogram keeps three digits, as HdrHistogram does, in C and in Python."""

from __future__ import annotations

import ctypes
import errno
import itertools
import math
import shutil
import subprocess
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from fastnet.metrics.histogram import (
    SLOTS,
    SUB_BUCKET_BITS,
    VALUE_BITS,
    Histogram,
    slot_of,
    slot_range,
)

TRACKED = st.integers(0, 2**VALUE_BITS - 1)
"""Values that have a slot of their own."""

VALUES = st.lists(TRACKED | st.integers(0, 5000), min_size=1, max_size=200)
ROOT = Path(__file__).parents[3]

Recorder = Callable[[list[int]], Histogram]


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def reference(values: list[int]) -> HdrHistogram:
    oracle = HdrHistogram(1, 2**VALUE_BITS - 1, 3)
    for value in values:
        assert oracle.record_value(value)
    return oracle


@pytest.fixture(scope="module")
def record_natively(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this host")
    library = tmp_path_factory.mktemp("native") / "histogram.so"
    source = ROOT / "tests" / "unit" / "metrics" / "histogram_native.c"
    flags = [
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-std=gnu11",
        "-shared",
        "-fPIC",
        f"-I{ROOT / 'csrc'}",
    ]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    record_all = ctypes.CDLL(str(library)).record_all

    def record(values: list[int], slots: int = SLOTS) -> Histogram:
        histogram, given_values, sums = Histogram(), array("Q", values), array("Q", [0, 0, 0])
        memory = [
            ctypes.c_void_p(a.buffer_info()[0]) for a in (histogram.counts, given_values, sums)
        ]
        status = record_all(
            memory[0],
            ctypes.c_size_t(slots),
            SUB_BUCKET_BITS,
            memory[1],
            ctypes.c_size_t(len(values)),
            memory[2],
        )
        if status:
            raise OSError(-status, "fn_hist_open")
        histogram.total, histogram.sum, histogram.max = sums
        return histogram

    return record


@given(TRACKED)
def test_every_value_lies_in_a_slot_narrower_than_a_thousandth_of_it(
    value: int,
) -> None:
    lowest, highest = slot_range(slot_of(value))
    assert lowest <= value <= highest
    assert highest - lowest <= value / 1000


def test_slots_touch_without_gap_or_overlap() -> None:
    ends = [slot_range(slot) for slot in range(SLOTS)]
    assert ends[0][0] == 0
    assert ends[-1][1] == 2**VALUE_BITS - 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ends))


@given(VALUES)
def test_counts_are_those_of_hdrhistogram(values: list[int]) -> None:
    oracle = reference(values)
    mine = {bar.lowest: bar.count for bar in filled(values)}
    theirs = {
        oracle.get_value_from_index(i): oracle.get_count_at_index(i)
        for i in range(oracle.counts_len)
        if oracle.get_count_at_index(i)
    }
    assert mine == theirs


@given(VALUES, st.data())
def test_percentiles_are_those_of_hdrhistogram(values: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(values)))
    percent = 100 * (rank - 0.25) / len(values)  # both round this to the same rank
    theirs = reference(values).get_value_at_percentile(percent)
    assert filled(values).percentile(percent) == min(theirs, max(values))


@given(VALUES, st.floats(0, 100))
def test_a_percentile_is_the_sorted_value_to_three_digits(
    values: list[int], percent: float
) -> None:
    exact = sorted(values)[max(math.ceil(round(len(values) * percent / 100, 6)), 1) - 1]
    assert exact <= filled(values).percentile(percent) <= exact + exact / 1000


@given(VALUES, VALUES)
def test_merged_halves_equal_the_whole(left: list[int], right: list[int]) -> None:
    merged, whole = filled(left), filled(left + right)
    merged.merge(filled(right))
    assert merged.counts == whole.counts
    assert (merged.total, merged.sum, merged.max) == (whole.total, whole.sum, whole.max)


@given(VALUES)
def test_mean_total_and_max_are_exact(values: list[int]) -> None:
    histogram = filled(values)
    assert histogram.total == len(values) == sum(bar.count for bar in histogram)
    assert histogram.mean == sum(values) / len(values)
    assert histogram.max == max(values) == histogram.percentile(100)


def test_nines_of_a_thousand_values_are_the_ranks_one_expects() -> None:
    histogram = filled(list(range(1, 1001)))
    assert [histogram.percentile(p) for p in (0, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1000]


def test_a_value_beyond_the_range_is_counted_and_remains_the_max() -> None:
    histogram = filled([5, 2**60])
    assert histogram.total == 2
    assert histogram.percentile(100) == histogram.max == 2**60


def test_an_empty_or_reset_histogram_reports_zeros() -> None:
    histogram = filled([7])
    histogram.reset()
    assert (list(histogram), histogram.total, histogram.mean, histogram.percentile(99)) == (
        [],
        0,
        0.0,
        0,
    )


@given(values=st.lists(st.integers(0, 2**40) | st.integers(0, 5000), max_size=200))
def test_native_and_pure_fill_the_same_slots(record_natively: Recorder, values: list[int]) -> None:
    native, pure = record_natively(values), filled(values)
    assert native.counts == pure.counts
    assert (native.total, native.sum, native.max) == (pure.total, pure.sum, pure.max)


@pytest.mark.parametrize("slots", [0, 1024, SLOTS - 1])
def test_native_refuses_slots_that_are_no_whole_buckets(
    record_natively: Callable[..., Histogram], slots: int
) -> None:
    with pytest.raises(OSError) as refused:
        record_natively([], slots)
    assert refused.value.errno == errno.EINVAL
