"""Aggregation by interval against a plain model, over heads, sealed runs and repeated times."""

import asyncio
import json
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbfast.errors import PeerError
from tbfast.model.ranges import RangeQuery, bucket_bounds
from tests.support.storage import Storage, ranged

DEVICE = 7
TIMES = st.integers(-30, 60)
NUMBERS = st.integers(-(10**6), 10**6).map(str) | st.decimals(
    -1000, 1000, allow_nan=False, allow_infinity=False, places=2
).map(lambda d: format(d, "f"))
VALUES = NUMBERS | st.sampled_from(['"on"', '"off"', '"é"', "true", "false", '{"a":1}'])
STEPS = st.lists(
    st.just("seal")
    | st.tuples(TIMES, st.dictionaries(st.sampled_from(["a", "b"]), VALUES, min_size=1)),
    min_size=1,
    max_size=25,
)


def model(
    points: dict[int, str], which: str, bounds: list[int], interval_ms: int
) -> list[dict[str, Any]]:
    found = []
    for low in range(bounds[0], bounds[1], interval_ms):
        high = min(low + interval_ms, bounds[1])
        texts = [points[ts] for ts in sorted(points) if low <= ts < high]
        if not texts:
            continue
        value = bucket_value([json.loads(t, parse_float=Decimal) for t in texts], which)
        if value is not None:
            found.append({"ts": low + (high - low) // 2, "value": value})
    return found


def bucket_value(values: list[Any], which: str) -> Any:
    numbers = [v for v in values if isinstance(v, int | Decimal) and not isinstance(v, bool)]
    whole = all(isinstance(v, int) for v in numbers)
    strings = [v for v in values if isinstance(v, str)]
    if which == "COUNT":
        return len(values)
    if which in ("MIN", "MAX"):
        pick = min if which == "MIN" else max
        if numbers:
            return pick(numbers) if whole else Decimal(pick(numbers))
        return pick(strings, key=lambda s: s.encode()) if strings else None
    if not numbers:
        return None
    total = sum(map(Fraction, numbers))
    if which == "AVG":
        return total / len(numbers)
    return int(total) if whole else total


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    which=st.sampled_from(["MIN", "MAX", "AVG", "SUM", "COUNT"]),
    start=TIMES,
    length=st.integers(1, 90),
    interval_ms=st.integers(1, 40),
)
def test_buckets(steps: list[Any], which: str, start: int, length: int, interval_ms: int) -> None:
    stored: dict[str, dict[int, str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        storage = Storage(Path(directory) / "data", journals=1)
        try:
            for step in steps:
                if step == "seal":
                    asyncio.run(storage.sealer.seal())
                    continue
                ts, values = step
                storage.write(0, DEVICE, (ts, values))
                for key, text in values.items():
                    stored.setdefault(key, {})[ts] = text
            end = start + length
            answer = asyncio.run(
                ranged(
                    storage.reads,
                    DEVICE,
                    start_ms=start,
                    end_ms=end,
                    aggregation=which,
                    interval_ms=interval_ms,
                )
            )
        finally:
            storage.close()
    expected = {
        key: buckets
        for key, points in stored.items()
        if (buckets := model(points, which, [start, end], interval_ms))
    }
    assert answer.keys() == expected.keys()
    for key, buckets in expected.items():
        assert [p["ts"] for p in answer[key]] == [p["ts"] for p in buckets]
        for got, wanted in zip(answer[key], buckets, strict=True):
            if isinstance(wanted["value"], str):
                assert got["value"] == wanted["value"]
            else:
                assert isinstance(got["value"], int) == isinstance(wanted["value"], int)
                assert float(got["value"]) == pytest.approx(float(wanted["value"]), rel=1e-12)
                if which in ("MIN", "MAX", "COUNT"):
                    assert got["value"] == wanted["value"]


@pytest.mark.parametrize(
    ("values", "which", "strings", "expected"),
    [
        (["7", "9.25"], "MIN", True, b'"7.0"'),
        (["7", "9.25"], "MIN", False, b"7.0"),
        (["7", "9"], "MIN", True, b'"7"'),
        (["-3", "-9.5"], "MAX", True, b'"-3.0"'),
        (["0", "-0.5"], "MAX", False, b"0.0"),
        (["9223372036854775807", "1.5"], "MAX", False, b"9.223372036854776e+18"),
        (["-9223372036854775808", "1.5"], "MIN", False, b"-9.223372036854776e+18"),
        (["9007199254740993", "1.5"], "MAX", False, b"9007199254740993.0"),
        (["1", "123456789012345678901.5"], "MIN", False, b"1.0"),
        (["9223372036854775807", "-9223372036854775808"], "MAX", False, b"9223372036854775807"),
        (["9223372036854775807", "-9223372036854775808"], "SUM", False, b"-1"),
    ],
)
def test_one_double_makes_it_a_double(
    tmp_path: Path, values: list[str], which: Any, strings: bool, expected: bytes
) -> None:
    storage = Storage(tmp_path / "data", journals=1)
    try:
        for ts, text in enumerate(values):
            storage.write(0, DEVICE, (ts, {"a": text}))
        query = RangeQuery(
            start_ms=0, end_ms=10, aggregation=which, interval_ms=10, strings=strings
        )
        answer = asyncio.run(storage.reads.range(DEVICE, query))
    finally:
        storage.close()
    assert answer == b'{"a":[{"ts":5,"value":%b}]}' % expected


# --- the bounds of buckets -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "zone", "start_ms", "expected_ms"),
    [
        # 2024-02-29 12:00 UTC is a Thursday.
        ("WEEK", "UTC", 1_709_208_000_000, 1_709_424_000_000),  # to Sunday 2024-03-03
        ("WEEK_ISO", "UTC", 1_709_208_000_000, 1_709_510_400_000),  # to Monday 2024-03-04
        ("MONTH", "UTC", 1_709_208_000_000, 1_709_251_200_000),  # to 2024-03-01
        ("QUARTER", "UTC", 1_709_208_000_000, 1_711_929_600_000),  # to 2024-04-01
        ("MONTH", "Europe/Kyiv", 1_709_208_000_000, 1_709_244_000_000),  # two hours earlier
        # Summer time began on 2024-03-31: April starts at UTC+3.
        ("MONTH", "Europe/Kyiv", 1_709_251_200_000, 1_711_918_800_000),
    ],
)
def test_calendar_intervals(kind: Any, zone: str, start_ms: int, expected_ms: int) -> None:
    query = RangeQuery(
        start_ms=start_ms,
        end_ms=start_ms + 365 * 86_400_000,
        aggregation="AVG",
        interval_type=kind,
        time_zone=zone,
    )
    assert bucket_bounds(query)[1] == expected_ms


@pytest.mark.parametrize(
    "fields",
    [
        {"start_ms": None, "end_ms": 5, "interval_ms": 1},
        {"start_ms": 0, "end_ms": None, "interval_ms": 1},
        {"start_ms": 0, "end_ms": 701, "interval_ms": 1},
        {"start_ms": 0, "end_ms": 1 << 62, "interval_ms": 1},
        {"start_ms": 0, "end_ms": 9, "interval_type": "MONTH", "time_zone": "Mars/Olympus"},
        {"start_ms": 0, "end_ms": 9, "interval_type": "MONTH", "time_zone": "../etc/passwd"},
        {"start_ms": -(1 << 62), "end_ms": 0, "interval_type": "MONTH"},
        {"start_ms": 0, "end_ms": 701 * 7 * 86_400_000, "interval_type": "WEEK"},
    ],
)
def test_refused_intervals(fields: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        bucket_bounds(RangeQuery(aggregation="AVG", **fields))


def test_seven_hundred_intervals_are_allowed() -> None:
    query = RangeQuery(aggregation="AVG", start_ms=0, end_ms=700, interval_ms=1)
    assert len(bucket_bounds(query)) == 701
