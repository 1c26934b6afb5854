"""Reads of many chunks that overlap in any way, against dictionaries: order, winners, limits."""

import itertools
import json
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast._ext.aggregate import aggregate_json
from tbfast._ext.chunk import encode
from tbfast._ext.deleted import Deleted
from tbfast._ext.scan import RangeScan
from tbfast._ext.sealer import feed_chunk
from tbfast._ext.stringify import stringified
from tbfast.errors import PeerError, StoreError
from tests.support.blocks import INT64, Block, Point, Record, parsed, write_block
from tests.support.canaries import SANITIZED
from tests.support.rows import crc32c

NAMES = {1: b"a", 2: b"b"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda v: ("INT64", v)),
    st.integers(0, 9).map(lambda v: ("INT64", v)),
    st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 20)).map(lambda v: ("DECIMAL", v)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda v: ("DOUBLE", v)),
    st.booleans().map(lambda v: ("BOOL", v)),
    TEXTS.map(lambda v: ("STRING", v)),
    st.sampled_from(['{"a":[1, "x"]}', "[]", "null", "true", "1.50", '"s"']).map(
        lambda v: ("JSON", v)
    ),
)


@st.composite
def columns(draw: st.DrawFn) -> tuple[int, list[tuple[int, str, Any]]]:
    """A few points anywhere, or several batches of them at a steady pace."""
    key = draw(st.sampled_from([1, 1, 2]))
    if draw(st.booleans()):
        times = sorted(draw(st.sets(st.integers(-20, 40), min_size=1, max_size=12)))
        return key, [(ts, *draw(VALUES)) for ts in times]
    start, step = draw(st.integers(-300, 300)), draw(st.integers(1, 3))
    base = draw(st.integers(0, 10**6))
    count = draw(st.integers(1, 400))
    return key, [(start + n * step, "INT64", base + n % 7) for n in range(count)]


RUNS = st.lists(columns(), min_size=1, max_size=12)
DELETES = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.none() | st.sampled_from([b"a", b"b"]),
        st.integers(-50, 100),
        st.integers(0, 60),
    ),
    max_size=3,
)
ROWS = st.dictionaries(st.integers(-30, 50), st.integers(0, 99), max_size=4)
BOUND = st.none() | st.integers(-40, 120)


class Stored:
    """Chunks of runs 1.., rows that are not sealed, and what of both is left."""

    def __init__(self, runs: list[Any], rows: dict[int, int], deletes: list[Any]) -> None:
        self.deleted = Deleted([(upto, key, low, low + n) for upto, key, low, n in deletes])
        self.chunks = [encode([column]) for column in runs]
        self.rows = rows
        self.points: dict[bytes, dict[int, tuple[str, Any]]] = {}
        for run, (key, points) in enumerate(runs, 1):
            for ts, kind, value in points:
                if not self.deleted.covers(NAMES[key], ts, run):
                    self.points.setdefault(NAMES[key], {})[ts] = kind, value
        for ts, value in rows.items():
            self.points.setdefault(b"a", {})[ts] = "INT64", value

    def scan(self, order: list[int], **asked: Any) -> RangeScan:
        scan = RangeScan(1, None, **asked)
        for n in order:
            chunk = self.chunks[n]
            feed_chunk(scan, chunk, NAMES, n + 1, self.deleted, lambda chunk=chunk: chunk)
        if self.rows:
            records = [Record(1, ts, [Point(1, INT64, value)]) for ts, value in self.rows.items()]
            scan.feed(write_block(Block(0, 1, 1, 1, 1, ["a"], records)))
        return scan

    def within(self, start: int | None, end: int | None) -> dict[str, dict[int, tuple[str, Any]]]:
        found = {}
        for name, points in self.points.items():
            inside = {
                ts: points[ts]
                for ts in sorted(points)
                if (start is None or ts >= start) and (end is None or ts < end)
            }
            if inside:
                found[name.decode()] = inside
        return found


def json_text(kind: str, value: Any) -> Any:
    match kind:
        case "STRING" | "INT64" | "BOOL":
            return value
        case "DECIMAL":
            return Decimal(value[0]).scaleb(-value[1])
        case "DOUBLE":
            return Decimal(repr(value))
    return parsed(value)


@given(
    runs=RUNS,
    rows=ROWS,
    deletes=DELETES,
    start=BOUND,
    end=BOUND,
    limit=st.sampled_from([1, 2, 100, 129, 1 << 40]),
    ascending=st.booleans(),
    kept=st.sampled_from([0, 100, 1 << 20]),
    data=st.data(),
)
def test_points(runs, rows, deletes, start, end, limit, ascending, kept, data) -> None:
    stored = Stored(runs, rows, deletes)
    order = data.draw(st.permutations(range(len(runs))))
    asked = {"start_ms": start, "end_ms": end, "limit": limit, "ascending": ascending}
    expected = {}
    for name, points in stored.within(start, end).items():
        times = list(points)[:limit] if ascending else list(points)[::-1][:limit]
        expected[name] = [{"ts": ts, "value": json_text(*points[ts])} for ts in times]
    # Chunks that are not kept are read again: however many fit, also one at a time.
    with mock.patch.object(limits, "READ_CHUNK_BYTES", kept):
        try:
            text = stored.scan(order, **asked).to_json()
        except PeerError:
            assert kept < 1 << 20
            return
        strings = stored.scan(order, **asked).to_json(strings=True)
    assert parsed(text) == expected
    assert strings == stringified(text)
    assert stored.scan(order, **asked).key_names() == sorted(expected)


@given(
    runs=RUNS,
    rows=ROWS,
    deletes=DELETES,
    start=st.integers(-40, 100),
    widths=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    data=st.data(),
)
def test_counts_in_buckets(runs, rows, deletes, start, widths, data) -> None:
    stored = Stored(runs, rows, deletes)
    bounds = [start]
    for width in widths:
        bounds.append(bounds[-1] + width)
    order = data.draw(st.permutations(range(len(runs))))
    asked = {"start_ms": start, "end_ms": bounds[-1], "limit": 1 << 62, "ascending": True}
    expected: dict[str, list[dict[str, int]]] = {}
    for name, points in stored.within(start, bounds[-1]).items():
        for low, high in itertools.pairwise(bounds):
            count = sum(low <= ts < high for ts in points)
            if count:
                middle = low + (high - low) // 2
                expected.setdefault(name, []).append({"ts": middle, "value": count})
    answer = aggregate_json(stored.scan(order, **asked), "COUNT", bounds)
    assert json.loads(answer) == expected
    as_strings = aggregate_json(stored.scan(order, **asked), "COUNT", bounds, True)
    assert as_strings == stringified(answer)


@given(st.floats())
def test_doubles_as_python_writes_them(value: float) -> None:
    scan = RangeScan(1, None)
    feed_chunk(scan, encode([(1, [(5, "DOUBLE", value)])]), NAMES, 1)
    text = repr(value) if math.isfinite(value) else "null"
    assert scan.to_json() == f'{{"a":[{{"ts":5,"value":{text}}}]}}'.encode()


def steady(count: int, start: int = 0) -> bytes:
    return encode([(1, [(start + n, "INT64", n) for n in range(count)])])


@pytest.mark.parametrize("ascending", [False, True])
def test_a_longer_answer_than_allowed_is_refused(ascending: bool) -> None:
    scan = RangeScan(1, None, limit=10_000, ascending=ascending)
    feed_chunk(scan, steady(10_000), NAMES, 1)
    with pytest.raises(PeerError, match="longer than 100000 bytes"):
        scan.to_json(False, 100_000)
    assert scan.to_json(False, 300_000).count(b'"ts"') == 10_000


def test_a_chunk_that_is_gone_when_it_is_read_again() -> None:
    scan = RangeScan(1, None)
    with mock.patch.object(limits, "READ_CHUNK_BYTES", 0):
        feed_chunk(scan, steady(10), NAMES, 1, None, lambda: None)
        with pytest.raises(StoreError, match="gone"):
            scan.to_json()


def test_another_chunk_when_it_is_read_again() -> None:
    """Its columns begin elsewhere: what was noted of the first one must not be looked up in it."""
    # A longer head; its first key, taken for a distance back, would lead out of it.
    wide = encode([(key, [(5, "INT64", key)]) for key in range(100, 230)])
    scan = RangeScan(1, None)
    with mock.patch.object(limits, "READ_CHUNK_BYTES", 0):
        feed_chunk(scan, steady(10), NAMES, 1, None, lambda: wide)
        with pytest.raises(StoreError, match="damaged"):
            scan.to_json()


@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what was freed for a while")
def test_a_read_that_fails_on_damage_keeps_no_memory() -> None:
    sound = bytearray(steady(3))
    sound[-2:] = b"\xff\xff"  # values of a width that they do not have room for
    sound[1:5] = crc32c(bytes(sound[:1] + sound[5:])).to_bytes(4, "little")
    damaged = bytes(sound)

    def fail() -> None:
        scan = RangeScan(1, None, ascending=True, start_ms=0, end_ms=1 << 40)
        feed_chunk(scan, damaged, NAMES, 1)
        with pytest.raises(StoreError, match="damaged"):
            scan.to_json()

    for _ in range(100):
        fail()
    before = _resident_bytes()
    for _ in range(5_000):  # a source of each would be 40 MB
        fail()
    assert _resident_bytes() - before < 10 << 20


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_least_and_greatest_of_texts_that_may_be_empty() -> None:
    for texts in (["", "b", "a"], ["b", "", "a"], ["", ""]):
        points = [(n, "STRING", text) for n, text in enumerate(texts)]
        for function, expected in (("MIN", min(texts)), ("MAX", max(texts))):
            scan = RangeScan(1, None, start_ms=0, end_ms=4, limit=1 << 62, ascending=True)
            feed_chunk(scan, encode([(1, points)]), NAMES, 1)
            answer = json.loads(aggregate_json(scan, function, [0, 4]))
            assert answer == {"a": [{"ts": 2, "value": expected}]}


def test_rows_that_are_not_sealed_have_a_bound() -> None:
    records = [Record(1, n, [Point(1, INT64, n)]) for n in range(50)]
    block = write_block(Block(0, 1, 1, 1, 1, ["a"], records))
    with mock.patch.object(limits, "READ_ROWS", 49):
        few = RangeScan(1, None, limit=10)
        few.feed(block)
        assert few.to_json().count(b'"ts"') == 10
        with pytest.raises(PeerError, match="not sealed"):
            RangeScan(1, None, limit=1 << 40).feed(block)


def test_a_read_of_too_many_chunks_is_refused() -> None:
    scan = RangeScan(1, None)
    with mock.patch.object(limits, "READ_PIECES", 2):
        feed_chunk(scan, steady(5), NAMES, 1)
        feed_chunk(scan, steady(5), NAMES, 2)
        with pytest.raises(PeerError, match="too many chunks"):
            feed_chunk(scan, steady(5), NAMES, 3)
