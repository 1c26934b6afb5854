"""The series store on a real file system: runs, windows, retention, what is restored, refused."""

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from tbfast import limits
from tbfast._ext.scan import RangeScan
from tbfast.config import Series
from tbfast.control import sealer
from tbfast.errors import StoreBusy, StoreError
from tbfast.store.series import CHUNK_KEY, FORMAT_VERSION, RunRecord, SeriesStore
from tbfast.store.series_files import RAW_FILES
from tests.support.blocks import STRING, Block, Point, Record, write_block
from tests.support.storage import Crash, Storage, parsed, ranged
from tests.support.waiting import wait_until

SPAN_MS = 1000


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "data", journals=1)
    yield opened
    opened.close()


def reopened(storage: Storage) -> Storage:
    """The same files after a clean end; `storage` closes what is opened here."""
    storage.close()
    storage.__init__(storage.layout.root, journals=len(storage.journals))  # type: ignore[misc]
    return storage


def seal(storage: Storage) -> RunRecord:
    record = asyncio.run(storage.sealer.seal())
    assert record is not None
    return record


def sealed(storage: Storage, ts: int, value: int = 1, device: int = 1) -> RunRecord:
    storage.write(0, device, (ts, {"a": str(value)}))
    return seal(storage)


def stored(store: SeriesStore, device: int = 1, **bounds: Any) -> list[tuple[int, int]]:
    """(ts, value) of key a in recorded runs, oldest first."""
    scan = RangeScan(device, None, limit=1000, ascending=True, **bounds)
    store.feed(scan, dict(store.key_names()))
    return [(point["ts"], point["value"]) for point in parsed(scan.to_json()).get("a", [])]


def next_window(store: SeriesStore) -> int:
    opened = store.windows()[-1].opened_at_ms
    return store.window_for(opened + SPAN_MS, SPAN_MS)


# --- runs ------------------------------------------------------------------------------------


def test_run_numbers_are_never_given_twice(storage: Storage) -> None:
    given = [storage.store.begin_run() for _ in range(3)]
    reopened(storage)
    given.append(storage.store.begin_run())
    record = sealed(storage, 1)
    assert [*given, record.number] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("batches", [[(1, 2, 2)], [(1, 2), (2, 3)], [(2, 3), (1,)]])
def test_a_chunk_in_the_place_of_another_is_refused(
    storage: Storage, batches: list[tuple[int, ...]]
) -> None:
    run = storage.store.begin_run()
    window = storage.store.window_for(0, SPAN_MS)
    *good, bad = [[(CHUNK_KEY.pack(n, 0, run), b"chunk") for n in batch] for batch in batches]
    for batch in good:
        storage.store.write_chunks(window, batch)
    with pytest.raises(StoreError, match="two chunks for one place"):
        storage.store.write_chunks(window, bad)
    storage.store.begin_run()
    storage.store.write_chunks(storage.store.window_for(0, SPAN_MS), bad[:1])


@pytest.mark.parametrize("step", ["write_chunks", "write_changes", "finish_run"])
def test_chunks_of_an_unrecorded_run_are_invisible(storage: Storage, step: str) -> None:
    sealed(storage, 1)
    storage.write(0, 1, (2, {"a": "2"}))
    storage.store.crash_at = (step, 0, step == "finish_run")
    with pytest.raises(Crash):
        asyncio.run(storage.sealer.seal())
    assert stored(storage.store) == [(1, 1)]
    reopened(storage)
    assert stored(storage.store) == [(1, 1)]
    assert storage.replayed == 1
    assert seal(storage).number == 3
    assert stored(storage.store) == [(1, 1), (2, 2)]


def test_a_later_run_wins(storage: Storage) -> None:
    for value in (1, 2, 3):
        sealed(storage, 7, value)
    assert stored(storage.store) == [(7, 3)]


def test_a_run_that_failed_is_taken_up_again_with_what_it_had(storage: Storage) -> None:
    storage.write(0, 1, (1, {"a": "1"}))
    storage.store.crash_at = ("write_chunks", 0, True)
    with pytest.raises(Crash):
        asyncio.run(storage.sealer.seal())
    storage.store.crash_at = None
    storage.write(0, 1, (2, {"a": "2"}))
    asyncio.run(storage.sealer.finish())
    assert stored(storage.store) == [(1, 1), (2, 2)]
    (window,) = storage.store.windows()
    assert [run.cursors for run in window.segments[0].runs] == [{0: (1, 1)}, {0: (1, 2)}]


def test_latest_of_a_series_that_began_during_a_run(storage: Storage) -> None:
    """Its key is not stored yet when the device's latest values are."""

    async def seal_and_write() -> None:
        sealing = asyncio.ensure_future(storage.sealer.seal())
        await asyncio.sleep(0)
        storage.write(0, 1, (2, {"new": "2"}))
        await sealing

    storage.write(0, 1, (1, {"a": "1"}))
    asyncio.run(seal_and_write())
    assert [name for _, name in storage.store.key_names()] == [b"a"]
    reopened(storage)
    latest = parsed(asyncio.run(storage.reads.latest(1, None)))
    assert latest == {"a": [{"ts": 1, "value": 1}], "new": [{"ts": 2, "value": 2}]}


def test_keys_latest_and_cursors_come_back_without_replay(storage: Storage) -> None:
    values = {"a": "1", "b": "1.50", "c": '"text"', "d": "true", "e": '{"x":[1]}', "f": "-7"}
    storage.write(0, 1, (5, values), (3, {"a": "9"}))
    storage.write(0, 2, (-5, {"b": '""'}))
    asyncio.run(storage.sealer.finish())
    before = [asyncio.run(storage.reads.latest(device, None)) for device in (1, 2)]
    storage.trim()
    reopened(storage)
    assert storage.replayed == 0
    after = [asyncio.run(storage.reads.latest(device, None)) for device in (1, 2)]
    assert [parsed(text) for text in after] == [parsed(text) for text in before]
    assert asyncio.run(storage.reads.keys(1)) == sorted(values)
    assert storage.tail.cursors() == {0: (1, 2)}
    storage.write(0, 1, (6, {"a": "2"}))
    assert asyncio.run(ranged(storage.reads, 1, ["a"]))["a"][-1] == {"ts": 6, "value": 2}


def test_latest_strings_beyond_what_memory_holds_come_back(storage: Storage) -> None:
    """64 MiB of them are kept; of the others the start knows that they are."""
    text = "x" * (1 << 20)
    keys = [f"k{n:02}" for n in range(66)]
    for n, key in enumerate(keys):
        storage.write(0, 1, (n, {key: f'"{n}{text}"'}))
    asyncio.run(storage.sealer.finish())
    storage.trim()
    reopened(storage)
    assert storage.replayed == 0
    assert asyncio.run(storage.reads.keys(1)) == keys
    latest = parsed(asyncio.run(storage.reads.latest(1, None)))
    assert {key: points[0]["ts"] for key, points in latest.items()} == dict(
        zip(keys, range(66), strict=True)
    )
    assert latest["k65"][0]["value"] == "65" + text


# --- windows ---------------------------------------------------------------------------------


def test_windows_open_by_time(storage: Storage) -> None:
    store = storage.store
    assert store.window_for(10_000, SPAN_MS) == 1
    assert store.window_for(10_000 + SPAN_MS - 1, SPAN_MS) == 1
    assert store.window_for(10_000 - SPAN_MS + 1, SPAN_MS) == 1  # a clock that was set back
    assert store.window_for(10_000 + SPAN_MS, SPAN_MS) == 2
    assert store.window_for(1 << 60, 0) == 2  # windows without an end
    assert storage.store.windows() == []  # none has rows
    reopened(storage)
    assert storage.store.window_for(11_999, SPAN_MS) == 1  # and so none was kept


def test_reads_skip_windows_outside_the_range(storage: Storage) -> None:
    for ts in (100, 200, 300):
        sealed(storage, ts)
        next_window(storage.store)
    assert [(w.number, w.min_ts, w.max_ts) for w in storage.store.windows()] == [
        (1, 100, 100),
        (2, 200, 200),
        (3, 300, 300),
    ]
    assert [run for run, _ in storage.store.chunks(1, 0, 150, 301)] == [2, 3]
    assert [run for run, _ in storage.store.chunks(1, 0, 150, 300)] == [2]
    assert [run for run, _ in storage.store.chunks(1, 0, 100, 101)] == [1]
    assert stored(storage.store, start_ms=200, end_ms=300) == [(200, 1)]


def test_a_dropped_window_is_gone_and_its_cursors_are_not(storage: Storage) -> None:
    sealed(storage, 1)
    next_window(storage.store)
    sealed(storage, 2)
    storage.store.drop_window(1)
    for _ in range(2):
        assert stored(storage.store) == [(2, 1)]
        assert [w.number for w in storage.store.windows()] == [2]
        assert storage.store.cursors() == {0: (1, 2)}
        reopened(storage)
    assert storage.replayed == 0


def test_dropping_the_newest_window_keeps_the_newest_record(storage: Storage) -> None:
    sealed(storage, 1)
    storage.store.drop_window(1)
    for _ in range(2):
        assert stored(storage.store) == []
        assert storage.store.windows() == []
        assert storage.store.cursors() == {0: (1, 1)}
        reopened(storage)
    assert storage.replayed == 0
    record = sealed(storage, 2)
    assert record.windows == (2,)  # a number that was never used
    assert stored(storage.store) == [(2, 1)]


def test_a_read_that_runs_while_its_window_is_dropped(storage: Storage) -> None:
    for ts in (1, 2):
        sealed(storage, ts)
    reading = storage.store.chunks(1, 0, 0, 10)
    assert next(reading)[0] == 1
    storage.store.drop_window(1)
    assert [run for run, _ in reading] in ([], [2])


def test_a_window_that_was_being_opened_at_the_end(storage: Storage) -> None:
    sealed(storage, 1)
    storage.close()
    families = Rdict.list_cf(str(storage.layout.series))
    db = Rdict(
        str(storage.layout.series),
        column_families={name: Options(raw_mode=True) for name in families},
    )
    db.create_column_family("w2", Options(raw_mode=True))
    db.close()
    reopened_here = Storage(storage.layout.root, journals=1)
    next_window(reopened_here.store)
    assert sealed(reopened_here, 2).windows == (2,)
    assert stored(reopened_here.store) == [(1, 1), (2, 1)]
    reopened_here.close()
    storage.__init__(storage.layout.root, journals=1)  # type: ignore[misc]


# --- retention -------------------------------------------------------------------------------


def retained(tmp_path: Path, **settings: int) -> Storage:
    return Storage(tmp_path / "retained", journals=1, settings=Series(**settings))


def test_retention_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(1_000_000_000)
    monkeypatch.setattr("tbfast.control.upkeep.time", clock)
    storage = retained(tmp_path, retention_ms=16_000)  # windows of 1 s
    windows = []
    for ts in range(20):
        windows += sealed(storage, ts).windows
        clock.wall_ms += 1000
    assert windows == list(range(1, 21))
    kept = [w.number for w in storage.store.windows()]
    assert kept == list(range(4, 21))  # of the third, the last row came 16 s ago
    assert [ts for ts, _ in stored(storage.store)] == list(range(3, 20))
    assert storage.store.cursors() == {0: (1, 20)}
    storage.close()


@pytest.mark.parametrize("wrong_ms", [0, 1_000_000_000_000 + 10 * 365 * 86_400_000])
def test_a_clock_that_was_wrong_for_a_while_makes_nothing_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_ms: int
) -> None:
    clock = _Clock(1_000_000_000_000)
    monkeypatch.setattr("tbfast.control.upkeep.time", clock)
    storage = retained(tmp_path, retention_ms=16_000)
    sealed(storage, 0)
    clock.wall_ms = wrong_ms
    sealed(storage, 1)
    clock.wall_ms = 1_000_000_001_000
    for ts in range(2, 15):
        sealed(storage, ts)
        clock.wall_ms += 1000
    assert [ts for ts, _ in stored(storage.store)] == list(range(15))
    for ts in range(15, 25):
        sealed(storage, ts)
        clock.wall_ms += 1000
    assert [ts for ts, _ in stored(storage.store)] == list(range(8, 25))
    storage.close()


def test_retention_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(1_000_000_000)
    monkeypatch.setattr("tbfast.control.upkeep.time", clock)
    storage = retained(tmp_path, retention_ms=1_600_000, max_bytes=100)
    for ts in range(60):
        sealed(storage, ts)
        clock.wall_ms += 100_000
    windows = storage.store.windows()
    assert 1 < len(windows) < 16
    assert sum(w.chunk_bytes for w in windows) <= 100
    assert sum(w.chunk_bytes for w in windows) + windows[0].chunk_bytes > 100
    assert [ts for ts, _ in stored(storage.store)][-1] == 59
    storage.close()


class _Clock:
    def __init__(self, wall_ms: int) -> None:
        self.wall_ms = wall_ms

    def time_ns(self) -> int:
        return self.wall_ms * 1_000_000

    def monotonic(self) -> float:
        return self.wall_ms / 1000


# --- refusals --------------------------------------------------------------------------------


def test_a_second_opener_is_refused(storage: Storage) -> None:
    with pytest.raises(StoreBusy, match=str(storage.layout.series)):
        SeriesStore(storage.layout.series)


def test_a_newer_format_is_refused(storage: Storage) -> None:
    storage.store._files.db.put(b"f", struct.pack(">I", FORMAT_VERSION + 1))
    storage.close()
    with pytest.raises(StoreError, match=rf"newer tbfast \(format {FORMAT_VERSION + 1}"):
        SeriesStore(storage.layout.series)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: b"", lambda c: b"\xff" * len(c)])
def test_a_damaged_chunk_names_the_path(storage: Storage, change) -> None:
    storage.write(0, 1, *((n, {"a": str(n)}) for n in range(10)))
    record = seal(storage)
    key = CHUNK_KEY.pack(1, 0, record.number)
    family = storage.store._files.chunks["w1"]
    family.put(key, change(family.get(key)))
    with pytest.raises(StoreError, match=f"{storage.layout.series}: device 1, key 0, run 1"):
        stored(storage.store)


def test_a_damaged_table_names_the_path(storage: Storage) -> None:
    rng = 0x9E3779B97F4A7C15
    for n in range(200):
        rng = rng * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        storage.write(0, 1, (n, {"a": f'"{rng:x}"'}))
    seal(storage)
    storage.close()
    for table in storage.layout.series.glob("*.sst"):
        content = bytearray(table.read_bytes())
        for at in range(8, len(content) // 2, 16):
            content[at] ^= 0xFF
        table.write_bytes(content)
    with pytest.raises(StoreError, match=str(storage.layout.series)):
        store = SeriesStore(storage.layout.series)
        try:
            stored(store)
        finally:
            store.close()


# --- latest values ---------------------------------------------------------------------------


def test_a_run_writes_the_latest_values_of_its_series_only(storage: Storage) -> None:
    storage.write(0, 1, (1, {f"k{n}": str(n) for n in range(500)}))
    seal(storage)
    first = storage.store.latest.changes_bytes
    storage.write(0, 1, (2, {"k7": "9"}))
    seal(storage)
    assert first > 2_000
    assert storage.store.latest.changes_bytes - first < 20
    storage.trim()
    reopened(storage)
    latest = parsed(asyncio.run(storage.reads.latest(1, None)))
    assert len(latest) == 500
    assert latest["k7"] == [{"ts": 2, "value": 9}]


def test_changes_of_latest_values_go_to_the_records_now_and_then(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LATEST_RUNS", 3)
    for ts in range(7):
        storage.write(0, 1, (ts, {"a": str(ts)}))
        storage.write(0, 2, (ts, {f"k{ts}": "1"}))
        seal(storage)
        assert len(list(storage.store.latest.changes())) == (ts + 1) % 3
    assert [device for device, _ in storage.store.latest.records()] == [1, 2]
    storage.trim()
    reopened(storage)
    assert storage.replayed == 0
    latest = parsed(asyncio.run(storage.reads.latest(1, None)))
    assert latest == {"a": [{"ts": 6, "value": 6}]}
    assert asyncio.run(storage.reads.keys(2)) == [f"k{n}" for n in range(7)]


# --- merging of files ----------------------------------------------------------------------------


def unmerged(store: SeriesStore) -> int:
    """Files of runs as they were written."""
    level = "rocksdb.num-files-at-level0"
    return sum(int(f.property_int_value(level) or 0) for f in store._files.chunks.values())


@pytest.mark.parametrize("before", [0, 1], ids=["new family", "old family"])
def test_files_of_runs_are_merged_when_it_is_no_longer_held(storage: Storage, before: int) -> None:
    for ts in range(before):
        sealed(storage, ts)
    storage.store.hold_merging(True)
    for ts in range(before, RAW_FILES + 4):
        sealed(storage, ts)
    assert storage.store.merging_held
    assert unmerged(storage.store) == RAW_FILES + 4
    storage.store.hold_merging(False)
    wait_until(lambda: unmerged(storage.store) == 0)
    assert stored(storage.store) == [(ts, 1) for ts in range(RAW_FILES + 4)]
    assert not storage.store.merging_held


def test_merging_is_held_while_full_heads_come_one_upon_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer, "MERGE_AFTER_S", 1.0)
    storage = Storage(tmp_path / "data", journals=1, settings=Series(head_bytes=1))
    store = storage.store

    async def until_held(held: bool) -> int:
        """Writes a full head at a time, or nothing, until merging is held, or not; their number."""
        count = 0
        async with asyncio.timeout(30):
            while store.merging_held != held:
                if held:
                    storage.write(0, 1, (count, {"a": "1"}))
                    count += 1
                await asyncio.sleep(0.01)
        return count

    async def write() -> int:
        sealing = asyncio.create_task(storage.sealer.run())
        count = await until_held(True)
        await until_held(False)
        await storage.sealer.finish()
        await sealing
        return count

    with contextlib.closing(storage):
        count = asyncio.run(write())
        assert count > 1  # one full head is none upon another
        assert stored(store) == [(ts, 1) for ts in range(count)]


# --- last activity ---------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 64], ids=["from records", "from changes"])
def test_last_activity_comes_back(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """From runs, from what is replayed, and of devices that send nothing but attributes."""
    monkeypatch.setattr(limits, "LATEST_RUNS", runs)
    storage.write(0, 1, (1, {"a": "1"}))
    storage.tail.apply(write_block(Block(9, 1, 1, 5_000, 1, (), [attribute(2)])))
    seal(storage)
    storage.write(0, 3, (1, {"a": "1"}))
    seal(storage)
    storage.write(0, 1, (2, {"a": "2"}))
    active = {device: storage.tail.activity_ms(device) for device in (1, 2, 3)}
    assert active[1] > active[3] > active[2] == 5_000
    for _ in range(2):
        again = reopened(storage)
        assert {device: again.tail.activity_ms(device) for device in active} == active
        assert again.tail.activity_ms(4) == 0
        assert again.tail.keys(2) == []
    seal(storage)
    again = reopened(storage)
    assert {device: again.tail.activity_ms(device) for device in active} == active


def test_last_activity_of_a_run_that_was_tried_again(storage: Storage) -> None:
    storage.write(0, 1, (1, {"a": "1"}))
    storage.store.crash_at = ("finish_run", 0, True)
    with pytest.raises(Crash):
        seal(storage)
    storage.store.crash_at = None
    storage.write(0, 2, (1, {"a": "1"}))
    seal(storage)
    seal(storage)
    active = [storage.tail.activity_ms(device) for device in (1, 2)]
    again = reopened(storage)
    assert again.replayed == 0
    assert [again.tail.activity_ms(device) for device in (1, 2)] == active


def attribute(device: int) -> Record:
    return Record(device, 1, [Point("name", STRING, "pump")], kind=1)
