"""Histogram of durations: edges, bounds, merging."""

import pytest

from tbfast._ext.hist import Histogram

VALUE_MAX = (1 << 37) - 1


def of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_empty() -> None:
    empty = Histogram()
    assert (empty.count, empty.min, empty.max, empty.mean) == (0, 0, 0, 0.0)
    assert empty.quantile(0.5) == 0


def test_one_value_is_every_quantile() -> None:
    one = of(123_456_789)
    assert {one.quantile(q) for q in (0.0, 0.5, 1.0)} == {123_456_789}


def test_small_values_are_exact() -> None:
    histogram = of(*range(1, 101))
    assert histogram.quantile(0.5) == 50
    assert histogram.quantile(0.99) == 99
    assert histogram.quantile(0.991) == 100
    assert histogram.quantile(0.0) == 1
    assert histogram.mean == 50.5


def test_above_the_range() -> None:
    histogram = of(1, 1 << 63)
    assert histogram.max == VALUE_MAX
    assert histogram.quantile(1.0) == VALUE_MAX
    assert histogram.count == 2


def test_every_power_of_two_and_its_neighbours() -> None:
    for bit in range(37):
        for value in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1):
            read = of(0, value, VALUE_MAX).quantile(0.5)
            assert abs(read - value) <= value / 256, value


def test_clear() -> None:
    histogram = of(5, 6)
    histogram.clear()
    assert (histogram.count, histogram.min, histogram.max) == (0, 0, 0)


def test_merge_with_empty_keeps_the_minimum() -> None:
    into = Histogram()
    into.merge(of(7, 9))
    into.merge(Histogram())
    assert (into.count, into.min, into.max, into.quantile(0.5)) == (2, 7, 9, 7)


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_no_such_quantile(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        of(1).quantile(q)
