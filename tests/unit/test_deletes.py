"""Deletes on a node's storage: what is gone, what stays, and that nothing brings it back."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.control.tail import TailService
from tbfast.errors import ResourceError, StoreFull, StoreStall
from tbfast.model.device import Change
from tests.support.storage import Storage, parsed, ranged


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "data", journals=1)
    yield opened
    opened.close()


def killed(storage: Storage, tmp_path: Path) -> Storage:
    """What a start finds after kill -9; `storage` closes what is opened here."""
    root = storage.crashed_copy(tmp_path / f"copy of {storage.layout.root.name}")
    storage.close()
    storage.__init__(root, journals=1)  # type: ignore[misc]
    return storage


def put(storage: Storage, *times: int, key: str = "a", device: int = 1) -> None:
    for ts in times:
        storage.write(0, device, (ts, {key: str(ts)}))


def delete(storage: Storage, keys: Sequence[str] | None = None, **how: Any) -> None:
    asyncio.run(storage.deletes.delete(1, keys, **how))


def seal(storage: Storage) -> int:
    record = asyncio.run(storage.sealer.seal())
    assert record is not None
    return record.number


def times(storage: Storage, key: str = "a", device: int = 1) -> list[int]:
    found = asyncio.run(ranged(storage.reads, device))
    return [point["ts"] for point in found.get(key, [])]


def latest(storage: Storage, device: int = 1) -> dict[str, int]:
    found = parsed(asyncio.run(storage.reads.latest(device, None)))
    assert sorted(found) == asyncio.run(storage.reads.keys(device))
    return {key: points[0]["ts"] for key, points in found.items()}


# --- what is deleted -------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
def test_a_range(storage: Storage, tmp_path: Path, sealed: bool) -> None:
    put(storage, 1, 2, 3, 4)
    put(storage, 2, key="b")
    put(storage, 2, device=2)
    if sealed:
        seal(storage)
    delete(storage, ["a"], start_ms=2, end_ms=4)
    for _ in range(2):
        assert (times(storage), times(storage, "b"), times(storage, device=2)) == ([1, 4], [2], [2])
        killed(storage, tmp_path)
    seal(storage) if not sealed else None
    assert times(storage) == [1, 4]


def test_rows_that_arrive_later_stay(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1, 2)
    delete(storage)
    put(storage, 2, 3)
    for _ in range(2):
        assert times(storage) == [2, 3]
        assert latest(storage) == {"a": 3}
        killed(storage, tmp_path)
    seal(storage)
    assert times(killed(storage, tmp_path)) == [2, 3]


def test_an_end_before_the_start_deletes_nothing(storage: Storage) -> None:
    put(storage, 1)
    delete(storage, start_ms=5, end_ms=5)
    assert times(storage) == [1]
    assert len(storage.store.tombstones) == 0


@pytest.mark.parametrize("failed", [False, True], ids=["first try", "second try"])
def test_a_delete_while_its_rows_are_sealed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    """The run may get its number after the delete."""
    put(storage, 1, 2)
    write, tries = storage.store.write_chunks, []

    def full(*arguments: Any) -> None:
        tries.append(None)
        if failed and len(tries) == 1:
            raise StoreFull("no space")
        write(*arguments)

    monkeypatch.setattr(storage.store, "write_chunks", full)
    monkeypatch.setattr("tbfast.control.sealer.FULL_RETRY_S", 0.0)

    async def both() -> None:
        sealing = asyncio.ensure_future(storage.sealer.seal())
        await asyncio.sleep(0)
        deleting = asyncio.ensure_future(storage.deletes.delete(1, None, start_ms=2))
        await asyncio.sleep(0)
        assert [p["ts"] for p in (await ranged(storage.reads, 1))["a"]] == [1]
        await asyncio.gather(sealing, deleting)

    asyncio.run(both())
    assert len(tries) == 1 + failed
    for _ in range(2):
        assert times(storage) == [1]
        assert sum(window.points for window in storage.store.windows()) == 2
        killed(storage, tmp_path)
    put(storage, 2)
    assert times(storage) == [1, 2]


def test_a_delete_waits_for_nobody_who_may_hold_rows(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing() -> frozenset[int]:
        return frozenset({0})

    put(storage, 1)
    monkeypatch.setattr(storage.reads, "missing", missing)
    with pytest.raises(StoreStall, match="try again"):
        delete(storage)
    assert len(storage.store.tombstones) == 0


# --- latest values ---------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, {"b": 9}),
        ({"rewrite_latest": True}, {"a": 2, "b": 9}),
        ({"latest": False}, {"a": 3, "b": 9}),
        ({"end_ms": 3}, {"a": 3, "b": 9}),
    ],
    ids=["gone", "rewritten", "kept", "outside"],
)
def test_latest(
    storage: Storage, tmp_path: Path, how: dict[str, Any], expected: dict[str, int], sealed: bool
) -> None:
    put(storage, 1, 2, 3)
    put(storage, 9, key="b")
    if sealed:
        seal(storage)
    delete(storage, ["a"], **{"start_ms": 3} | how if "end_ms" not in how else how)
    for _ in range(2):
        assert latest(storage) == expected
        killed(storage, tmp_path)
    put(storage, 1)
    assert latest(storage)["a"] == (1 if how == {} else expected["a"])


def test_history_of_a_key_without_a_latest_value(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1, 2)
    seal(storage)
    delete(storage, start_ms=2)
    for _ in range(2):
        assert latest(storage) == {}
        assert times(storage) == [1]
        killed(storage, tmp_path)


def test_subscribers_hear_of_keys_that_are_gone(storage: Storage) -> None:
    heard: list[tuple[int, list[bytes]]] = []
    stop = storage.deletes.subscribe(lambda device, keys: heard.append((device, list(keys))))
    put(storage, 1, 2)
    put(storage, 1, key="b")
    delete(storage, start_ms=2, rewrite_latest=True)
    assert heard == []
    delete(storage, start_ms=1, end_ms=2)
    assert heard[0][0] == 1
    assert sorted(heard[0][1]) == [b"a", b"b"]
    stop()
    put(storage, 1)
    delete(storage)
    assert len(heard) == 1


# --- devices ---------------------------------------------------------------------------------


def removed(number: int) -> Change:
    return Change(revision=1, kind="device", op="deleted", id="x", number=number)


def test_a_removed_device(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1)
    seal(storage)
    put(storage, 2)
    put(storage, 3, device=2)

    async def remove() -> None:
        storage.deletes.registry_changed(removed(1))
        await storage.deletes.finish()

    asyncio.run(remove())
    for _ in range(2):
        assert (times(storage), latest(storage)) == ([], {})
        assert (times(storage, device=2), latest(storage, 2)) == ([3], {"a": 3})
        assert 1 not in dict(storage.store.latest.records())
        killed(storage, tmp_path)


def test_a_removed_device_takes_nothing_more(storage: Storage) -> None:
    put(storage, 1)
    storage.tail.delete_device(1)
    put(storage, 2)
    assert (times(storage), latest(storage)) == ([], {})
    assert storage.tail.pack_device_changes(1) == b"\x01\x00"  # gone


def test_a_device_removed_just_before_the_controller_died(storage: Storage) -> None:
    put(storage, 1)
    put(storage, 1, device=2)

    async def sweep() -> None:
        await storage.deletes.sweep(lambda number: number == 2)
        await storage.deletes.finish()

    asyncio.run(sweep())
    assert (times(storage), times(storage, device=2)) == ([], [1])
    assert [t.device for t in storage.store.tombstones] == [1]


def test_rows_of_unregistered_devices_are_dropped_and_counted(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data", journals=1)
    slot = Slot()
    storage.tail = TailService(slot, registered=lambda number: number != 1)
    put(storage, 1, 2)
    put(storage, 3, device=2)
    assert (storage.tail.keys(1), storage.tail.keys(2)) == ([], ["a"])
    assert storage.tail.head.points == 1
    assert slot.get(words.RECORDS_DROPPED_DEVICE) == 2
    storage.close()


# --- tombstones ------------------------------------------------------------------------------


def test_neighbouring_ranges_become_one(storage: Storage) -> None:
    put(storage, 1, 5, 50)
    for start in range(0, 40, 4):
        delete(storage, ["a"], start_ms=start, end_ms=start + 4)
    assert [(t.first_ms, t.last_ms) for t in storage.store.tombstones] == [(0, 39)]
    put(storage, 60)
    delete(storage, ["b"])
    delete(storage)
    assert [(t.key, t.last_ms) for t in storage.store.tombstones] == [(None, (1 << 63) - 1)]


def test_a_bound_per_device(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOMBSTONES_PER_DEVICE", 3)
    put(storage, *range(10))
    for start in (0, 2, 4):
        delete(storage, start_ms=start, end_ms=start + 1)
    with pytest.raises(ResourceError, match="delete one range that spans them"):
        delete(storage, start_ms=6, end_ms=7)
    assert times(storage) == [1, 3, 5, 6, 7, 8, 9]
    delete(storage, end_ms=7)
    assert times(killed(storage, tmp_path)) == [7, 8, 9]
    assert len(storage.store.tombstones) == 1


def test_many_keys_do_not_hold_the_loop_up(storage: Storage) -> None:
    """A delete is found room for, or refused, while nothing else of the controller can run."""
    names = [f"k{n}" for n in range(4_000)]
    for ts in (1, 2):
        storage.write(0, 1, (ts, dict.fromkeys(names, "1")))
    begun = time.thread_time()
    with pytest.raises(ResourceError, match="deleted ranges"):
        delete(storage, names, start_ms=0, end_ms=2)
    most = limits.TOMBSTONES_PER_DEVICE
    delete(storage, names[:most], start_ms=0, end_ms=2)
    delete(storage, names[:most], start_ms=2, end_ms=3)  # each joins the one of its key
    assert time.thread_time() - begun < 0.5
    assert len(storage.store.tombstones) == most
    assert times(storage, names[most - 1]) == []
    assert times(storage, names[most]) == [1, 2]


def test_a_tombstone_goes_with_the_last_chunk_it_covers(storage: Storage, tmp_path: Path) -> None:
    put(storage, 1)
    seal(storage)
    delete(storage)
    put(storage, 2)
    old = storage.store.windows()[0]
    storage.store.window_for(old.opened_at_ms + 1000, 1000)
    seal(storage)
    storage.store.forget_tombstones()
    assert len(storage.store.tombstones) == 1
    storage.store.drop_window(old.number)
    storage.store.forget_tombstones()
    assert len(storage.store.tombstones) == 0
    delete(storage, ["none"])  # writes what was forgotten
    assert [t.key for t in killed(storage, tmp_path).store.tombstones] == [b"none"]
    assert times(storage) == [2]


def test_a_delete_that_found_no_room_is_written_with_the_next(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, 1)
    put(storage, 1, key="b")

    def full(*_: Any) -> None:
        raise StoreFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(storage.store, "write_deletes", full)
        with pytest.raises(StoreFull):
            delete(storage, ["a"])
    assert times(storage) == []
    delete(storage, ["b"])
    assert (times(killed(storage, tmp_path)), latest(storage)) == ([], {})


def test_a_delete_that_memory_was_lacking_for_takes_no_other_along(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one write takes over of another's must be there for the next."""
    put(storage, 1)
    put(storage, 1, device=2)
    seal(storage)

    def short(*_: Any) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("tbfast.store.series.msgspec.msgpack.encode", short)
        with pytest.raises(MemoryError):
            asyncio.run(storage.deletes.delete(2, None))
    delete(storage, ["none"])
    killed(storage, tmp_path)
    assert times(storage) == [1]
    assert (times(storage, device=2), latest(storage, 2)) == ([], {})


def test_latest_values_packed_before_a_delete_do_not_come_back(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is being recorded packs them on the loop and writes them later."""
    put(storage, 1)
    pack: Callable[..., Any] = storage.tail.pack_changes
    deleting: list[asyncio.Task[None]] = []

    def packed(*arguments: Any) -> Any:
        found = pack(*arguments)
        deleting.append(asyncio.ensure_future(storage.deletes.delete(1, None)))
        return found

    monkeypatch.setattr(storage.tail, "pack_changes", packed)

    async def run() -> None:
        await storage.sealer.seal()
        await asyncio.gather(*deleting)

    asyncio.run(run())
    assert (latest(killed(storage, tmp_path)), times(storage)) == ({}, [])
