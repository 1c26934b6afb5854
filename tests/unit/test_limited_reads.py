"""Limited reads of sealed series: what they answer, and how many chunks they look at for it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.deleted import Deleted
from tbfast._ext.scan import RangeScan
from tbfast._ext.sealer import feed_chunk
from tbfast.config import Series
from tests.property.test_merge import NAMES, RUNS, Stored
from tests.support.storage import Storage, parsed

DEVICE = 1
OTHER = 2
RUNS_STORED = 30
EACH = 100  # points of a run
STEP_MS = 1000
POINTS = RUNS_STORED * EACH


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "data", journals=1, settings=Series(join_runs=4))
    yield opened
    opened.close()


def seal(storage: Storage, *rows: tuple[int, dict[str, str]], device: int = DEVICE) -> None:
    storage.write(0, device, *rows)
    asyncio.run(storage.sealer.seal())


def fill(storage: Storage, *, joined: bool, window_of: int = RUNS_STORED) -> None:
    """RUNS_STORED runs of EACH points of `n` (value = place), a window for each `window_of`."""
    for run in range(RUNS_STORED):
        if run and run % window_of == 0:
            newest = storage.store.windows()[-1]
            storage.store.window_for(newest.opened_at_ms + 1000, 1000)
        places = range(run * EACH, (run + 1) * EACH)
        seal(storage, *((place * STEP_MS, {"n": str(place)}) for place in places))
        if joined:
            asyncio.run(storage.sealer.upkeep.join())


def read(storage: Storage, device: int = DEVICE, **asked: Any) -> tuple[list[int], int]:
    """Values of `n`, and how many chunks were looked at."""
    scan = RangeScan(device, ["n"], **asked)
    asyncio.run(storage.tail.feed(scan, device))
    storage.store.feed(scan, storage.tail.key_numbers(device))
    found = [point["value"] for point in parsed(scan.to_json()).get("n", [])]
    return found, scan.chunks


@pytest.mark.parametrize("window_of", [RUNS_STORED, 5])
@pytest.mark.parametrize("limit", [1, 50, 250])
def test_the_newest_points_are_read_from_the_newest_chunks(
    storage: Storage, window_of: int, limit: int
) -> None:
    fill(storage, joined=False, window_of=window_of)
    newest = list(range(POINTS))[::-1][:limit]
    assert read(storage, limit=limit) == (newest, -(-limit // EACH))
    oldest = list(range(limit))
    assert read(storage, limit=limit, ascending=True) == (oldest, -(-limit // EACH))


def test_from_an_end_on(storage: Storage) -> None:
    fill(storage, joined=False)
    found, chunks = read(storage, limit=150, end_ms=1850 * STEP_MS)
    assert found == list(range(1850))[::-1][:150]
    assert chunks == 3  # of the one that a bound cuts it is not certain how much counts
    found, chunks = read(storage, limit=150, start_ms=1850 * STEP_MS, ascending=True)
    assert found == list(range(1850, 2000))
    assert chunks == 3


def test_joined_chunks_are_left_alone_as_well(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbfast.limits.JOIN_POINTS", 2 * EACH)  # chunks of two runs
    fill(storage, joined=True)
    assert any(s.level > 0 for w in storage.store.windows() for s in w.segments)
    assert read(storage, limit=POINTS)[1] > 12
    found, chunks = read(storage, limit=1, ascending=True)
    assert (found, chunks) == ([0], 1)
    found, chunks = read(storage, limit=EACH, ascending=True)
    assert (found, chunks) == (list(range(EACH)), 1)
    newest = list(range(POINTS))[::-1]
    assert read(storage, limit=5 * EACH)[0] == newest[: 5 * EACH]
    assert read(storage, limit=5 * EACH)[1] <= 5


def test_rows_of_the_head_count(storage: Storage) -> None:
    fill(storage, joined=False)
    later = [(place * STEP_MS, {"n": str(place)}) for place in range(POINTS, POINTS + 10)]
    storage.write(0, DEVICE, *later)
    newest = list(range(POINTS + 10))[::-1]
    assert read(storage, limit=10) == (newest[:10], 0)
    assert read(storage, limit=11) == (newest[:11], 1)
    assert read(storage, limit=110) == (newest[:110], 1)


def test_late_rows_are_found_and_later_ones_win(storage: Storage) -> None:
    fill(storage, joined=False)
    newest = list(range(POINTS))[::-1]
    # The last of all runs replaces old points, and has one that belongs among the newest.
    seal(storage, (0, {"n": "-1"}), ((POINTS - 2) * STEP_MS + 1, {"n": "-2"}))
    seal(storage, ((POINTS - 1) * STEP_MS, {"n": "-3"}))
    assert read(storage, limit=4)[0] == [-3, -2, *newest[1:3]]
    assert read(storage, limit=1)[0] == [-3]
    assert read(storage, limit=2, ascending=True)[0] == [-1, 1]


@pytest.mark.parametrize("joined", [False, True])
def test_a_device_with_a_wrong_clock_costs_the_others_nothing(
    storage: Storage, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbfast.limits.JOIN_POINTS", 2 * EACH)
    for run in range(RUNS_STORED):
        storage.write(0, OTHER, (4_102_444_800_000 + run, {"n": "1"}), (-run, {"n": "2"}))
        places = range(run * EACH, (run + 1) * EACH)
        seal(storage, *((place * STEP_MS, {"n": str(place)}) for place in places))
        if joined:
            asyncio.run(storage.sealer.upkeep.join())
    assert any(s.level > 0 for w in storage.store.windows() for s in w.segments) == joined
    newest = list(range(POINTS))[::-1]
    span = {"start_ms": 700 * STEP_MS, "end_ms": 800 * STEP_MS}
    for asked, values in (
        ({"limit": 5 * EACH}, newest[: 5 * EACH]),
        ({"limit": EACH, "ascending": True}, list(range(EACH))),
        ({"limit": 10, **span}, newest[POINTS - 800 : POINTS - 790]),
        ({"limit": POINTS, **span}, newest[POINTS - 800 : POINTS - 700]),
    ):
        found, chunks = read(storage, **asked)
        assert found == values
        assert chunks <= -(-len(values) // EACH) + 1
    future, past = [1] * RUNS_STORED, [2] * RUNS_STORED
    assert read(storage, OTHER, limit=POINTS)[0] == future + past
    assert read(storage, OTHER, limit=POINTS, end_ms=700 * STEP_MS)[0] == past
    assert read(storage, OTHER, limit=POINTS, start_ms=700 * STEP_MS)[0] == future
    assert read(storage, OTHER, limit=POINTS, **span)[0] == []


def test_deleted_points_do_not_count(storage: Storage) -> None:
    fill(storage, joined=False)
    first = (POINTS - 150) * STEP_MS
    asyncio.run(storage.deletes.delete(DEVICE, ["n"], start_ms=first, end_ms=POINTS * STEP_MS))
    newest = list(range(POINTS - 150))[::-1]
    assert read(storage, limit=1)[0] == newest[:1]
    found, chunks = read(storage, limit=120)
    assert found == newest[:120]
    assert chunks <= 4


def test_each_key_of_a_read_gets_its_points(storage: Storage) -> None:
    seal(storage, (1, {"rare": "7", "n": "1"}))
    fill(storage, joined=False)
    scan = RangeScan(DEVICE, None, limit=3)
    storage.store.feed(scan, storage.tail.key_numbers(DEVICE))
    answer = parsed(scan.to_json())
    assert [point["value"] for point in answer["n"]] == [POINTS - 1, POINTS - 2, POINTS - 3]
    assert answer["rare"] == [{"ts": 1, "value": 7}]
    # The rare one is asked for everywhere, the other's own chunks are not read for it.
    assert scan.chunks == 2


# --- what `has_enough` counts ------------------------------------------------------------------

TOUCHING: list[Any] = [
    (1, [(ts, "INT64", 1) for ts in range(10)]),
    (1, [(ts, "INT64", 2) for ts in range(9, 19)]),
]


def enough(runs: list[Any], rows: dict[int, int], bound: int, **asked: Any) -> bool:
    stored = Stored(runs, rows, [])
    return stored.scan([*range(len(runs))], **asked).has_enough(b"a", bound)


def test_a_point_at_the_bound_could_be_replaced() -> None:
    assert enough(TOUCHING[1:], {}, 8, limit=10)
    assert not enough(TOUCHING[1:], {}, 9, limit=10)
    assert enough(TOUCHING[:1], {}, 10, limit=10, ascending=True)
    assert not enough(TOUCHING[:1], {}, 9, limit=10, ascending=True)
    assert enough(TOUCHING, {}, 17, limit=1)
    assert not enough(TOUCHING, {}, 18, limit=1)


@pytest.mark.parametrize(("ascending", "far"), [(False, -1), (True, 19)])
def test_a_time_that_two_chunks_have_counts_once(ascending: bool, far: int) -> None:
    apart = [TOUCHING[0], (1, [(ts, "INT64", 2) for ts in range(10, 19)])]
    assert enough(apart, {}, far, limit=19, ascending=ascending)
    assert not enough(TOUCHING, {}, far, limit=20, ascending=ascending)
    assert not enough(apart, {}, far, limit=20, ascending=ascending)


def test_a_row_counts_besides_chunks_that_end_before_it() -> None:
    assert enough(TOUCHING[1:], {19: 0}, 8, limit=11)
    assert not enough(TOUCHING[1:], {18: 0}, 8, limit=11)
    assert enough(TOUCHING[:1], {-1: 0}, 10, limit=11, ascending=True)
    assert not enough(TOUCHING[:1], {0: 0}, 10, limit=11, ascending=True)
    assert enough([], {3: 0, 4: 0}, 2, limit=2)
    assert not enough([], {3: 0, 4: 0}, 3, limit=2)


@given(
    runs=RUNS,
    deletes=st.lists(
        st.tuples(st.integers(1, 12), st.just(b"a"), st.integers(-50, 100), st.integers(0, 60)),
        max_size=2,
    ),
    rows=st.dictionaries(st.integers(-30, 50), st.integers(0, 99), max_size=4),
    start=st.none() | st.integers(-40, 120),
    end=st.none() | st.integers(-40, 120),
    limit=st.integers(1, 40) | st.sampled_from([128, 400]),
    ascending=st.booleans(),
    data=st.data(),
)
def test_enough_is_enough(runs, deletes, rows, start, end, limit, ascending, data) -> None:
    """With any chunks fed, `has_enough` speaks true of a bound: what lies there is not told."""
    stored = Stored(runs, rows, deletes)
    asked: dict[str, Any] = {
        "start_ms": start, "end_ms": end, "limit": limit, "ascending": ascending
    }  # fmt: skip
    order = data.draw(st.permutations(range(len(runs))))
    fed = order[: data.draw(st.integers(0, len(order)))]
    bound = data.draw(st.integers(-60, 160))
    scan = stored.scan(fed, **asked)
    if not scan.has_enough(b"a", bound):
        return
    expected = parsed(stored.scan(fed, **asked).to_json())["a"]
    assert len(expected) == limit
    assert all(p["ts"] < bound if ascending else p["ts"] > bound for p in expected)
    far = (-(2**62), bound - 1) if ascending else (bound + 1, 2**62)
    without_nearer = Deleted([(99, None, *far)])
    for n in set(order) - set(fed):
        feed_chunk(scan, stored.chunks[n], NAMES, n + 1, without_nearer)
    assert parsed(scan.to_json())["a"] == expected
