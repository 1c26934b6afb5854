"""A series store made whole: whatever is missing is told, the rest is read as before."""

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from tbfast.config import Series
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.mend_series import UNKNOWN, mend_series
from tbfast.store.pages import expanded
from tbfast.store.series import SeriesStore
from tbfast.store.series_files import CHUNK_KEY
from tbfast.store.verify import damage
from tbfast.store.verify_records import NAME_COPY
from tests.support.blocks import DECIMAL
from tests.support.storage import Storage, ranged
from tests.unit.test_joins import end_window, joined, rows, sealed, to_format_1

RUNS = 3
SETTINGS = Series(join_runs=RUNS)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """Runs 1 and 2 in a window, 3 to 6 in the next, 6 in a family of its own."""
    opened = Storage(tmp_path / "data", journals=1, settings=SETTINGS)
    for run in (1, 2, 3):
        opened.write(0, 2, (run, {"a": "2"}))
        sealed(opened, (run, str(run)), (10, str(run)))
        sealed(opened, (run, '"text"'), key="b")
        if run == 1:
            end_window(opened)
    yield opened
    opened.close()


@contextlib.contextmanager
def hurt(path: Path) -> Iterator[Rdict]:
    """The closed database, to be damaged."""
    db = rocks.open_families(path, Rdict.list_cf(str(path)), write_buffer_bytes=1 << 20)
    try:
        yield db
    finally:
        rocks.close(db, path)


def mended(storage: Storage, *lossy: str) -> list[str]:
    """Mends the closed store; what it is then agrees with itself and can be written to."""
    path = storage.layout.series
    names = Rdict.list_cf(str(path))
    lost = mend_series(path, names, lossy)
    assert damage(path, "series", deep=True) == []
    reopen(storage)
    return lost


def reopen(storage: Storage) -> None:
    storage.__init__(storage.layout.root, journals=1, settings=SETTINGS)  # type: ignore[misc]


def of(store: SeriesStore) -> dict[int, dict[str, list[tuple[int, Any]]]]:
    return {device: rows(store, device) for device in (1, 2)}


def window_keys(db: Rdict) -> list[bytes]:
    return [key for key, _ in db.items() if key[:1] == b"w"]


def test_a_whole_store_stays_as_it_is(storage: Storage) -> None:
    before, windows = of(storage.store), storage.store.windows()
    storage.close()
    assert mended(storage) == []
    assert of(storage.store) == before
    assert storage.store.windows() == windows


@pytest.mark.parametrize("value", [None, b"\xc1"])
@pytest.mark.parametrize("which", [0, 1])
def test_chunks_whose_record_is_lost_are_kept(
    storage: Storage, which: int, value: bytes | None
) -> None:
    before, newest = of(storage.store), storage.store.recorded
    storage.close()
    with hurt(storage.layout.series) as db:
        key = window_keys(db)[which]
        db.delete(key) if value is None else db.put(key, value)
    lost = mended(storage, "default")
    words = "runs 1 to 2" if which == 0 else "runs 3 to 5"
    assert f"the record of {words}; the chunks are kept" in lost
    assert ("does not decode" in "".join(lost)) is (value is not None)
    assert of(storage.store) == before
    sealed(storage, (99, "99"))
    assert storage.store.recorded > newest
    assert rows(storage.store)["a"][-1] == (99, 99)


def test_all_records_are_lost(storage: Storage) -> None:
    before = of(storage.store)
    storage.close()
    with hurt(storage.layout.series) as db:
        for key in [key for key, _ in db.items()]:
            db.delete(key)
    assert mended(storage, "default")
    assert of(storage.store) == before
    sealed(storage, (10, "11"))  # a later run, or it would not win
    assert (10, 11) in rows(storage.store)["a"]


def test_the_record_of_the_newest_run_is_lost(storage: Storage) -> None:
    before, cursors = of(storage.store), storage.store.cursors()
    storage.close()
    with hurt(storage.layout.series) as db:
        db.delete(b"c")
        db.delete(b"n")
    assert mended(storage, "default") == []
    assert storage.store.cursors() == cursors
    assert of(storage.store) == before
    assert storage.store.begin_run() > 6


def test_chunks_of_a_run_that_was_never_recorded_stay_invisible(storage: Storage) -> None:
    before = of(storage.store)
    storage.close()
    with hurt(storage.layout.series) as db:
        family = max(name for name in Rdict.list_cf(str(storage.layout.series)) if name[0] == "w")
        chunks = db.get_column_family(family)
        key, chunk = next(iter(chunks.items()))
        device, number, _ = CHUNK_KEY.unpack(key)
        chunks[CHUNK_KEY.pack(device, number, 7)] = chunk
        rocks.close(chunks, storage.layout.series)
    assert mended(storage) == []
    assert of(storage.store) == before


def hurt_chunks(storage: Storage, device: int) -> int:
    """Damages all chunks of a device, also those in pages; how many."""
    count = 0
    with hurt(storage.layout.series) as db:
        family = db.get_column_family("w1")
        for key, value in [*family.items()]:
            for at, chunk in expanded(key, value):
                if CHUNK_KEY.unpack(at)[0] == device:
                    count += 1
                    value = value.replace(chunk, chunk[:-1] + bytes([chunk[-1] ^ 1]))
            family[key] = value
        rocks.close(family, storage.layout.series)
    return count


def test_a_chunk_that_cannot_be_read_is_told(storage: Storage) -> None:
    """It costs no other chunk of its page."""
    storage.close()
    assert hurt_chunks(storage, 1) == 2
    lost = mended(storage)
    assert len(lost) == 2 + 2
    assert lost[0].startswith("chunk of device 1, key 0, run 1: ")
    assert lost[-2:] == ["chunks of run 2", "2 of 3 points of run 1"]
    assert rows(storage.store) == {
        "a": [(2, 2), (3, 3), (10, 3)],
        "b": [(2, "text"), (3, "text")],
    }
    assert rows(storage.store, 2) == {"a": [(1, 2), (2, 2), (3, 2)]}
    assert [window.points for window in storage.store.windows()] == [1, 8]


@pytest.mark.parametrize("at", [0, 1, 6])
def test_a_page_that_cannot_be_read_is_told(storage: Storage, at: int) -> None:
    storage.close()
    with hurt(storage.layout.series) as db:
        family = db.get_column_family("w1")
        stored = family[CHUNK_KEY.pack(0, 0, 1)]
        assert isinstance(stored, bytes)
        page = bytearray(stored)
        page[at] ^= 0xFF
        family[CHUNK_KEY.pack(0, 0, 1)] = bytes(page)
        rocks.close(family, storage.layout.series)
    lost = mended(storage)
    what = "chunk of device 0, key 0" if at == 0 else "chunks of devices 0 to 63"
    assert lost[0].startswith(f"{what}, run 1: ")
    assert lost[1:] == ["chunks of run 1"]
    assert rows(storage.store, 2) == {"a": [(2, 2), (3, 2)]}


def test_a_family_is_missing(storage: Storage) -> None:
    storage.close()
    with hurt(storage.layout.series) as db:
        db.drop_column_family("w1")
    assert mended(storage) == ["chunks of run 1", "chunks of run 2"]
    assert rows(storage.store)["a"] == [(2, 2), (3, 3), (10, 3)]
    assert len(storage.store.windows()) == 1


def test_joined_chunks(storage: Storage) -> None:
    """What joins made is mended like what runs made: lost, without a record, damaged."""
    assert joined(storage)
    names = [[s.name for s in w.segments] for w in storage.store.windows()]
    assert [name[0] for name in names[0]] == ["j"]
    before = of(storage.store)
    storage.close()
    with hurt(storage.layout.series) as db:
        db.delete(window_keys(db)[0])
    assert mended(storage, "default") == ["the record of runs 1 to 2; the chunks are kept"]
    assert of(storage.store) == before
    storage.close()
    with hurt(storage.layout.series) as db:
        db.drop_column_family(names[0][0])
    assert mended(storage) == ["chunks of runs 1 to 2"]
    assert rows(storage.store)["a"] == [(2, 2), (3, 3), (10, 3)]


def lose_name(storage: Storage, *, copy: bool) -> int:
    """Takes the name of key b away, with its copy or without; its number."""
    number = {name: number for number, name in storage.store.key_names()}[b"b"]
    storage.close()
    with hurt(storage.layout.series) as db:
        keys = db.get_column_family("keys")
        keys.delete(struct.pack(">I", number))
        rocks.close(keys, storage.layout.series)
        if copy:
            db.delete(NAME_COPY + struct.pack(">I", number))
    return number


def copies(db: Rdict) -> dict[bytes, bytes]:
    return {key: name for key, name in db.items() if key[:1] == NAME_COPY}


def test_a_name_that_is_lost_is_taken_from_its_copy(storage: Storage) -> None:
    before = rows(storage.store)
    lose_name(storage, copy=False)
    assert any("key" in text for text in damage(storage.layout.series, "series", deep=False))
    assert mended(storage, "keys") == []
    assert rows(storage.store) == before


def test_a_store_without_copies_of_names_gets_them(storage: Storage) -> None:
    storage.close()
    with hurt(storage.layout.series) as db:
        before = copies(db)
        for key in before:
            db.delete(key)
    reopen(storage)
    storage.close()
    with hurt(storage.layout.series) as db:
        assert copies(db) == before
    assert sorted(before.values()) == [b"a", b"b"]
    reopen(storage)


def test_names_of_keys_are_lost(storage: Storage) -> None:
    numbers = {b"b": lose_name(storage, copy=True)}
    renamed = f"recovered-key-{numbers[b'b']}"
    assert mended(storage, "keys") == [f"the name of key {numbers[b'b']}, now {renamed!r}"]
    assert rows(storage.store)[renamed] == [(n, "text") for n in (1, 2, 3)]
    sealed(storage, (50, "1"), key="c")  # its number is one that no key had
    assert rows(storage.store).keys() == {"a", renamed, "c"}


@pytest.mark.parametrize("left", [0, 1])
def test_latest_values_follow_from_the_chunks(storage: Storage, left: int) -> None:
    expected = asyncio.run(latest(storage))
    storage.close()
    with hurt(storage.layout.series) as db:
        for name in ("latest", "changes"):
            family = db.get_column_family(name)
            for key in [key for key, _ in family.items()][left:]:
                family.delete(key)
            rocks.close(family, storage.layout.series)
    mended(storage, "latest", "changes")
    assert asyncio.run(latest(storage)) == expected


@pytest.mark.parametrize("family", ["latest", "changes"])
def test_latest_values_that_no_start_takes_back(storage: Storage, family: str) -> None:
    """Told of with the way out, found by a look at the store, and made anew from the chunks."""
    expected = asyncio.run(latest(storage))
    path = storage.layout.series
    storage.close()
    device = bytes([2]) if family == "changes" else b""
    bad = [2] if family == "changes" else [2, 77]  # no chunk is of the last one
    with hurt(path) as db:
        records = db.get_column_family(family)
        for number in bad:
            records[number.to_bytes(8)] = device + bytes([1 << 3 | DECIMAL, 200, 0, 2])
        rocks.close(records, path)
    with pytest.raises(StoreError, match=f"{path}.*latest values are damaged.*store recover"):
        reopen(storage)
    storage.close()
    assert damage(path, "series", deep=False) == []
    told = [f"{family} {number}: stored latest values are damaged" for number in bad]
    assert damage(path, "series", deep=True) == told
    mended(storage)
    assert asyncio.run(latest(storage)) == expected


async def latest(storage: Storage) -> list[Any]:
    return [
        await ranged(storage.reads, device, None, limit=1, ascending=False) for device in (1, 2)
    ]


def test_deletes_that_are_lost_are_told(storage: Storage) -> None:
    storage.close()
    assert mended(storage, "deleted") == ["deletes: what they had deleted may be seen again"]


def test_deletes_hide_nothing_of_a_run_whose_record_is_lost(storage: Storage) -> None:
    """Nobody knows any more whether its rows came before the delete."""
    sealed(storage, (77, "7"), key="late")
    asyncio.run(storage.deletes.delete(1, ["a"], start_ms=0, end_ms=2))
    assert (1, 1) not in rows(storage.store)["a"]
    storage.close()
    with hurt(storage.layout.series) as db:
        for key in window_keys(db):
            db.delete(key)
    mended(storage, "default")
    segments = [segment for window in storage.store.windows() for segment in window.segments]
    assert all(run.cursors == UNKNOWN for segment in segments for run in segment.runs)
    assert rows(storage.store)["late"] == [(77, 7)]
    assert (3, 3) in rows(storage.store)["a"]


def test_a_store_of_format_1_is_mended_into_the_present_one(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data", journals=1, settings=SETTINGS)
    try:
        for ts in range(RUNS - 1):
            sealed(storage, (ts, str(ts)))
        before = rows(storage.store)
        storage.close()
        to_format_1(storage.layout.series)
        with hurt(storage.layout.series) as db:
            db.put(b"r" + struct.pack(">I", 1), b"\xc1")
        lost = mended(storage, "default")
        assert any("run 1" in text for text in lost)
        assert rows(storage.store) == before
    finally:
        storage.close()
