"""Times of runs and of what is joined from them hold all rows, whichever devices are odd."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import Rdict

from tbfast.store import windows
from tbfast.store.windows import Open, Run, Segment, Window, joined_times, opened

USUAL = (1_000, 2_000)
NOTHING = (2**63 - 1, -(2**63))  # times of no row
DEVICES = st.integers(1, 12)
MS = st.integers(-5_000, 8_000) | st.sampled_from([-(2**63), 2**63 - 1])

Rows = dict[int, tuple[int, int]]  # device -> earliest and latest time of its rows in one run
runs_of_rows = st.lists(
    st.dictionaries(DEVICES, st.tuples(MS, MS).map(lambda pair: (min(pair), max(pair)))),
    min_size=1, max_size=12,
)  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ODD", 3)
    monkeypatch.setattr(windows, "SPANS", 4)


def recorded(window: Window, number: int, rows: Rows) -> Window:
    """The window after a run with these rows, told apart as the sealer does."""
    low, high = NOTHING
    odd = []
    for device, (first, last) in sorted(rows.items()):
        if first >= USUAL[0] and last <= USUAL[1]:
            low, high = min(low, first), max(high, last)
        else:
            odd.append((device, first, last))
    return window.with_run(1 + (number - 1) // 4, Run(number, {}, 1, 1, low, high), odd)


def joined(segments: tuple[Segment, ...], family: int, first: int, last: int) -> Segment:
    """As `Join.segment` makes it; first, last: of all rows."""
    spans, odd = joined_times(segments, first, last)
    return Segment(
        family, 1, segments[0].first_run, segments[-1].last_run, 1, 1, first, last,
        spans=spans, odd=odd,
    )  # fmt: skip


def holds(of: Open, run: int, device: int, rows: tuple[int, int]) -> bool:
    """Whether what a segment says of a device's times covers its rows in a run."""
    spans = of.times(device)
    _, low, high = next(span for span in spans if span[0] >= run)
    bounds = of.bounds(device)
    return (
        low <= rows[0] and rows[1] <= high
        and bounds[0] <= rows[0] and rows[1] <= bounds[1]
        and of.overlaps(device, rows[0], rows[0] + 1)
        and of.segment.min_ts <= rows[0] and rows[1] <= of.segment.max_ts
    )  # fmt: skip


@given(runs=runs_of_rows)
def test_no_row_is_outside_of_the_times_of_its_segment(runs: list[Rows]) -> None:
    window = Window(1, None, 0)
    for number, rows in enumerate(runs, 1):
        window = recorded(window, number, rows)
    no_family = cast(Rdict, None)
    for segment in window.segments:
        assert len(segment.odd) <= 3
        for run in segment.runs:
            for device, times in runs[run.number - 1].items():
                assert holds(opened(segment, no_family), run.number, device, times)
    all_times: list[Any] = [times for rows in runs for times in rows.values()]
    if not all_times:
        return
    first, last = min(t[0] for t in all_times), max(t[1] for t in all_times)
    whole = joined(window.segments, 9, first, last)
    halves = [joined((segment,), 10 + n, first, last) for n, segment in enumerate(window.segments)]
    for segment in (whole, joined(tuple(halves), 9, first, last)):
        assert len(segment.odd) <= 3
        assert len(segment.spans) <= 4
        for number, rows in enumerate(runs, 1):
            for device, times in rows.items():
                assert holds(opened(segment, no_family), number, device, times)


def test_the_furthest_devices_are_told_apart_and_the_rest_counts_for_all() -> None:
    rows = {1: (1_100, 1_900)} | {
        device: (5_000 + device, 5_000 + device) for device in range(2, 8)
    }
    (segment,) = recorded(Window(1, None, 0), 1, rows).segments
    assert {device for device, _, _ in segment.odd} == {5, 6, 7}
    assert segment.times() == [(1, 1_100, 5_004)]
    assert (segment.min_ts, segment.max_ts) == (1_100, 5_007)
