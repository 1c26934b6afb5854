"""The registry database: compare-and-set, unique keys, change log, group sync, refusals."""

import asyncio
import shutil
import threading
from pathlib import Path
from random import Random

import pytest

from tbfast import limits
from tbfast.errors import Conflict, StoreBusy, StoreError, StoreStall
from tbfast.model.device import Change
from tbfast.store.registry import RegistryStore, Write


def write(id: str, *unique: str, expected: int = 0, value: bytes | None = b"v") -> Write:
    return Write(
        kind="device", id=id, expected=expected, value=value, unique=unique, change="device"
    )


def with_store(path: Path, work) -> None:
    async def run() -> None:
        store = RegistryStore(path)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_versions_numbers_and_keys(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        made = await store.commit(write("a", "name:x", "credentials:t"))
        assert (made.revision, made.op, made.number) == (1, "created", 1)
        assert made.stale_credentials() == ["t"]
        with pytest.raises(Conflict):
            await store.commit(write("a", "name:y"))
        changed = await store.commit(write("a", "name:x", "credentials:u", expected=1))
        assert changed.stale_credentials() == ["u", "t"]
        assert await store.find("credentials:t") is None
        assert await store.find("credentials:u") == ("device", "a")
        gone = await store.commit(write("a", expected=2, value=None))
        assert (gone.op, gone.number) == ("deleted", 1)
        assert set(gone.released) == {"name:x", "credentials:u"}
        assert await store.get("device", "a") is None
        assert await store.id_of_number(1) is None
        again = await store.commit(write("b", "name:x"))
        assert again.number == 2
        assert await store.count("device") == 1

    with_store(tmp_path / "r", work)


def test_numbers_are_not_reused_after_reopening(tmp_path: Path) -> None:
    async def first(store: RegistryStore) -> None:
        await store.commit(write("a"))
        await store.commit(write("a", expected=1, value=None))

    async def second(store: RegistryStore) -> None:
        assert (await store.commit(write("b"))).number == 2
        assert store.revision == 3

    with_store(tmp_path / "r", first)
    with_store(tmp_path / "r", second)


def test_a_taken_key_changes_nothing(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        await store.commit(write("a", "name:x"))
        with pytest.raises(Conflict, match="'x' is already in use"):
            await store.commit(write("b", "credentials:t", "name:x"))
        assert await store.get("device", "b") is None
        assert await store.find("credentials:t") is None
        assert store.revision == 1

    with_store(tmp_path / "r", work)


def test_of_two_racing_creators_one_wins(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        results = await asyncio.gather(
            *(store.commit(write(f"d{i}", "name:x")) for i in range(20)), return_exceptions=True
        )
        assert sum(isinstance(result, Change) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 19

    with_store(tmp_path / "r", work)


def test_scan_goes_on_after_an_id(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        for id in ("c", "a", "b", "aa"):
            await store.commit(write(id))
        assert [e.id for e in await store.scan("device", "", 3)] == ["a", "aa", "b"]
        assert [e.id for e in await store.scan("device", "a", 9)] == ["aa", "b", "c"]
        assert await store.scan("device_profile", "", 9) == []

    with_store(tmp_path / "r", work)


def test_change_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REGISTRY_CHANGES", 3)

    async def work(store: RegistryStore) -> None:
        for i in range(5):
            await store.commit(write(f"d{i}"))
        assert [c.revision for c in await store.changes_since(2) or []] == [3, 4, 5]
        assert await store.changes_since(1) is None
        assert await store.changes_since(5) == []
        assert await store.changes_since(6) is None

    with_store(tmp_path / "r", work)


def test_subscribers_see_durable_changes_in_order(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        seen: list[int] = []
        stop = store.subscribe(lambda change: seen.append(change.revision))
        await asyncio.gather(*(store.commit(write(f"d{i}")) for i in range(10)))
        await asyncio.sleep(0)
        assert seen == list(range(1, 11))
        stop()
        stop()
        await store.commit(write("x"))
        await asyncio.sleep(0)
        assert len(seen) == 10

    with_store(tmp_path / "r", work)


def hold_syncs(store: RegistryStore, monkeypatch: pytest.MonkeyPatch):
    gate, begun, calls, flush = threading.Event(), asyncio.Event(), [], store._flush
    loop = asyncio.get_running_loop()

    def held() -> None:
        calls.append(1)
        loop.call_soon_threadsafe(begun.set)
        gate.wait(10)
        flush()

    monkeypatch.setattr(store, "_flush", held)
    return gate, begun, calls


def test_commits_during_a_sync_share_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: RegistryStore) -> None:
        gate, begun, calls = hold_syncs(store, monkeypatch)
        first = asyncio.create_task(store.commit(write("first")))
        await begun.wait()
        others = [asyncio.create_task(store.commit(write(f"d{i}"))) for i in range(50)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
        gate.set()
        await asyncio.gather(first, *others)
        assert len(calls) == 2

    with_store(tmp_path / "r", work)


def test_a_cancelled_caller_does_not_undo_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: RegistryStore) -> None:
        gate, begun, _calls = hold_syncs(store, monkeypatch)
        task = asyncio.create_task(store.commit(write("a")))
        await begun.wait()
        task.cancel()
        gate.set()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await store.commit(write("b"))
        assert (await store.get("device", "a")) is not None

    with_store(tmp_path / "r", work)


def test_a_read_waits_until_what_it_reads_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: RegistryStore) -> None:
        await store.commit(write("old"))
        gate, begun, _calls = hold_syncs(store, monkeypatch)
        writing = asyncio.create_task(store.commit(write("new")))
        await begun.wait()
        reading = asyncio.create_task(store.get("device", "new"))
        assert await store.get("device", "old") is not None
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reading.done()
        gate.set()
        assert (await reading) is not None
        assert writing.done()

    with_store(tmp_path / "r", work)


def test_a_failed_sync_fails_all_who_wait_and_all_who_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: RegistryStore) -> None:
        seen: list[Change] = []
        store.subscribe(seen.append)

        def broken() -> None:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(store, "_flush", broken)
        results = await asyncio.gather(
            *(store.commit(write(f"d{i}")) for i in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, StoreError) for result in results)
        monkeypatch.undo()
        assert store.failed is results[0]
        with pytest.raises(StoreError, match="the disk is gone"):
            await store.get("device", "d1")
        assert await store.get("device", "d9") is None
        with pytest.raises(StoreError, match="the disk is gone"):
            await store.commit(write("later"))
        await asyncio.sleep(0)
        assert seen == []

    with_store(tmp_path / "r", work)


def test_a_write_stall_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbfast.store.registry._STALL_WAITS_S", (0, 0))

    async def work(store: RegistryStore) -> None:
        stalls, real = [2], store._write

        def stalling(batch: object) -> None:
            stalls[0] -= 1
            if stalls[0] >= 0:
                raise StoreStall("wait")
            real(batch)

        monkeypatch.setattr(store, "_write", stalling)
        assert (await store.commit(write("a"))).revision == 1
        stalls[0] = 3
        with pytest.raises(StoreStall):
            await store.commit(write("b"))
        assert (await store.commit(write("b"))).revision == 2

    with_store(tmp_path / "r", work)


def refused(path: Path, error: type[Exception], words: str) -> None:
    async def open_it() -> None:
        with pytest.raises(error, match=words):
            RegistryStore(path)

    asyncio.run(open_it())


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    async def work(store: RegistryStore) -> None:
        with pytest.raises(StoreBusy, match="another process"):
            RegistryStore(tmp_path / "r")

    with_store(tmp_path / "r", work)
    with_store(tmp_path / "r", lambda store: store.count("device"))


def edit(path: Path, family: str, key: bytes, value: bytes) -> None:
    async def work(store: RegistryStore) -> None:
        store._families[family].put(key, value)

    with_store(path, work)


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    edit(tmp_path / "r", "meta", b"format", b"2")
    refused(tmp_path / "r", StoreError, "newer tbfast .format 2, this one reads 1")


def test_a_newer_or_damaged_value_is_refused(tmp_path: Path) -> None:
    edit(tmp_path / "r", "device", b"a", b"\x02xxx")
    edit(tmp_path / "r", "device", b"b", b"\x01xxx")

    async def work(store: RegistryStore) -> None:
        with pytest.raises(StoreError, match="unknown format"):
            await store.get("device", "a")
        with pytest.raises(StoreError, match="damaged"):
            await store.scan("device", "a", 1)

    with_store(tmp_path / "r", work)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    refused(tmp_path / "r", StoreError, str(tmp_path / "r"))


def test_a_flipped_byte_in_the_log_is_not_ignored(tmp_path: Path) -> None:
    async def fill(store: RegistryStore) -> None:
        for i in range(50):
            await store.commit(write(f"d{i}", f"name:{i}"))
        shutil.copytree(tmp_path / "r", tmp_path / "killed")

    with_store(tmp_path / "r", fill)
    log = max((tmp_path / "killed").glob("*.log"), key=lambda p: p.stat().st_size)
    data = bytearray(log.read_bytes())
    assert len(data) > 5_000
    data[len(data) // 2] ^= 0xFF
    log.write_bytes(data)
    refused(tmp_path / "killed", StoreError, "damaged")


def test_the_directory_is_private(tmp_path: Path) -> None:
    with_store(tmp_path / "deep" / "r", lambda store: store.count("device"))
    assert (tmp_path / "deep" / "r").stat().st_mode & 0o077 == 0


def test_damage_is_not_the_end_of_a_list(tmp_path: Path) -> None:
    async def fill(store: RegistryStore) -> None:
        # Random, so that compression does not make one block of it.
        random = Random(1)
        await asyncio.gather(
            *(store.commit(write(f"{n:04}", value=random.randbytes(500))) for n in range(200))
        )

    async def read(store: RegistryStore) -> None:
        with pytest.raises(StoreError, match="damaged"):
            assert len(await store.scan("device", "", 1000)) == 200
            assert len(await store.changes_since(0) or ()) == 200

    with_store(tmp_path / "r", fill)
    with_store(tmp_path / "r", _nothing)  # opening flushes the replayed log to table files
    table = max((tmp_path / "r").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    table.write_bytes(data)
    with_store(tmp_path / "r", read)


async def _nothing(store: RegistryStore) -> None:
    """Opened and closed."""
