"""Reads of rows that no run holds yet: in turns of the loop, whatever happens in between."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tbfast.control import series, tail
from tbfast.control.series import NodeSeries
from tbfast.model.ranges import RangeQuery
from tbfast.store.answer import Answer
from tests.support.storage import Storage, ranged

DEVICE = 7


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "data", journals=1)
    yield opened
    opened.close()


def write(storage: Storage, times: range) -> None:
    rows = ",".join(f'{{"ts":{ts},"values":{{"a":{ts},"b":{ts}.5}}}}' for ts in times)
    storage.write_json(0, DEVICE, f"[{rows}]".encode())


def times(answer: dict[str, list[dict[str, Any]]], key: str) -> list[int]:
    return [point["ts"] for point in answer.get(key, [])]


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 10, "ascending": False},
        {"limit": 10},
        {"limit": 1 << 40},
        {"start_ms": 0, "end_ms": 1 << 30, "aggregation": "SUM", "interval_ms": 1 << 29},
    ],
)
def test_many_rows_do_not_hold_the_loop_up(storage: Storage, asked: dict[str, Any]) -> None:
    rows = 50_000  # of each of two keys
    for start in range(0, rows, 2_000):
        write(storage, range(start, start + 2_000))

    query = RangeQuery(**{"limit": 1 << 40, "ascending": True, **asked})

    feeding = storage.tail.feed(Answer(DEVICE, query).scan, DEVICE)
    turns = 0
    with contextlib.suppress(StopIteration):
        while True:
            feeding.send(None)  # until others are to be served
            turns += 1
    assert turns >= 2 * rows // tail.FEED_ROWS


@pytest.mark.parametrize("turn", range(12))
@pytest.mark.parametrize("what", ["rows", "seal", "delete", "all"])
def test_what_was_there_at_the_call_is_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, what: str, turn: int
) -> None:
    """Rows come, are sealed and deleted after `turn` turns of a read that takes more."""
    monkeypatch.setattr(tail, "FEED_ROWS", 5)
    write(storage, range(40))

    async def read() -> dict[str, list[dict[str, Any]]]:
        reading = asyncio.create_task(ranged(storage.reads, DEVICE))
        for _ in range(turn):
            await asyncio.sleep(0)
        if what in ("rows", "all"):
            write(storage, range(40, 60))
            storage.write(0, DEVICE, (-1, {"new": "1"}))
        if what in ("seal", "all"):
            assert await storage.sealer.seal() is not None
            storage.trim()
        if what in ("delete", "all"):
            await storage.deletes.delete(DEVICE, ["a"], start_ms=10, end_ms=20)
        if what == "all":
            write(storage, range(60, 70))
        return await reading

    answer = asyncio.run(read())
    for key in ("a", "b"):
        found = times(answer, key)
        assert found == sorted(set(found))
        gone = set(range(10, 20)) if key == "a" and what in ("delete", "all") else set()
        assert set(range(40)) - gone <= set(found) <= set(range(70))
        assert all(float(p["value"]) == p["ts"] + (key == "b") / 2 for p in answer[key])


def test_a_journal_that_is_sealed_while_it_is_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is back, and its rows are sealed and trimmed, just when chunks have been read."""
    held: list[bytes] = []
    monkeypatch.setattr(series, "COMPLETE_TIMEOUT_S", 0)
    apply, feed = storage.tail.apply, storage.store.feed
    with monkeypatch.context() as away:
        away.setattr(storage.tail, "apply", held.append)
        write(storage, range(5))
    links: Any = Away()
    reads = NodeSeries(storage.tail, links, storage.store, storage.layout, 1)

    async def read() -> dict[str, list[dict[str, Any]]]:
        loop = asyncio.get_running_loop()

        async def back() -> None:
            for block in held:
                apply(block)
            assert await storage.sealer.seal() is not None
            storage.trim()

        def fed(*arguments: Any) -> None:
            feed(*arguments)
            asyncio.run_coroutine_threadsafe(back(), loop).result()

        monkeypatch.setattr(storage.store, "feed", fed)
        return await ranged(reads, DEVICE, ["a"])

    try:
        assert times(asyncio.run(read()), "a") == [0, 1, 2, 3, 4]
    finally:
        reads.close()


class Away:
    """Links of a node whose worker has not come back."""

    async def caught_up(self) -> set[int]:
        return set()
