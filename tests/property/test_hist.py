"""Histogram of durations against sorting the values."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.hist import Histogram

VALUES = st.lists(st.integers(0, 36).flatmap(lambda bits: st.integers(0, 1 << bits)), min_size=1)
QUANTILES = st.floats(0, 1)


def recorded(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, QUANTILES)
def test_quantile_is_within_one_percent(values: list[int], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert abs(recorded(values).quantile(q) - exact) <= exact / 100


@given(VALUES, VALUES, QUANTILES)
def test_merge_is_recording_both(left: list[int], right: list[int], q: float) -> None:
    merged, both = recorded(left), recorded(left + right)
    merged.merge(recorded(right))
    for name in ("count", "min", "max", "mean"):
        assert getattr(merged, name) == getattr(both, name)
    assert merged.quantile(q) == both.quantile(q)
