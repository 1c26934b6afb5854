"""Chunks joined in steps: what is read before, meanwhile and after, deletes, crashes, format 1."""

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rocksdict import Options, Rdict, WriteBatch

from tbfast import limits
from tbfast._ext.scan import RangeScan
from tbfast.config import Series
from tbfast.control.upkeep import ExpiryClock
from tbfast.store.joins import Join
from tbfast.store.series import FORMAT_VERSION, SeriesStore
from tbfast.store.series_files import CHUNK_KEY
from tests.support.blocks import INT64, Block, Point, Record, write_block
from tests.support.storage import Crash, Storage, parsed

RUNS = 4
FAN = 8


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "data", journals=1, settings=Series(join_runs=RUNS))
    yield opened
    opened.close()


def reopened(storage: Storage) -> Storage:
    """The same files after a clean end; `storage` closes what is opened here."""
    storage.close()
    storage.__init__(  # type: ignore[misc]
        storage.layout.root, journals=1, settings=Series(join_runs=RUNS)
    )
    return storage


def sealed(storage: Storage, *rows: tuple[int, str], device: int = 1, key: str = "a") -> None:
    storage.write(0, device, *((ts, {key: text}) for ts, text in rows))
    assert asyncio.run(storage.sealer.seal()) is not None


def joined(storage: Storage) -> int:
    return asyncio.run(storage.sealer.upkeep.join())


def end_window(storage: Storage) -> None:
    """The next run goes to another window."""
    opened = storage.store.windows()[-1].opened_at_ms
    storage.store.window_for(opened + 1000, 1000)


def rows(store: SeriesStore, device: int = 1, **bounds: Any) -> dict[str, list[tuple[int, Any]]]:
    """What recorded runs hold, by key."""
    scan = RangeScan(device, None, limit=1 << 40, ascending=True, **bounds)
    store.feed(scan, dict(store.key_names()))
    answer = parsed(scan.to_json())
    return {key: [(p["ts"], p["value"]) for p in points] for key, points in answer.items()}


def families(store: SeriesStore) -> list[list[str]]:
    """Of the segments of each window."""
    return [[segment.name for segment in window.segments] for window in store.windows()]


def chunk_keys(store: SeriesStore) -> list[tuple[int, int, int]]:
    """(device, key, run) of everything in the families of segments."""
    names = [name for window in families(store) for name in window]
    return [CHUNK_KEY.unpack(key) for name in names for key, _ in store._files.chunks[name].items()]


# --- what is joined when ---------------------------------------------------------------------


def test_a_join_leaves_the_block_cache_to_reads(storage: Storage) -> None:
    for run in range(RUNS):
        sealed(storage, *((1000 * run + n, f"{n:0200}x") for n in range(100)))
    cached = storage.store._files.cached_bytes
    assert joined(storage) == 1
    assert storage.store._files.cached_bytes == cached
    assert len(rows(storage.store)["a"]) == 100 * RUNS
    assert storage.store._files.cached_bytes > cached


def test_an_open_window_is_joined_when_a_segment_is_full(storage: Storage) -> None:
    for ts in range(RUNS):
        assert joined(storage) == 0
        sealed(storage, (ts, str(ts)))
    assert families(storage.store) == [["w1"]]
    assert joined(storage) == 1
    assert families(storage.store) == [["j2"]]
    assert chunk_keys(storage.store) == [(1, 0, RUNS)]
    assert rows(storage.store) == {"a": [(ts, ts) for ts in range(RUNS)]}
    sealed(storage, (9, "9"))
    assert joined(storage) == 0
    assert families(storage.store) == [["j2", "w3"]]
    assert rows(storage.store)["a"][-1] == (9, 9)
    reopened(storage)
    assert storage.replayed == 0
    assert len(rows(storage.store)["a"]) == RUNS + 1


def test_a_closed_window_becomes_one_segment(storage: Storage) -> None:
    for ts in range(RUNS + 2):
        sealed(storage, (ts, str(ts)))
        joined(storage)
    end_window(storage)
    assert joined(storage) == 1
    ((segment,),) = [window.segments for window in storage.store.windows()]
    assert (segment.level, segment.first_run, segment.last_run) == (2, 1, RUNS + 2)
    assert (segment.points, segment.min_ts, segment.max_ts) == (RUNS + 2, 0, RUNS + 1)
    assert chunk_keys(storage.store) == [(1, 0, RUNS + 2)]
    assert rows(storage.store) == {"a": [(ts, ts) for ts in range(RUNS + 2)]}
    assert joined(storage) == 0


def test_segments_of_a_level_are_joined_to_the_next(storage: Storage) -> None:
    count = RUNS * FAN
    for ts in range(count):
        sealed(storage, (ts, str(ts)))
        joined(storage)
    assert [s.level for s in storage.store.windows()[0].segments] == [2]
    assert chunk_keys(storage.store) == [(1, 0, count)]
    assert rows(storage.store) == {"a": [(ts, ts) for ts in range(count)]}


def test_a_series_of_64_points_has_its_own_chunk_afterwards(storage: Storage) -> None:
    for run in range(RUNS):
        sealed(storage, *((run * 100 + n, str(n)) for n in range(20)))
        sealed(storage, (run, "1"), key="b")
        joined(storage)
    end_window(storage)
    joined(storage)
    (_, a), (_, b) = sorted(storage.store.key_names())
    assert (a, b) == (b"a", b"b")
    assert chunk_keys(storage.store) == [(1, 0, 2 * RUNS), (1, 1, 2 * RUNS)]
    assert {key: len(points) for key, points in rows(storage.store).items()} == {"a": 80, "b": 4}


def test_many_devices_take_many_steps(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbfast.store.joins.STEP_CHUNKS", 10)
    monkeypatch.setattr("tbfast.store.joins.STEP_BYTES", 200)
    for run in range(RUNS):
        for device in range(1, 41):
            storage.write(0, device, (run, {"a": str(device)}))
        assert asyncio.run(storage.sealer.seal()) is not None
    join = storage.store.begin_join()
    assert join is not None
    steps = 1
    while join.step():
        steps += 1
    assert steps >= 8
    join.flush()
    storage.store.finish_join(join)
    join.close()
    assert chunk_keys(storage.store) == [(device, 0, RUNS) for device in range(1, 41)]
    for device in range(1, 41):
        assert rows(storage.store, device) == {"a": [(run, device) for run in range(RUNS)]}


def test_a_device_of_more_points_than_are_joined_at_a_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOIN_POINTS", 150)
    monkeypatch.setattr(limits, "JOIN_BYTES", 400)  # and more bytes than are held
    for run in range(RUNS):
        sealed(storage, *((n * RUNS + run, str(n * 7919 % 1013)) for n in range(100)))
    expected = rows(storage.store)
    assert joined(storage) == 1
    assert chunk_keys(storage.store) == [(1, 1, 2), (1, 1, 4)]
    assert rows(storage.store) == expected
    assert len(expected["a"]) == 100 * RUNS


# --- order, deletes --------------------------------------------------------------------------


def test_of_equal_times_the_last_run_wins_before_and_after(storage: Storage) -> None:
    for value in range(RUNS):
        sealed(storage, (7, str(value)), (10 + value, "0"))
    sealed(storage, (10, "5"))
    expected = {"a": [(7, RUNS - 1), (10, 5), *((10 + n, 0) for n in range(1, RUNS))]}
    assert rows(storage.store) == expected
    assert joined(storage) == 1
    assert rows(storage.store) == expected
    assert storage.store.windows()[0].segments[0].points == RUNS + 1
    end_window(storage)
    joined(storage)
    assert rows(storage.store) == expected
    sealed(storage, (7, "99"))
    assert rows(storage.store)["a"][0] == (7, 99)


def test_of_equal_times_the_later_commit_wins_whatever_comes_first(storage: Storage) -> None:
    """Blocks of two journals out of step, then a run, then its chunks joined with others."""
    storage.tail.apply(committed(8, 2_000, 2))
    storage.tail.apply(committed(9, 1_000, 1))
    assert asyncio.run(storage.sealer.seal()) is not None
    for value in range(1, RUNS):
        sealed(storage, (10 + value, "0"))
    before = rows(storage.store)
    assert before["a"][0] == (7, 2)
    assert joined(storage) == 1
    assert rows(storage.store) == before
    reopened(storage)
    assert parsed(asyncio.run(storage.reads.latest(1, None)))["a"][0]["ts"] == 10 + RUNS - 1
    assert rows(storage.store) == before


def committed(journal: int, commit_ms: int, value: int) -> bytes:
    record = Record(1, 7, [Point("a", INT64, value)])
    return write_block(Block(journal, 1, 1, commit_ms, 1, (), [record]))


def test_deleted_rows_are_left_out_and_stay_deleted(storage: Storage) -> None:
    for ts in range(RUNS - 1):
        sealed(storage, (ts, str(ts)), (100 + ts, "1"))
    asyncio.run(storage.deletes.delete(1, None, start_ms=0, end_ms=50))
    sealed(storage, (1, "11"))  # after the delete
    assert joined(storage) == 1
    expected = {"a": [(1, 11), (100, 1), (101, 1), (102, 1)]}
    assert rows(storage.store) == expected
    assert storage.store.windows()[0].points == 4
    storage.store.forget_tombstones()
    assert len(storage.store.tombstones) == 0
    assert rows(storage.store) == expected
    reopened(storage)
    assert rows(storage.store) == expected


def test_a_delete_in_the_middle_of_a_join(storage: Storage) -> None:
    """It comes too late for what has been written, and holds all the same."""
    for ts in range(RUNS):
        for device in (1, 2):
            storage.write(0, device, (ts, {"a": "1"}))
        asyncio.run(storage.sealer.seal())
    join = storage.store.begin_join()
    assert join is not None
    while join.step():
        pass
    for device in (1, 2):
        asyncio.run(storage.deletes.delete(device, None, start_ms=0, end_ms=2))
    join.flush()
    left = storage.store.finish_join(join)
    join.close()
    assert left == ["w1"]
    storage.store.forget_tombstones()
    expected = {"a": [(2, 1), (3, 1)]}
    for _ in range(2):
        assert [rows(storage.store, device) for device in (1, 2)] == [expected, expected]
        reopened(storage)
    sealed(storage, (0, "5"))
    assert rows(storage.store) == {"a": [(0, 5), (2, 1), (3, 1)]}


def test_a_window_of_which_nothing_is_left(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    asyncio.run(storage.deletes.delete(1, None))
    assert joined(storage) == 1
    assert storage.store.windows() == []
    sealed(storage, (5, "1"))
    assert rows(storage.store) == {"a": [(5, 1)]}
    reopened(storage)
    assert rows(storage.store) == {"a": [(5, 1)]}


# --- reads, drops and ends meanwhile ---------------------------------------------------------


def test_a_read_that_began_before_the_join_ended(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    reading = storage.store.chunks(1, 0, 0, 100)
    found = [next(reading)[0]]
    assert joined(storage) == 1
    assert "w1" not in storage.store._files.chunks
    assert found + [run for run, _ in reading] == list(range(1, RUNS + 1))


def test_runs_recorded_during_a_join_are_kept(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    join = storage.store.begin_join()
    assert join is not None
    sealed(storage, (50, "1"))
    while join.step():
        sealed(storage, (51, "1"))
    join.flush()
    storage.store.finish_join(join)
    join.close()
    assert [ts for ts, _ in rows(storage.store)["a"]] == [0, 1, 2, 3, 50]
    reopened(storage)
    assert [ts for ts, _ in rows(storage.store)["a"]] == [0, 1, 2, 3, 50]


def test_a_window_dropped_during_a_join(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    join = storage.store.begin_join()
    assert join is not None
    join.step()
    storage.store.drop_window(1)
    assert storage.store.finish_join(join) == [join.family]
    join.close()
    storage.store.forget(join.family)
    assert rows(storage.store) == {}
    assert storage.store.windows() == []


@pytest.mark.parametrize(
    "step",
    [("begin_join", False), ("finish_join", True), ("finish_join", False), ("forget", True)],
)
def test_a_crash_in_a_join(storage: Storage, step: tuple[str, bool], tmp_path: Path) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"), (9, str(ts)))
    expected = rows(storage.store)
    name, before = step
    storage.store.crash_at = (name, 0, before)
    with pytest.raises(Crash):
        joined(storage)
    root = storage.crashed_copy(tmp_path / "crashed")
    after = Storage(root, journals=1, settings=Series(join_runs=RUNS))
    try:
        assert after.replayed == 0 or after.sealed_to == {0: (1, RUNS)}
        assert rows(after.store) == expected
        joined(after)
        assert rows(after.store) == expected
        assert len(after.store._files.chunks) == 1
    finally:
        after.close()


def test_a_stop_in_the_middle_of_a_join(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))

    async def stopped() -> int:
        stopping = asyncio.Event()
        stopping.set()
        return await storage.sealer.upkeep.join(stopping=stopping)

    assert asyncio.run(stopped()) == 0
    assert families(storage.store) == [["w1"]]


def test_a_damaged_chunk_is_named_and_nothing_is_lost(storage: Storage) -> None:
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    key = CHUNK_KEY.pack(1, 0, 2)
    family = storage.store._files.chunks["w1"]
    good = family.get(key)
    family.put(key, good[:-1])
    with pytest.raises(Exception, match="device 1, run 2: series chunk is damaged"):
        joined(storage)
    family.put(key, good)
    assert joined(storage) == 1
    assert len(rows(storage.store)["a"]) == RUNS


# --- classes of retention ------------------------------------------------------------------------


def test_devices_of_a_class_have_windows_of_their_own(tmp_path: Path) -> None:
    settings = Series(retention_ms=16_000, retention={"short": 1_600}, join_runs=RUNS)
    storage = Storage(
        tmp_path / "data", journals=1, settings=settings, class_of=lambda device: device % 2
    )
    try:
        for device in (1, 2, 3, 4):
            storage.write(0, device, (device, {"a": str(device)}))
        record = asyncio.run(storage.sealer.seal())
        assert record is not None
        assert record.points == 4
        windows = storage.store.windows()
        assert sorted((w.retention_ms, w.points) for w in windows if w.retention_ms) == [(1_600, 2)]
        assert [w.points for w in windows] == [2, 2]
        for device in (1, 2, 3, 4):
            assert rows(storage.store, device) == {"a": [(device, device)]}
        (short,) = [w.number for w in windows if w.retention_ms]
        storage.store.drop_window(short)
        assert [bool(rows(storage.store, d)) for d in (1, 2, 3, 4)] == [False, True, False, True]
    finally:
        storage.close()


def test_a_device_that_changes_its_class_and_back_keeps_the_order_of_its_rows(
    tmp_path: Path,
) -> None:
    classes = {1: 0}
    storage = Storage(
        tmp_path / "data",
        journals=1,
        settings=Series(retention={"short": 86_400_000}, join_runs=RUNS),
        class_of=lambda device: classes[device],
    )
    try:
        for value, which in enumerate((0, 0, 1, 0, 1, 1, 0, 1, 1), 1):
            classes[1] = which
            sealed(storage, (7, str(value)), (value * 10, "0"), *([(8, "1")] if value < 4 else []))
            if value == 3:
                sealed(storage, (8, "3"))
        expected = rows(storage.store)
        assert expected["a"][:2] == [(7, 9), (8, 3)]
        sealed(storage, *((7, "100") for _ in range(1)))
        expected = rows(storage.store)
        assert joined(storage) > 1
        assert rows(storage.store) == expected
        for window in list(storage.store.windows()):
            storage.store.close_window(window.number, 1)
        joined(storage)
        assert [len(window.segments) for window in storage.store.windows()] == [1, 1]
        assert rows(storage.store) == expected
    finally:
        storage.close()


# --- the clock -------------------------------------------------------------------------------


def test_the_expiry_clock_follows_a_right_clock() -> None:
    clock = ExpiryClock(1_000_000, 50)
    assert clock.now(1_000_100, 150) == 1_000_100
    assert clock.now(1_000_050, 250) == 1_000_050  # a small step back
    assert clock.now(1_000_350, 450) == 1_000_350


def test_the_expiry_clock_takes_a_step_forward_slowly_and_one_back_at_once() -> None:
    clock = ExpiryClock(1_000_000, 0)
    assert clock.now(99_000_000, 1_000) == 1_002_000
    assert clock.now(99_001_000, 2_000) == 1_004_000
    assert clock.now(1_003_000, 3_000) == 1_003_000
    assert clock.now(500_000, 4_000) == 500_000
    assert clock.now(99_004_000, 5_000) == 1_008_000  # it goes on from where it was


def test_the_expiry_clock_knows_times_that_were_before_a_start_in_1970() -> None:
    clock = ExpiryClock(1_000, 0, 1_000_000)
    assert clock.now(2_000, 1_000) == 2_000
    assert clock.now(1_090_000, 2_000) == 1_003_000
    assert clock.now(1_150_000, 62_000) == 1_123_000
    assert clock.now(1_180_000, 92_000) == 1_180_000


# --- format 1 --------------------------------------------------------------------------------


def to_format_1(root: Path) -> None:
    """Puts the records of a store without joined segments back as version 1 had them."""
    names = Rdict.list_cf(str(root))
    db = Rdict(str(root), column_families={name: Options(raw_mode=True) for name in names})
    batch = WriteBatch(raw_mode=True)
    for key, value in db.items():
        if key[:1] == b"w":
            number, _, opened_ms, _, segments = msgspec.msgpack.decode(value)
            batch.put(key, msgspec.msgpack.encode([number, opened_ms]))
            for segment in segments:
                assert segment[0] == number, "families had their window's number"
                for run in segment[9]:
                    batch.put(
                        b"r" + struct.pack(">I", run[0]),
                        msgspec.msgpack.encode([run[0], number, *run[1:], 1_764_000_000_000]),
                    )
    batch.delete(b"c")
    batch.put(b"f", struct.pack(">I", 1))
    db.write(batch)
    db.close()


def test_a_store_of_format_1_is_taken_over(storage: Storage) -> None:
    for ts in range(2 * RUNS - 2):
        sealed(storage, (ts, "1"), (100, str(ts)))
        if ts == RUNS - 2:
            end_window(storage)
    asyncio.run(storage.deletes.delete(1, None, start_ms=0, end_ms=2))
    expected = rows(storage.store)
    storage.trim()
    storage.close()
    to_format_1(storage.layout.series)
    reopened(storage)
    assert storage.replayed == 0
    assert storage.store._files.db.get(b"f") == struct.pack(">I", FORMAT_VERSION)
    assert storage.tail.cursors() == {0: (1, 2 * RUNS - 2)}
    assert [len(window.segments[0].runs) for window in storage.store.windows()] == [3, 3]
    assert rows(storage.store) == expected
    sealed(storage, (200, "1"))
    assert storage.store.recorded == 2 * RUNS - 1
    joined(storage)
    reopened(storage)
    assert rows(storage.store) == {"a": [*expected["a"], (200, 1)]}


def test_joins_keep_no_iterator_of_a_closed_store(storage: Storage) -> None:
    """Else the store stays locked."""
    for ts in range(RUNS):
        sealed(storage, (ts, "1"))
    join = storage.store.begin_join()
    assert isinstance(join, Join)
    join.step()
    join.close()
    reopened(storage)
    assert rows(storage.store) == {"a": [(ts, 1) for ts in range(RUNS)]}
