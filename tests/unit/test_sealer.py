"""Chunks of one head: order, duplicates, common and own chunks, large series, strings."""

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from tbfast._ext.ingest import Ingest
from tbfast._ext.metrics import Slot
from tbfast._ext.scan import RangeScan
from tbfast._ext.sealer import Sealer, feed_chunk
from tbfast._ext.tail import Tail
from tbfast.control.tail import TailService
from tbfast.errors import StoreError
from tbfast.store.pages import expanded
from tbfast.store.series import CHUNK_KEY
from tests.support.blocks import DOUBLE, INT64, STRING, Block, Point, Record, write_block

OWN_POINTS = 64
ALWAYS_OWN_POINTS = 2048
CHUNK_POINTS_MAX = 1 << 20

Chunks = list[tuple[bytes, bytes]]


class Written:
    """A tail that took blocks in, and its head sealed as run 7."""

    def __init__(self, *blocks: Iterable[Record], names: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.tail = Tail()
        self.tail.define(0, 1, 1, [name.encode() for name in names])
        for seq, records in enumerate(blocks, 1):
            self.tail.apply(write_block(Block(0, 1, seq, 1_000, 1, (), list(records))))
        self.sealer = Sealer(self.tail.freeze(), 7)

    def stored(self, max_bytes: int = 1 << 30) -> Chunks:
        """Keys and values as they go to the store, each key once."""
        found: Chunks = []
        while not self.sealer.done:
            (batch,) = self.sealer.next(max_bytes)
            found += batch
        keys = [key for key, _ in found]
        assert len(keys) == len(set(keys))
        return found

    def chunks(self, max_bytes: int = 1 << 30) -> Chunks:
        """The same with pages unpacked."""
        return [chunk for pair in self.stored(max_bytes) for chunk in expanded(*pair)]

    def read(self, chunks: Chunks, device: int = 1) -> dict[str, list[tuple[int, Any]]]:
        scan = RangeScan(device, None, limit=1 << 40, ascending=True)
        for key, chunk in chunks:
            if CHUNK_KEY.unpack(key)[0] == device:
                feed_chunk(scan, chunk, self.tail.key_numbers(device), 7)
        answer = json.loads(scan.to_json())
        return {name: [(p["ts"], p["value"]) for p in points] for name, points in answer.items()}


def places(chunks: Chunks) -> list[tuple[int, int]]:
    """(device, key) of each chunk; all belong to run 7."""
    assert {CHUNK_KEY.unpack(key)[2] for key, _ in chunks} <= {7}
    return [CHUNK_KEY.unpack(key)[:2] for key, _ in chunks]


def number(device: int, ts: int, key: int, value: int) -> Record:
    return Record(device, ts, [Point(key, INT64, value)])


def series(count: int, key: int = 1, *, step: int = 10, start: int = 0) -> list[Record]:
    return [number(1, start + step * n, key, n) for n in range(count)]


def fill_and_freeze(tail: Tail, seq: int, rows: int) -> dict[str, list[tuple[int, object]]]:
    """What a head of so many rows is read back as; it is gone afterwards."""
    records = [
        Record(1, n, [Point(1, INT64, n), Point(2, STRING, f"{n:040}")]) for n in range(rows)
    ]
    tail.apply(write_block(Block(0, 1, seq, 1_000, 1, (), records)))
    scan = RangeScan(1, None, limit=1 << 40, ascending=True)
    tail.feed(scan, tail.head, 1, 0)
    tail.freeze()
    found = json.loads(scan.to_json())
    return {key: [(p["ts"], p["value"]) for p in points] for key, points in found.items()}


def test_memory_of_a_sealed_head_goes_to_the_next() -> None:
    tail = Tail()
    tail.define(0, 1, 1, [b"a", b"b"])
    assert tail.pool.nbytes == 0
    held = []
    for seq, rows in enumerate((3_000, 3_000, 2_900, 10), 1):
        expected = {
            "a": [(n, n) for n in range(rows)],
            "b": [(n, f"{n:040}") for n in range(rows)],
        }
        assert fill_and_freeze(tail, seq, rows) == expected  # nothing is left of the one before
        held.append(tail.pool.nbytes)
    assert held[0] == held[1] == held[2] > 3_000 * 2 * 24
    assert held[3] == 0  # so little use of it: the next may need none
    fill_and_freeze(tail, 5, 3_000)
    assert tail.pool.nbytes == held[0]
    tail.pool.release()
    assert tail.pool.nbytes == 0


def test_memory_of_a_head_that_was_large_does_not_stay() -> None:
    tail = Tail()
    tail.define(0, 1, 1, [b"a", b"b"])
    held = []
    for seq, rows in enumerate((3_000, 12_000, 4_000, 3_000), 1):
        fill_and_freeze(tail, seq, rows)
        held.append(tail.pool.nbytes)
    assert held[1] > 3 * held[0]
    assert held[2] < 1.5 * held[0]
    assert held[3] < 1.3 * held[0]


@pytest.mark.parametrize("raised", [False, True])
def test_more_than_the_bound_is_not_kept(raised: bool) -> None:
    bound = 1 << 20
    tail = Tail()
    tail.pool.bound(bound)
    tail.define(0, 1, 1, [b"a", b"b"])
    records = [Record(1, n, [Point(2, STRING, "x" * 250)]) for n in range(bound // 250)]
    tail.apply(write_block(Block(0, 1, 1, 1_000, 1, (), records)))
    assert tail.head.nbytes > bound
    if raised:
        tail.pool.bound(10 * bound)
    tail.freeze()
    assert (tail.pool.nbytes > bound) == raised
    tail.pool.bound(bound)
    assert tail.pool.nbytes == 0


def test_an_empty_head_has_no_chunks() -> None:
    written = Written()
    assert written.chunks() == []
    assert written.sealer.totals[0].points == 0


def test_of_equal_times_the_last_arrival_stays() -> None:
    written = Written(
        [number(1, 5, 1, 1), number(1, 5, 1, 2)], [number(1, 4, 1, 3)], [number(1, 5, 1, 4)]
    )
    assert written.read(written.chunks()) == {"a": [(4, 3), (5, 4)]}
    (totals,) = written.sealer.totals
    assert (totals.points, totals.min_ts, totals.max_ts) == (2, 4, 5)


@pytest.mark.parametrize("order", [lambda r: r, lambda r: r[::-1], lambda r: r[1::2] + r[::2]])
def test_points_are_in_time_order(order) -> None:
    written = Written(order(series(500)))
    assert written.read(written.chunks()) == {"a": [(10 * n, n) for n in range(500)]}


def test_times_at_the_ends_of_int64() -> None:
    times = [2**63 - 1, -(2**63), 0, -1]
    written = Written([number(1, ts, 1, n) for n, ts in enumerate(times)])
    expected = sorted((ts, n) for n, ts in enumerate(times))
    assert written.read(written.chunks()) == {"a": expected}
    (totals,) = written.sealer.totals
    assert totals.odd == [(1, -(2**63), 2**63 - 1)]


def test_devices_far_from_the_time_of_their_commit_are_told_apart() -> None:
    day = 86_400_000
    written = Written(
        [number(1, 1_000 - day, 1, 1), number(1, 1_000 + day, 1, 2)],
        [number(2, 1_001 + day, 1, 1), number(2, 5, 2, 1)],
        [number(3, 2_000, 1, 1), number(4, -day, 1, 1)],
    )
    written.chunks()
    (totals,) = written.sealer.totals
    assert (totals.min_ts, totals.max_ts) == (1_000 - day, 1_000 + day)
    assert totals.odd == [(2, 5, 1_001 + day), (4, -day, -day)]
    assert totals.points == 6


def test_only_so_many_devices_are_told_apart() -> None:
    far = 10**12
    written = Written([number(device, far + device, 1, 0) for device in range(1, 1_100)])
    written.chunks()
    (totals,) = written.sealer.totals
    assert [device for device, _, _ in totals.odd] == list(range(1, 1_025))
    assert (totals.min_ts, totals.max_ts) == (far + 1_025, far + 1_099)


def test_chunks_come_in_key_order_however_small_the_steps_are() -> None:
    devices = (70_000, 3, 1, 2**40, 256)
    rows = [number(device, 10, key, device) for device in devices for key in (2, 1)]
    steps = Written(rows).chunks(1)
    assert steps == sorted(steps)
    assert places(steps) == [(device, 0) for device in sorted(devices)]


@pytest.mark.parametrize("largest", [1 << 8, 1 << 12, 1 << 23, 1 << 40, (1 << 62) - 1])
def test_a_device_has_one_chunk_however_its_messages_came(largest: int) -> None:
    rng = random.Random(largest)
    devices = [rng.randint(1, largest) for _ in range(200)]
    sent = [(rng.choice(devices), rng.randint(1, 3), ts) for ts in range(2_000)]
    written = Written([number(device, ts, key, ts) for device, key, ts in sent])
    chunks = written.chunks(1_000)
    assert places(chunks) == [(device, 0) for device in sorted({device for device, _, _ in sent})]
    for device in devices[:20]:
        expected: dict[str, list[tuple[int, Any]]] = {}
        for owner, key, ts in sent:
            if owner == device:
                expected.setdefault("abc"[key - 1], []).append((ts, ts))
        assert written.read(chunks, device) == expected


def test_small_series_share_one_chunk() -> None:
    written = Written(
        series(OWN_POINTS - 1), series(OWN_POINTS - 1, 2, step=7), series(1, 3, start=99)
    )
    chunks = written.chunks()
    assert places(chunks) == [(1, 0)]
    assert {name: len(points) for name, points in written.read(chunks).items()} == {
        "a": 63,
        "b": 63,
        "c": 1,
    }


def test_larger_series_earn_a_chunk_unless_they_share_their_times() -> None:
    own = series(OWN_POINTS, 1, step=3)
    sharing = [*series(OWN_POINTS, 2), *series(OWN_POINTS, 3)]
    written = Written(own, sharing)
    chunks = written.chunks()
    assert sorted(places(chunks)) == [(1, 0), (1, 1)]
    assert {name: len(p) for name, p in written.read(chunks).items()} == dict.fromkeys("abc", 64)


def test_the_largest_always_have_their_own() -> None:
    written = Written(series(ALWAYS_OWN_POINTS, 1), series(ALWAYS_OWN_POINTS, 2))
    chunks = written.chunks()
    assert sorted(places(chunks)) == [(1, 1), (1, 2)]
    assert {name: len(p) for name, p in written.read(chunks).items()} == {"a": 2048, "b": 2048}


def test_one_chunk_holds_a_series_of_any_size() -> None:
    """More points than the codec takes in one column."""
    count = CHUNK_POINTS_MAX + 1000
    tail = Tail()
    ingest = Ingest()
    step = 10_000
    for seq, first in enumerate(range(0, count, step), 1):
        ingest.at(1_000, 0)
        last = min(first + step, count)
        rows = ",".join([f'{{"ts":{n},"values":{{"a":1}}}}' for n in range(first, last)])
        ingest.append_json(1, f"[{rows}]".encode())
        ingest.note(0, 0, 0)
        block = ingest.take(0, 1, seq, 1_000, 1).value
        assert block is not None
        tail.apply(block)
    sealer = Sealer(tail.freeze(), 7)
    (((key, chunk),),) = sealer.next(1)
    assert CHUNK_KEY.unpack(key) == (1, 1, 7)
    assert sealer.totals[0].points == count
    border = RangeScan(
        1, None, start_ms=CHUNK_POINTS_MAX - 2, end_ms=CHUNK_POINTS_MAX + 2, limit=9, ascending=True
    )
    feed_chunk(border, chunk, {1: b"a"}, 7)
    times = [point["ts"] for point in json.loads(border.to_json())["a"]]
    assert times == list(range(CHUNK_POINTS_MAX - 2, CHUNK_POINTS_MAX + 2))
    whole = RangeScan(1, None, limit=count + 1)
    feed_chunk(whole, chunk, {1: b"a"}, 7)
    assert whole.to_json().count(b'"ts"') == count


def test_types_change_within_a_series() -> None:
    values = [(INT64, 1), (STRING, "x"), (DOUBLE, 0.5), (STRING, ""), (STRING, "ä" * 1000)]
    written = Written(
        [Record(1, ts, [Point(1, type, value)]) for ts, (type, value) in enumerate(values)]
    )
    assert written.read(written.chunks()) == {
        "a": [(ts, value) for ts, (_, value) in enumerate(values)]
    }


def test_strings_many_different_and_few() -> None:
    states = ["on", "off", "fault"]
    rows = [Record(1, n, [Point(1, STRING, states[n % 3])]) for n in range(300)]
    rows += [Record(1, n, [Point(2, STRING, f"{n:x}" * 5)]) for n in range(300)]
    written = Written(rows)
    found = written.read(written.chunks())
    assert found["a"] == [(n, states[n % 3]) for n in range(300)]
    assert found["b"] == [(n, f"{n:x}" * 5) for n in range(300)]


def test_a_key_that_nothing_names_is_left_out() -> None:
    written = Written([number(1, 1, 1, 1), number(1, 1, 2, 2)])
    scan = RangeScan(1, None, limit=9)
    for _, chunk in written.chunks():
        feed_chunk(scan, chunk, {2: b"b"}, 7)
    assert json.loads(scan.to_json()) == {"b": [{"ts": 1, "value": 2}]}


def test_a_chunk_cut_anywhere_is_refused() -> None:
    written = Written(series(20), series(20, 2, step=7))
    ((key, chunk),) = written.chunks()
    for length in range(len(chunk)):
        with pytest.raises(StoreError, match="damaged"):
            written.read([(key, chunk[:length])])


def at(commit_ms: int, seq: int, value: int, journal: int = 0) -> bytes:
    return write_block(Block(journal, 1, seq, commit_ms, 1, (), [number(1, 50, 1, value)]))


def test_of_equal_times_the_later_commit_wins_in_the_head_the_run_and_latest() -> None:
    """Blocks of two journals, a little out of step."""
    written = Written()
    tail = written.tail
    tail.define(1, 1, 1, [b"a"])
    tail.apply(at(2_000, 1, 2, journal=1))
    tail.apply(at(1_000, 1, 1))
    assert tail.latest(1)[0] == b'{"a":[{"ts":50,"value":2}]'
    scan = RangeScan(1, None)
    tail.feed(scan, tail.head, 1, 0)
    assert json.loads(scan.to_json())["a"] == [{"ts": 50, "value": 2}]
    tail.apply(at(2_000, 2, 3))  # of equal commits the later arrival
    assert tail.latest(1)[0] == b'{"a":[{"ts":50,"value":3}]'
    written.sealer = Sealer(tail.freeze(), 7)
    assert written.read(written.chunks()) == {"a": [(50, 3)]}


def test_a_clock_that_was_set_back_makes_nothing_older() -> None:
    tail = TailService(Slot())
    tail.define(0, 1, 1, [b"a"])
    tail.define(1, 1, 1, [b"a"])
    hour_ms = 3_600_000
    tail.apply(at(2 * hour_ms, 1, 1))
    tail.apply(at(2 * hour_ms + 5, 1, 2, journal=1))
    tail.apply(at(hour_ms, 2, 3))
    assert tail.latest(1, None)[0] == b'{"a":[{"ts":50,"value":3}]'
    tail.apply(at(hour_ms + 5, 2, 4, journal=1))
    tail.apply(at(hour_ms + 4, 3, 5))
    assert tail.latest(1, None)[0] == b'{"a":[{"ts":50,"value":4}]'


# --- pages -----------------------------------------------------------------------------------


def stored_places(written: Written, max_bytes: int = 1 << 30) -> list[tuple[int, int, int]]:
    """(device, key, chunks) of each value."""
    found = []
    for key, value in written.stored(max_bytes):
        device, number, run = CHUNK_KEY.unpack(key)
        assert run == 7
        found.append((device, number, len(expanded(key, value))))
    return found


def test_neighbours_share_a_page() -> None:
    devices = (1, 63, 64, 127, 128, 5_000)
    written = Written([number(device, 10, 1, device) for device in devices])
    assert stored_places(written) == [(0, 0, 2), (64, 0, 2), (128, 0, 1), (5_000, 0, 1)]
    again = Written([number(device, 10, 1, device) for device in devices])
    chunks = again.chunks()
    assert places(chunks) == [(device, 0) for device in devices]
    for device in devices:
        assert again.read(chunks, device) == {"a": [(10, device)]}


@pytest.mark.parametrize("device", [0, 2**32, 2**62 - 64])
def test_the_first_device_of_a_page(device: int) -> None:
    """Its chunk and the page have one key: it is in the page whenever there is one."""
    own = [Record(device, 10 * n, [Point(2, INT64, n)]) for n in range(ALWAYS_OWN_POINTS)]
    shared = [number(device, 5, 1, 1), number(device + 1, 5, 1, 2)]
    written = Written([*own, *shared])
    assert stored_places(written) == [(device, 0, 2), (device, 2, 1)]


def large(device: int, salt: int) -> list[Record]:
    """A common chunk of more than 3 KB, on 40 rows."""
    rng = random.Random(device * 100 + salt)
    return [Record(device, 10 * n, [Point(1, STRING, rng.randbytes(40).hex())]) for n in range(40)]


def test_what_is_large_has_keys_of_its_own() -> None:
    few = Written([row for device in range(4) for row in large(device, 1)])
    assert stored_places(few) == [(0, 0, 4)]
    many = Written([row for device in range(8) for row in large(device, 1)])
    assert stored_places(many) == [(device, 0, 1) for device in range(8)]


@pytest.mark.parametrize("max_bytes", [1, 1_000, 20_000, 65_536])
def test_pages_are_written_whole_however_small_the_steps_are(max_bytes: int) -> None:
    """A page in two steps would replace itself; what was begun singly goes on singly."""
    rows = [row for device in range(20) for row in large(device, 1)]
    rows += [number(device, 10, 1, device) for device in range(64, 400, 3)]
    written = Written(rows)
    chunks = written.chunks(max_bytes)
    assert places(chunks) == [(device, 0) for device in (*range(20), *range(64, 400, 3))]
    assert written.sealer.totals[0].points == 20 * 40 + len(range(64, 400, 3))
    assert written.read(chunks, 64) == {"a": [(10, 64)]}


@pytest.mark.parametrize("rows", [4, 6, 9])
@pytest.mark.parametrize("max_bytes", [20_000, 65_536])
def test_steps_that_end_within_devices_that_need_no_page(rows: int, max_bytes: int) -> None:
    """One step ends within some, the next within those behind them: neither replaces a chunk."""
    devices = range(6 * 64)
    written = Written([row for device in devices for row in large(device, rows)[:rows]])
    chunks = written.chunks(max_bytes)
    assert places(chunks) == [(device, 0) for device in devices]
    assert written.sealer.totals[0].points == len(devices) * rows
    for device in devices:
        assert [ts for ts, _ in written.read(chunks, device)["a"]] == list(range(0, 10 * rows, 10))


def test_each_class_has_pages_of_its_own() -> None:
    tail = Tail()
    tail.define(0, 1, 1, [b"a"])
    rows = [number(device, 10, 1, device) for device in range(8)]
    tail.apply(write_block(Block(0, 1, 1, 1_000, 1, (), rows)))
    sealer = Sealer(tail.freeze(), 7, 3, lambda device: (0, 2, 2, 2)[device % 4])
    first, second, third = sealer.next(1 << 30)
    assert second == []
    assert places([c for pair in first for c in expanded(*pair)]) == [(0, 0), (4, 0)]
    assert places([c for pair in third for c in expanded(*pair)]) == [
        (device, 0) for device in (1, 2, 3, 5, 6, 7)
    ]
    assert (len(first), len(third)) == (1, 1)
    assert [totals.points for totals in sealer.totals] == [2, 0, 6]
